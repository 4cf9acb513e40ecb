# Shared by the files of t/: routes in Redis before nginx starts, a canned configuration, backends controlled by the test, and
# raw requests. t/prove starts Redis and the demo tools.
#
# Sections of a block, in addition to those of Test::Nginx:
#
#   redis     commands, one per line; with `eval` a list of lists. Redis is empty before
#   table, upstream, http, server, location
#             lines added to that part of the canned configuration; http_config or config replaces all of it
#   pass      the argument of the canned location's proxy_pass, instead of http://tools
#   requests  one per line: a URI, or http://host/path for another Host, then the expected result, see `answered` below
#   perl      code that runs while nginx is running
#   refused   nginx must not start, and log exactly this error
#
# Then every block requests /up. Without no_error_log, nginx's log must have no alert and no panic, also during shutdown.
package UrlproxyTest;

use v5.10.1;
use strict;
use warnings;

use File::Spec ();
use IO::Select ();
use IO::Socket::INET ();
use Time::HiRes qw(sleep time);

BEGIN {
    for my $name (qw(REDIS_PORT TOOL_A TOOL_B TOOL_C)) {
        $ENV{"TEST_NGINX_$name"} //= $ENV{"URLPROXY_T_$name"} // die "URLPROXY_T_$name is not set: run t/prove $0\n";
    }
    $ENV{TEST_NGINX_LOAD_MODULES} //= File::Spec->rel2abs($ENV{URLPROXY_MODULE} // 'target/release/liburlproxy.so');
    $ENV{TEST_NGINX_SLEEP} //= 0.005;
}

use Test::Nginx::Socket -base;

our @EXPORT = qw(
    accept_on answer ask change_routes next_backend error_log eventually has_no_connection nginx_pid nginx_version own_sections read_message redis refuse_rows send_bytes
    start_ask to_nginx worker_pids $timeout
);

sub eventually(&);

# Seconds until a wait fails; generous, for busy machines.
our $timeout = 60;
my $trouble  = qr/\[alert\]|\[emerg\]|panic|exited on signal/;

timeout($timeout);
no_root_location();
master_on();
log_level('info');
worker_connections(512);

# Bound without listening: connections are refused, and no other process can use the port.
my %dead = map { $_ => tcp_socket() } qw(A B);
export_address("DEAD_$_", $dead{$_}) for keys %dead;

# Known sections: those above, those of Test::Nginx in use, and those that a file adds.
my %sections = map { $_ => 1 } qw(
    redis table upstream http server location pass requests perl refused
    config error_code error_log http_config main_config no_error_log raw_request request response_body response_body_like
    response_headers timeout user_files
);
sub own_sections { $sections{$_} = 1 for @_ }

# The start of the block, before its nginx starts.
our $begun;

# The test's own backends, new for each block.
my %own;

