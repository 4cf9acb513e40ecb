# The production site of t/production_*.t: the shipped files of nginx-conf/, unchanged, at their installed paths and ports. The test runs
# in namespaces of its own, with a private /etc/nginx, Redis on 127.0.0.1:6379 and tools on 10.0.0.x, which all end with it.
#
#   use lib 't/lib';
#   use Production;
#
#   site('urlproxy', 'proxymanager');                    # main files in conf.d; starts Redis and nginx
#   route(hello => tool('10.0.0.2'));                    # a tool that answers with the request that it got
#   is(fetch('https://hello.toolforge.org/')->{status}, 200);
#
# Needs root, or permission for user namespaces. Respects TEST_NGINX_LOAD_MODULES, which t/prove sets, and TEST_NGINX_BINARY.
package Production;

use v5.10.1;
use strict;
use warnings;

use Cwd ();
use File::Path ();
use IO::Select ();
use IO::Socket::INET ();
use IPC::Open2 ();
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

# Log lines that END takes for no trouble.
our $harmless = qr/setgroups|initgroups/;
# Of nginx alone.
our ($workers, %environment) = (2);
our $timeout = $ENV{PRODUCTION_TIMEOUT} // 60;
our ($root, $nginx, $module) = (Cwd::getcwd(), $ENV{TEST_NGINX_BINARY} // 'nginx', $ENV{TEST_NGINX_LOAD_MODULES} // 'target/release/liburlproxy.so');
$module = "$root/$module" unless $module =~ m{^/};
# In the test's own /run. The checkout may be below /tmp.
my $work = '/run/production';
my $redis;

enter_namespaces() unless delete $ENV{PRODUCTION_INSIDE};
our $is_mapped = !has_all_users();
furnish();

sub import {
    my $into = caller;
    strict->import;
    warnings->import;
    Test::More->export_to_level(1);
    no strict 'refs';
    *{"${into}::$_"} = \&{"Production::$_"} for qw(
        access_log add_to ask client_on conf_path eventually error_log fetch fetch_h2 hang_up has_http3 nginx_version redis reload route serve site
        slurp statuses stop_redis tool warnings write_file
    );
}

# Runs the test again as a child of new namespaces. When that child ends, the kernel kills all of their processes.
sub enter_namespaces {
    my @kinds = qw(--net --mount --pid --fork --kill-child --mount-proc);
    unshift @kinds, '--map-root-user' if $> != 0;
    if (system('unshare', @kinds, 'true') != 0) {
        plan(skip_all => 'namespaces are not permitted here') if ($ENV{URLPROXY_MAY_SKIP} // '') =~ /\b(?:root|1)\b/;
        die "namespaces are not permitted here: run this as root; a container needs CAP_SYS_ADMIN\n";
    }
    $ENV{PRODUCTION_INSIDE} = 1;
    exec 'unshare', @kinds, $^X, (map { "-I$_" } 't/lib'), $0 or die "unshare: $!\n";
}

sub has_all_users { return slurp('/proc/self/uid_map') !~ /^\s*0\s+[1-9]/ }

# The files and addresses of a machine on which the package is installed. Nothing outside of the namespaces changes.
sub furnish {
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'run', '/run');
    mkdir $work or die "$work: $!\n";
    run('mount', '--rbind', '/etc/nginx', make("$work/host-nginx"));
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'etc', '/etc/nginx');
    run('cp', "$work/host-nginx/mime.types", '/etc/nginx/');
    File::Path::make_path(map { "/etc/nginx/$_" } qw(conf.d tls urlproxy));
    run('cp', '-r', "$root/nginx-conf/snippets", "$root/nginx-conf/lists", '/etc/nginx/urlproxy/');
    if (nginx_version() ge '001.025.001') {
        run('cp', '-r', "$root/nginx-conf/nginx-1.25/.", '/etc/nginx/urlproxy/snippets/');
    }
    add_directory('/usr/share', 'urlproxy');
    run('cp', '-r', "$root/nginx-conf/error", '/usr/share/urlproxy/') if -d "$root/nginx-conf/error";
    add_directory('/var/lib', 'urlproxy');
    chmod 0777, '/var/lib/urlproxy';
    add_directory('/var', 'www');
    File::Path::make_path('/var/www/html');
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'log', '/var/log');
    mkdir '/var/log/nginx';
    certificates();

    run('ip', 'link', 'set', 'lo', 'up');
    # Every address of these networks: tools, and clients for whom documentation networks stand.
    run('ip', 'route', 'add', 'local', $_, 'dev', 'lo') for qw(10.0.0.0/16 192.0.2.0/24 198.51.100.0/24);
    run('ip', '-6', 'route', 'add', 'local', '2001:db8::/32', 'dev', 'lo');
    write_file('/proc/sys/net/ipv6/ip_nonlocal_bind', 1);
}

