# A backend that speaks TLS is spoken to in TLS, through an upstream and through the variable.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the route's scheme decides
--- pass: $urlproxy_scheme://tools
--- server
location /variable { urlproxy tools path; proxy_pass $urlproxy_backend; }
--- upstream
keepalive 8;
--- perl
# openssl's test server: it answers with a page about the connection.
my $dir = html_dir();
system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=tool -days 2 -keyout $dir/key.pem -out $dir/cert.pem >$dir/openssl.log 2>&1") == 0
    or die 'openssl req';
my $port = free_port();
my $pid  = fork // die;
if (!$pid) {
    open STDOUT, '>', "$dir/s_server.log";
    open STDERR, '>&', \*STDOUT;
    exec 'openssl', qw(s_server -www -accept), $port, '-cert', "$dir/cert.pem", '-key', "$dir/key.pem";
}
eval {
    ok(eventually { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 'openssl listens');
    redis('HSET', "prefix:$_", '.*', "https://127.0.0.1:$port") for qw(hello other variable);
    ok(eventually { ask('GET /hello/')->{status} == 200 }, 'the route is there');
    for my $path (qw(/hello/ /hello/ /other/ /variable/ /hello/)) {
        my $answer = ask("GET $path");
        is($answer->{status}, 200, $path);
        like($answer->{body}, qr/TLSv1\.[23]/, "$path: over TLS");
    }
    is(ask('GET /hello/')->{headers}{'x-urlproxy-backend'}, "https://127.0.0.1:$port");
    redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_A}");
    ok(eventually { (ask('GET /hello/')->{headers}{'x-tool'} // '') eq 'a' }, 'and back to plain HTTP');
    redis('DEL', 'prefix:hello');
    redis('SADD', 'prefix:hello', "https://127.0.0.1:$port", "https://$ENV{TEST_NGINX_DEAD_A}", "https://$ENV{TEST_NGINX_TOOL_A}");
    ok(eventually { (ask('GET /hello/')->{headers}{'x-urlproxy-backend'} // '') =~ /^https/ }, 'several');
    is(ask('GET /hello/')->{status}, 200, 'one that refuses, and one that speaks no TLS, are passed over') for 1 .. 6;
    1;
} or fail($@);
kill 'TERM', $pid;
waitpid $pid, 0;

sub free_port {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
    return $socket->sockport;
}



=== a kept connection is used again only for the same name, settings and certificate
--- upstream
keepalive 16;
--- server
proxy_ssl_server_name on;
proxy_ssl_name $host;
location /domain/ { urlproxy tools domain; proxy_pass $urlproxy_scheme://tools; proxy_http_version 1.1; proxy_set_header Connection ""; }
location /fixed/ { urlproxy tools domain; proxy_pass https://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_name fixed.example; }
location /verified/ { urlproxy tools domain; proxy_pass https://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_name fixed.example; proxy_ssl_trusted_certificate $TEST_NGINX_SERVROOT/html/cert.pem; proxy_ssl_verify on; }
location /older/ { urlproxy tools domain; proxy_pass https://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_name fixed.example; proxy_ssl_protocols TLSv1.2; }
location /tool/ { urlproxy tools path; proxy_pass https://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_name fixed.example; }
location /certified/ { urlproxy tools domain; proxy_pass https://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_name fixed.example; proxy_ssl_certificate $arg_cert; proxy_ssl_certificate_key $TEST_NGINX_SERVROOT/html/key.pem; }
--- user_files eval
# The certificate has to be there before nginx reads its configuration.
use File::Temp;
my $dir = File::Temp->newdir;
system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=fixed.example -days 2 -keyout $dir/key.pem -out $dir/cert.pem >$dir/openssl.log 2>&1") == 0
    or die 'openssl req';
my $read = sub { open my $file, '<', "$dir/$_[0]" or die; local $/; <$file> };
[ ['key.pem', $read->('key.pem')], ['cert.pem', $read->('cert.pem')] ]
--- perl
# A second nginx, which says for what name a connection was opened, and which it is.
my $dir  = html_dir();
my $free = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
my $port = $free->sockport;
close $free;
mkdir "$dir/$_" or die for 'backend', 'backend/logs';
open my $conf, '>', "$dir/backend/nginx.conf" or die;
print $conf "pid nginx.pid; error_log error.log; daemon off; master_process off; events {} http { access_log off;\n",
    (map { "${_}_temp_path $_;\n" } qw(client_body proxy fastcgi uwsgi scgi)),
    "server { listen 127.0.0.1:$port ssl; ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem;\n",
    'return 200 "$ssl_server_name $connection"; } }';
close $conf;
my $pid = fork // die;
if (!$pid) {
    open STDERR, '>', "$dir/backend/stderr";
    exec $ENV{TEST_NGINX_BINARY} // 'nginx', '-p', "$dir/backend/", '-e', 'error.log', '-c', 'nginx.conf';
}
eval {
    ok(eventually { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 'the backend listens');
    redis('SADD', $_, "https://127.0.0.1:$port") for 'frontend:*.example.org', 'prefix:tool';
    my $asked = sub { ask("GET $_[0]", headers => ["Host: $_[1]"])->{body} };
    ok(eventually { $asked->('/domain/', 'a.example.org') =~ /^a/ }, 'the route is there');
    ok(eventually { ask('GET /tool/')->{status} == 200 }, 'the tool too');
    my %kept;
    for my $request ('/domain/ a.example.org', '/domain/ b.example.org', '/fixed/ a.example.org', '/verified/ a.example.org', '/older/ a.example.org', '/certified/ a.example.org',
        "/certified/?cert=$dir/cert.pem a.example.org", "/certified/?cert=$dir/./cert.pem a.example.org", '/tool/ localhost') {
        my ($path, $host) = split ' ', $request;
        my ($name, $connection) = split ' ', $asked->($path, $host);
        is($name, $path eq '/domain/' ? $host : 'fixed.example', "$request: opened for its name");
        $kept{$request} = $connection;
    }
    my %different = reverse %kept;
    is(scalar(keys %different), 9, 'each has a connection of its own');
    for my $request (reverse sort keys %kept) {
        is((split ' ', $asked->(split ' ', $request))[1], $kept{$request}, "$request: kept");
    }
    is((split ' ', $asked->('/fixed/', 'c.example.org'))[1], $kept{'/fixed/ a.example.org'}, 'another host with the same name shares it');
    1;
} or fail($@);
kill 'TERM', $pid;
waitpid $pid, 0;