add_block_preprocessor(sub {
    my ($block) = @_;
    $begun = time;
    for my $section (@{ $block->{_section_order}[0] // [] }) {
        bail_out("$0: unknown section \"$section\" of \"" . $block->name . '"') unless $sections{$section};
    }
    for my $name (qw(A B)) {
        $own{$name} = tcp_socket(Listen => 64);
        export_address("OWN_$name", $own{$name});
    }
    load_routes($block->redis);
    # nginx writes the same lines to its log.
    $block->set_value(suppress_stderr => 1);
    $block->set_value(http_config => canned_http($block)) unless defined $block->http_config;
    $block->set_value(config      => canned_server($block)) unless defined $block->config;
    if (defined $block->refused) {
        my $message = expand($block->refused);
        $message =~ s/\s+\z//;
        $block->set_value(must_die        => 'yes');
        $block->set_value(error_log       => [qr/\[emerg\] [0-9#]+: \Q$message\E( in \S+nginx\.conf:\d+)?$/]);
        $block->set_value(no_error_log    => [qr/\[alert\]|panic/]);
        return;
    }
    $block->set_value(init => 'UrlproxyTest::perform($block)');
    unless (defined $block->request || defined $block->raw_request || defined $block->pipelined_requests) {
        $block->set_value(request    => 'GET /up');
        $block->set_value(error_code => 204);
    }
    $block->set_value(error_log             => expand($block->error_log)) if defined $block->error_log;
    return if defined $block->no_error_log;
    $block->set_value(no_error_log          => [$trouble]);
    $block->set_value(no_shutdown_error_log => [$trouble]);
});

# Creates one block for each row `part: configuration => error message`, which nginx must refuse. A row with <> is one block
# per indented line below it, which replaces <> on both sides.
sub refuse_rows {
    my ($rows) = @_;
    my ($pattern, @cases);
    for (grep { !/^(?:#|$)/ } split /\n/, $rows) {
        if (my ($value) = /^ +(.+)/) {
            push @cases, $pattern =~ s/<>/$value/gr;
        } else {
            $pattern = $_;
            push @cases, $_ unless /<>/;
        }
    }
    my $blocks = '';
    for (@cases) {
        my ($part, $written, $said) = /^(\w+): (.+) => (.+)$/ or bail_out("$0: invalid row: $_");
        $blocks .= "=== $part: $written\n--- $part\n$written\n--- refused\n$said\n\n";
    }
    &spec_string($blocks);
}

sub canned_http {
    my ($block) = @_;
    my ($table, $upstream, $http) = map { $block->$_ // '' } qw(table upstream http);
    $table .= "\nredis redis://127.0.0.1:$ENV{TEST_NGINX_REDIS_PORT}/0;" unless $table =~ /^\s*redis\b/m;
    $table .= "\nwait_for_routes ${timeout}s;" unless $table =~ /^\s*wait_for_routes\b/m;
    return <<"CONF";
urlproxy_table tools {
    $table
}
upstream tools {
    urlproxy_peers;
    $upstream
}
$http
CONF
}

sub canned_server {
    my ($block) = @_;
    my ($server, $location) = map { $block->$_ // '' } qw(server location);
    my $pass = $block->pass // 'http://tools';
    $pass =~ s/\s+\z//;
    return <<"CONF";
$server
location / {
    urlproxy tools path;
    proxy_pass $pass;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    add_header X-Urlproxy-Result "\$urlproxy_result" always;
    add_header X-Urlproxy-Tool "\$urlproxy_tool" always;
    add_header X-Urlproxy-Pattern "\$urlproxy_pattern" always;
    add_header X-Urlproxy-Scheme "\$urlproxy_scheme" always;
    add_header X-Urlproxy-Backend "\$urlproxy_backend" always;
    $location
}
location = /list { urlproxy_list tools; }
location = /up { return 204; }
CONF
}

# Expands $TEST_NGINX_... in a text, as Test::Nginx does in configurations.
sub expand {
    my ($text) = @_;
    $text =~ s/\$(TEST_NGINX_[A-Z0-9_]+)/$ENV{$1} \/\/ die "$1 is not set\n"/eg;
    return $text;
}

sub load_routes {
    my ($commands) = @_;
    redis('FLUSHALL');
    $commands = [map { [split] } grep { /\S/ } split /\n/, expand($commands // '')] unless ref $commands;
    redis(@$_) for @$commands;
}

# The init section of every block.
sub perform {
    my ($block) = @_;
    my $name = $block->name;
    for my $line (grep { /\S/ } split /\n/, $block->requests // '') {
        my ($uri, @want) = split ' ', expand($line);
        my $got = eval { answered($uri, @want) } // "died: $@";
        is($got, "@want", "$name - $uri");
    }
    if (defined $block->perl) {
        # The master listens before its pid file and its workers exist.
        eventually { eval { scalar(() = worker_pids()) } } if Test::Nginx::Util::master_process_enabled() eq 'on';
        run_code("package main; use strict; use warnings;\n#line 1 \"$name\"\n" . $block->perl . "\n;1")
            or fail("$name - died: $@");
    }
    # Lines of the companion may come late, and Test::Nginx checks only once.
    my $wanted = $block->error_log // '';
    my @patterns = ref $wanted eq 'ARRAY' ? @$wanted : ref $wanted ? $wanted : map { quotemeta } grep { /\S/ } split /\n/, $wanted;
    for my $pattern (@patterns) {
        eventually { error_log() =~ $pattern };
    }
}

# Formats a response like its expectation: the status, then the demo tool that answered (`-` for none), then pairs: `sees` is
# the URI that the tool got, `location` the redirect target, others are the variables of that name.
sub answered {
    my ($uri, $status, $tool, @pairs) = @_;
    my @host = $uri =~ s{^http://([^/]+)}{} ? (headers => ["Host: $1"]) : ();
    my $answer = ask("GET $uri", @host);
    my @got = ($answer->{status});
    push @got, $answer->{headers}{'x-tool'} // '-' if defined $tool;
    for my $key (map { /^(\w+)=/ } @pairs) {
        my ($sees) = $answer->{body} =~ /^uri: (.*)$/m;
        my %special = (sees => $sees, location => $answer->{headers}{location});
        push @got, "$key=" . ((exists $special{$key} ? $special{$key} : $answer->{headers}{"x-urlproxy-$key"}) // '');
    }
    return "@got";
}

# Sends a request and returns the response: a hash of status, headers (lower-case names), body, head (its text).
# `headers` is a list of lines, `body` follows them.
sub ask {
    my ($line, %with) = @_;
    return answer(start_ask($line, %with), $line =~ /^HEAD /);
}

# Sends a request, and returns the socket for the response.
sub start_ask {
    my ($line, %with) = @_;
    my @headers = @{ $with{headers} // [] };
    push @headers, 'Content-Length: ' . length $with{body} if defined $with{body};
    push @headers, 'Host: localhost' unless grep { /^Host:/i } @headers;
    push @headers, 'Connection: close' unless grep { /^Connection:/i } @headers;
    my $socket = to_nginx();
    send_bytes($socket, join "\r\n", "$line HTTP/1.1", @headers, '', $with{body} // '');
    return $socket;
}

sub to_nginx {
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => server_port_for_client()) or die "nginx: $!\n";
    return $socket;
}

# Writes all bytes to either end of a connection.
sub send_bytes {
    my ($socket, $bytes) = @_;
    local $SIG{PIPE} = 'IGNORE';
    while (length $bytes) {
        IO::Select->new($socket)->can_write($timeout) or die "sending timed out after $timeout s\n";
        my $sent = syswrite($socket, $bytes) // die "send: $!\n";
        substr($bytes, 0, $sent) = '';
    }
}

# Reads one response, without body if it answers HEAD, and leaves later bytes on the connection.
sub answer {
    my ($socket, $is_head) = @_;
    my $message = read_message($socket, $is_head);
    $message->{head} =~ m{^HTTP/1\.[01] (\d\d\d)} or die "no response but '$message->{head}'\n";
    $message->{status} = $1;
    return $message->{status} eq '100' ? answer($socket, $is_head) : $message;
}

# Reads one request or response. Without a length, a response body ends with the connection, and a request has no body.
sub read_message {
    my ($socket, $has_no_body) = @_;
    my $head = read_until($socket, qr/\r\n\r\n\z/, 1);
    my %headers;
    $headers{ lc $1 } = $2 while $head =~ /^([^:\s]+):[ ]*(.*?)\r$/mg;
    my $message = { head => $head, headers => \%headers, body => '' };
    return $message if $has_no_body || $head =~ m{^HTTP/1\.. (?:1\d\d|204|304)};
    if (($headers{'transfer-encoding'} // '') eq 'chunked') {
        while (my $size = hex read_until($socket, qr/\r\n\z/, 1) =~ s/\r\n//r) {
            $message->{body} .= read_exactly($socket, $size);
            read_exactly($socket, 2);
        }
        read_exactly($socket, 2);
    } elsif (defined $headers{'content-length'}) {
        $message->{body} = read_exactly($socket, $headers{'content-length'});
    } elsif ($head =~ m{^HTTP/}) {
        $message->{body} = read_until($socket, qr/(?!)/, 4096);
    }
    return $message;
}

# Reads, `step` bytes at a time, until the text matches `end` or the connection ends.
sub read_until {
    my ($socket, $end, $step) = @_;
    my $text = '';
    until ($text =~ $end) {
        last unless read_some($socket, \$text, $step);
    }
    return $text;
}

sub read_exactly {
    my ($socket, $count) = @_;
    my $text = '';
    while (length $text < $count) {
        read_some($socket, \$text, $count - length $text) or die 'the connection ended after ' . length($text) . " of $count bytes\n";
    }
    return $text;
}

sub read_some {
    my ($socket, $into, $count) = @_;
    IO::Select->new($socket)->can_read($timeout) or die "no data for $timeout s\n";
    return sysread($socket, $$into, $count, length $$into) // die "read: $!\n";
}

# The next connection to the test's own backend $TEST_NGINX_OWN_<name>.
sub accept_on {
    my ($name) = @_;
    IO::Select->new($own{$name})->can_read($timeout) or die "no connection to $name for $timeout s\n";
    return $own{$name}->accept;
}

# The name of the test's own backend with a new connection; the empty string if the client gets its response first.
sub next_backend {
    my ($client) = @_;
    my ($ready) = IO::Select->new($client, values %own)->can_read($timeout) or die "no connection and no response for $timeout s\n";
    return (grep { $own{$_} == $ready } keys %own)[0] // '';
}

# Whether the test's own backend has no new connection.
sub has_no_connection {
    my ($name) = @_;
    return !IO::Select->new($own{$name})->can_read(0.1);
}

# Whether a condition becomes true before the timeout.
sub eventually(&) {
    my ($condition) = @_;
    my $deadline = time + $timeout;
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep 0.01;
    }
    return 1;
}

# Performs Redis commands, and waits until their changes are served. After its first comparison the companion applies changes in
# their order, so a tool written last is listed last.
sub change_routes {
    my (@commands) = @_;
    state $count = 0;
    my $last = 'changed' . ++$count;
    eventually { error_log() =~ /: in step, / } or die "the companion does not follow Redis\n";
    redis(@$_) for @commands, ['HSET', "prefix:$last", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"];
    return eventually { ask('GET /list')->{body} =~ /"$last"/ };
}

sub error_log {
    open my $file, '<', server_root() . '/logs/error.log' or die "error.log: $!\n";
    local $/;
    return <$file>;
}

sub nginx_pid {
    open my $file, '<', server_root() . '/logs/nginx.pid' or die "nginx.pid: $!\n";
    return 0 + <$file>;
}

# Comparable with `ge`: 001.022.001.
sub nginx_version {
    my $nginx = $ENV{TEST_NGINX_BINARY} // 'nginx';
    my ($version) = `$nginx -v 2>&1` =~ m{nginx/([\d.]+)} or die "$nginx has no version\n";
    return sprintf '%03d.%03d.%03d', split /\./, $version;
}

sub worker_pids {
    my $master = nginx_pid();
    return sort { $a <=> $b } `ps -o pid= --ppid $master` =~ /\d+/g;
}

my $redis;

# Runs one command and returns the reply; an error is fatal.
sub redis {
    my (@command) = @_;
    $redis //= IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ENV{TEST_NGINX_REDIS_PORT}) // die "Redis: $!\n";
    send_bytes($redis, join '', '*' . @command . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @command);
    return reply("@command");
}

sub reply {
    my ($command) = @_;
    my $line = read_until($redis, qr/\r\n\z/, 1);
    my ($type, $rest) = $line =~ /^(.)(.*)\r\n\z/s or die "Redis went away at $command\n";
    die "Redis: $rest at $command\n" if $type eq '-';
    return [map { reply($command) } 1 .. $rest] if $type eq '*';
    return $rest unless $type eq '$';
    return undef if $rest < 0;
    return substr read_exactly($redis, $rest + 2), 0, -2;
}

sub tcp_socket {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp', @_) or die "socket: $!\n";
    return $socket;
}

# Exports the address and the port of a socket to blocks, under a name.
sub export_address {
    my ($name, $socket) = @_;
    $ENV{"TEST_NGINX_$name"}        = '127.0.0.1:' . $socket->sockport;
    $ENV{"TEST_NGINX_${name}_PORT"} = $socket->sockport;
}

# Defined outside the scope of the other functions, so that the code cannot see their variables.
sub run_code { eval $_[0] }

1;