# Adds a directory below one that belongs to the host: a new file system with links to all that the host has there.
sub add_directory {
    my ($parent, $name) = @_;
    my $host = make("$work/host" . $parent =~ tr{/}{-}r);
    run('mount', '--rbind', $parent, $host);
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'farm', $parent);
    opendir my $entries, $host or die "$host: $!\n";
    for my $entry (grep { !/^\.\.?$/ && $_ ne $name } readdir $entries) {
        symlink "$host/$entry", "$parent/$entry" or die "$parent/$entry: $!\n";
    }
    make("$parent/$name");
}

# One certificate for all names, at every path that the shipped files name.
sub certificates {
    my @paths = map { slurp($_) =~ m{^\s*ssl_certificate(?:_key)?\s+(\S+);}mg } glob "$root/nginx-conf/*.conf";
    my $names = join ',', map { "DNS:$_" } qw(tools.example.org toolforge.org *.toolforge.org wmcloud.org *.wmcloud.org *.wmflabs.org *.example.net *.busy.example.net);
    run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=production',
        '-addext', "subjectAltName=$names", '-keyout', "$work/key.pem", '-out', "$work/ca.pem");
    for my $path (@paths) {
        run('cp', ($path =~ /key$/ ? "$work/key.pem" : "$work/ca.pem"), $path);
    }
}

# Starts Redis and nginx with these main files in conf.d; proxymanager.conf comes with urlproxy.conf.
sub site {
    my (@mains) = @_;
    push @mains, 'proxymanager' if grep({ $_ eq 'urlproxy' } @mains) && !grep { $_ eq 'proxymanager' } @mains;
    start_redis();
    for my $main (@mains) {
        my $to = $main eq 'logformat' ? '00-urlproxy-logformat' : $main;
        run('cp', "$root/nginx-conf/$main.conf", "/etc/nginx/conf.d/$to.conf");
    }
    my @temp  = map { "${_}_temp_path $work/temp_$_;" } qw(client_body proxy fastcgi uwsgi scgi);
    my $user = $is_mapped ? 'user root;' : 'user www-data;';
    # A container may allow fewer files.
    my ($files) = sort { $a <=> $b } 32768, slurp('/proc/self/limits') =~ /^Max open files\s+\d+\s+(\d+)/m;
    my $connections = int($files / 2);
    # As Debian's, with what docs/install.md asks for.
    write_file('/etc/nginx/nginx.conf', <<"CONF");
$user
worker_processes $workers;
worker_rlimit_nofile $files;
pid $work/nginx.pid;
error_log $work/error.log info;
load_module $module;
@{[map { "env $_;" } sort keys %environment]}
events { worker_connections $connections; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    variables_hash_max_size 2048;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log $work/access.log;
    gzip on;
    @temp
    include /etc/nginx/conf.d/*.conf;
}
CONF
    is(warnings(), '', "nginx -t: @mains");
    chmod 0755, $work;
    # It repeats there what is in the log.
    spawn(sub { %ENV = (%ENV, %environment); open STDERR, '>', '/dev/null'; exec $nginx, '-c', '/etc/nginx/nginx.conf', '-e', "$work/error.log", '-g', 'daemon off;' or die "$nginx: $!\n" });
    eventually(sub { -s "$work/nginx.pid" && is_open('127.0.0.1', 80) }) or die "nginx did not start:\n" . error_log();
}

# What `nginx -t` has to say, apart from the number of files, which is the machine's.
sub warnings {
    my $said = `$nginx -t -c /etc/nginx/nginx.conf -e $work/test.log 2>&1`;
    die $said if $?;
    return join '', grep { !/worker_rlimit_nofile|open file resource limit/ } $said =~ /^.*\[(?:warn|alert|emerg)\].*\n/mg;
}

sub start_redis {
    $redis = undef;
    spawn(sub {
        open STDOUT, '>', "$work/redis.log";
        exec 'redis-server', '--bind', '127.0.0.1', '--port', 6379, '--save', '', '--dir', $work or die "redis-server: $!\n";
    }, 'redis');
    eventually(sub { is_open('127.0.0.1', 6379) }) or die "Redis did not start: " . slurp("$work/redis.log");
}

my %pids;
sub stop_redis {
    kill 'TERM', $pids{redis};
    eventually(sub { !is_open('127.0.0.1', 6379) }) or die "Redis did not stop\n";
    $redis = undef;
}

# A child process; `name` is for stopping it. All are stopped by the end of the namespaces.
sub spawn {
    my ($code, $name) = @_;
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        $code->();
        POSIX::_exit(0);
    }
    $pids{$name} = $pid if defined $name;
    return $pid;
}

# Reads the configuration again, and waits until only workers with the new one are left.
sub reload {
    my $before = workers();
    my $pid = slurp("$work/nginx.pid") + 0;
    kill 'HUP', $pid;
    my %old = map { $_ => 1 } @$before;
    eventually(sub { my $now = workers(); @$now && !grep { $old{$_} } @$now }) or die "the reload did not end:\n" . error_log();
}
sub workers { my $pid = slurp("$work/nginx.pid") + 0; return [`ps -o pid= --ppid $pid` =~ /\d+/g] }

# Adds lines to a file of /etc/nginx/urlproxy/, as an operator does.
sub add_to {
    my ($file, $lines) = @_;
    open my $out, '>>', "/etc/nginx/urlproxy/$file" or die "$file: $!\n";
    print $out "$lines\n";
    close $out or die "$file: $!\n";
}
sub conf_path { return "/etc/nginx/conf.d/$_[0].conf" }

# Routes a tool, or a domain if the name has a dot, and waits until nginx has the route.
sub route {
    my ($name, $backend, $pattern) = @_;
    $backend = "http://$backend" unless $backend =~ m{://};
    my $is_domain = $name =~ /\./;
    $is_domain ? redis('SADD', "frontend:$name", $backend) : redis('HSET', "prefix:$name", $pattern // '.*', $backend);
    my $path = $is_domain ? '8082/api/explain?uri=/&host=' . $name =~ s/^\*/any/r : "8081/api/routes/$name";
    eventually(sub { ask_admin($path) =~ /\Q$backend\E/ }) or die "no route for $name: " . ask_admin($path);
}

# The body of a page of the admin servers.
sub ask_admin { my $url = "http://127.0.0.1:$_[0]"; return `curl -s --max-time 10 '$url'` }

# Starts a tool at an address and returns that with its port. The code gets each request (method, uri, head, headers, body), and
# returns the response as raw bytes, or nothing to close the connection; by default it returns the request's head.
sub tool {
    my ($address, $code) = @_;
    $code //= sub { response($_[0]{head} . $_[0]{body}, 'X-Tool: ' . $address) };
    my $listener = serve($address);
    my $at = "$address:" . $listener->sockport;
    spawn(sub {
        $SIG{CHLD} = 'IGNORE';
        while (my $client = $listener->accept // ($!{EINTR} ? next : undef)) {
            if (my $pid = fork) { close $client; next }
            my $request = read_request($client);
            print $client $code->($request) if $request;
            close $client;
            POSIX::_exit(0);
        }
    });
    close $listener;
    return $at;
}

# A listening socket, for tests that play the tool themselves.
sub serve {
    my ($address, $port) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => $address, LocalPort => $port // 0, Listen => 64, ReuseAddr => 1) or die "$address: $!\n";
    return $listener;
}

sub response {
    my ($body, @headers) = @_;
    return join "\r\n", 'HTTP/1.1 200 OK', 'Content-Length: ' . length $body, 'Connection: close', @headers, '', $body;
}

sub read_request {
    my ($socket) = @_;
    my $head = '';
    until ($head =~ /\r\n\r\n\z/) {
        sysread($socket, $head, 1, length $head) or return;
    }
    my ($method, $uri) = $head =~ m{^(\S+) (\S+)};
    my %headers;
    $headers{ lc $1 } = $2 while $head =~ /^([^:\s]+):[ ]*(.*?)\r$/mg;
    my $body = '';
    if (my $left = $headers{'content-length'}) {
        while (length $body < $left) { sysread($socket, $body, $left - length $body, length $body) or last }
    } elsif (($headers{'transfer-encoding'} // '') eq 'chunked') {
        while (my $size = hex line_of($socket)) {
            my $chunk = '';
            while (length $chunk < $size) { sysread($socket, $chunk, $size - length $chunk, length $chunk) or last }
            $body .= $chunk;
            line_of($socket);
        }
    }
    return { head => $head, headers => \%headers, method => $method, uri => $uri, body => $body };
}
sub line_of {
    my ($socket) = @_;
    my $line = '';
    until ($line =~ /\r\n\z/) { sysread($socket, $line, 1, length $line) or last }
    return $line;
}

# Asks nginx with curl over HTTP/1.1 and TLS (or http://) and returns a hash: status, head, headers (lower-case names, joined by ", "), body.
# `from` is the client's address; all other arguments are curl's.
sub fetch {
    my ($url, %with) = @_;
    my @options = @{ delete $with{curl} // [] };
    my $from = delete $with{from};
    my $method = delete $with{method};
    my $headers = delete $with{headers} // [];
    my $body = delete $with{body};
    my $version = delete $with{http} // '--http1.1';
    die "unknown options @{[keys %with]}" if %with;
    # Same address as the client, so that an IPv6 client asks over IPv6.
    my $to = ($from // '') =~ /:/ ? '[2001:db8::1]' : '127.0.0.1';
    push @options, '--interface', $from if defined $from;
    push @options, $method eq 'HEAD' ? '--head' : ('-X', $method) if defined $method;
    push @options, map { ('-H', $_) } @$headers;
    if (defined $body) {
        write_file("$work/body", $body);
        push @options, '--data-binary', "\@$work/body";
    }
    open my $out, '-|', 'curl', '-s', '-i', '--globoff', '--path-as-is', $version, '--max-time', $timeout, '--cacert', "$work/ca.pem",
        '--connect-to', "::$to:", @options, $url or die "curl: $!\n";
    my $text = do { local $/; <$out> } // '';
    close $out;
    my $status = $? >> 8;
    return { status => "curl $status", head => '', headers => {}, body => '' } unless $text =~ /^HTTP/;
    return parse($text);
}

sub parse {
    my ($text) = @_;
    my ($head, $body);
    do { ($head, $text) = split /\r\n\r\n/, $text, 2 } while ($head =~ m{^HTTP/\S+ 100});
    my %headers;
    while ($head =~ /^([^:\s]+):[ ]*(.*?)\r?$/mg) {
        $headers{ lc $1 } = exists $headers{ lc $1 } ? $headers{ lc $1 } . ", $2" : $2;
    }
    my ($status) = $head =~ m{^HTTP/\S+ (\d+)};
    return { status => $status, head => "$head\r\n", headers => \%headers, body => $text // '' };
}

# The statuses of `count` requests, as fast as one connection can send them: { 200 => 3, 429 => 7 }.
sub statuses {
    my ($url, $count, @options) = @_;
    my @interface = grep { /:/ } @options;
    my $to = @interface ? '[2001:db8::1]' : '127.0.0.1';
    open my $out, '-|', 'curl', '-s', '--max-time', $timeout, '--cacert', "$work/ca.pem", '--connect-to', "::$to:", '-w', '%{http_code}\n',
        '-o', '/dev/null', @options, "$url?[1-$count]" or die "curl: $!\n";
    my %count;
    while (my $line = <$out>) { $count{ 0 + $line }++ }
    close $out;
    return \%count;
}

# A TLS connection to nginx, for requests that no client would send: two handles and the process for `hang_up`.
sub client_on {
    my ($host) = @_;
    my $pid = IPC::Open2::open2(my $in, my $out, 'sh', '-c', 'exec openssl s_client "$@" 2>/dev/null', 's_client', '-quiet', '-verify_quiet', '-connect', '127.0.0.1:443', '-servername', $host,
        '-CAfile', "$work/ca.pem");
    binmode $_ for $in, $out;
    return ($in, $out, $pid);
}

sub hang_up {
    my ($pid) = @_;
    kill 'TERM', $pid;
    waitpid $pid, 0;
}

# A raw request: its bytes, then the response until nginx closes.
sub ask {
    my ($host, $request) = @_;
    my ($in, $out, $pid) = client_on($host);
    { local $SIG{PIPE} = 'IGNORE'; syswrite $out, $request; }
    my $text = '';
    while (IO::Select->new($in)->can_read($timeout)) {
        sysread($in, $text, 65536, length $text) or last;
        # nginx lingers before it closes.
        last if $text =~ /\r\n\r\n/ && $text =~ /\r\n0\r\n\r\n\z/;
    }
    hang_up($pid);
    return parse($text);
}

# Asks over HTTP/2; see fetch.
sub fetch_h2 { return fetch(@_, http => '--http2') }

sub redis {
    my (@command) = @_;
    $redis //= IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => 6379) // die "Redis: $!\n";
    print $redis '*' . @command . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @command;
    my $line = <$redis> // die "Redis went away\n";
    die "Redis: $line" if $line =~ /^-/;
    return $line;
}

sub eventually {
    my ($condition) = @_;
    my $deadline = time + $timeout;
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep 0.01;
    }
    return 1;
}

sub is_open { my $socket = IO::Socket::INET->new(PeerAddr => $_[0], PeerPort => $_[1]); return defined $socket }
sub error_log  { return slurp("$work/error.log") }
sub access_log { return -e "$work/access.log" ? slurp("$work/access.log") : '' }

# Comparable as text: 001.022.001.
sub nginx_version {
    my ($version) = `$nginx -v 2>&1` =~ m{nginx/([\d.]+)} or die "$nginx has no version\n";
    return join '.', map { sprintf '%03d', $_ } split /\./, $version;
}

sub has_http3 { return nginx_version() ge '001.025.001' && `$nginx -V 2>&1` =~ /http_v3_module/ }

sub run {
    my (@command) = @_;
    open my $out, '-|', qw(sh -c), 'exec "$@" 2>&1', 'sh', @command or die "$command[0]: $!\n";
    my $said = do { local $/; <$out> } // '';
    close $out or die "@command: $said\n";
    return $said;
}
sub make { mkdir $_[0] or die "$_[0]: $!\n"; return $_[0] }

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file> // '';
}

sub write_file {
    my ($path, $text) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    print $file $text;
    close $file or die "$path: $!\n";
}

# nginx may have nothing to say that an operator would have to act on.
END {
    if (defined $work && -e "$work/error.log" && !$?) {
        my @trouble = grep { /\[alert\]|\[emerg\]|panic|exited on signal/ && !/$harmless/ } split /\n/, error_log();
        print "# $_\n" for @trouble;
        $? = 1 if @trouble;
    }
}

1;
