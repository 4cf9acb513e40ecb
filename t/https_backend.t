# https backends get TLS, through an upstream and through the variable.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use NginxBackend;

our $passed = 'proxy_http_version 1.1; proxy_set_header Connection "";';
our $locations = <<"CONF";
proxy_ssl_server_name on;
proxy_ssl_name \$host;
location /domain/ { urlproxy tools domain; proxy_pass \$urlproxy_scheme://tools; $passed }
location /fixed/ { urlproxy tools domain; proxy_pass https://tools; $passed proxy_ssl_name fixed.example; }
location /verified/ { urlproxy tools domain; proxy_pass https://tools; $passed proxy_ssl_name fixed.example; proxy_ssl_trusted_certificate \$TEST_NGINX_SERVROOT/html/cert.pem; proxy_ssl_verify on; }
location /older/ { urlproxy tools domain; proxy_pass https://tools; $passed proxy_ssl_name fixed.example; proxy_ssl_protocols TLSv1.2; }
location /tool/ { urlproxy tools path; proxy_pass https://tools; $passed proxy_ssl_name fixed.example; }
location /certified/ { urlproxy tools domain; proxy_pass https://tools; $passed proxy_ssl_name fixed.example; proxy_ssl_certificate \$arg_cert; proxy_ssl_certificate_key \$TEST_NGINX_SERVROOT/html/key.pem; }
CONF

# The backend responds with the TLS name and the number of its connection. Each of these requests must have its own connection.
sub have_separate_connections {
    my ($port) = @_;
    my $dir = html_dir();
    redis('SADD', $_, "https://127.0.0.1:$port") for 'frontend:*.example.org', 'prefix:tool';
    my $asked = sub { ask("GET $_[0]", headers => ["Host: $_[1]"])->{body} };
    ok(eventually { $asked->('/domain/', 'a.example.org') =~ /^a/ }, 'the route is there');
    ok(eventually { ask('GET /tool/')->{status} == 200 }, 'the tool is routed');
    my %kept;
    for my $request ('/domain/ a.example.org', '/domain/ b.example.org', '/fixed/ a.example.org', '/verified/ a.example.org', '/older/ a.example.org', '/certified/ a.example.org',
        "/certified/?cert=$dir/cert.pem a.example.org", "/certified/?cert=$dir/./cert.pem a.example.org", '/tool/ localhost') {
        my ($path, $host) = split ' ', $request;
        my ($name, $connection) = split ' ', $asked->($path, $host);
        is($name, $path eq '/domain/' ? $host : 'fixed.example', "$request: opened for its name");
        $kept{$request} = $connection;
    }
    my %different = reverse %kept;
    is(scalar(keys %different), 9, 'each request has its own connection');
    for my $request (reverse sort keys %kept) {
        is((split ' ', $asked->(split ' ', $request))[1], $kept{$request}, "$request: kept");
    }
    is((split ' ', $asked->('/fixed/', 'c.example.org'))[1], $kept{'/fixed/ a.example.org'}, 'another host with the same TLS name reuses it');
}

run_tests;

__DATA__

=== the route's scheme decides
--- pass: $urlproxy_scheme://tools
--- server
location /variable { urlproxy tools path; proxy_pass $urlproxy_backend; }
--- upstream
keepalive 8;
--- perl
# openssl's test server answers with a page about the connection.
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



=== kept connections are reused only for the same name, settings and certificate
--- upstream
keepalive 16;
--- server eval: $::locations
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', 'ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; return 200 "$ssl_server_name $connection";', \&have_separate_connections);



=== urlproxy_keepalive reuses only for the same name, settings and certificate
--- upstream
urlproxy_keepalive 64;
--- server eval: $::locations
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', 'ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; return 200 "$ssl_server_name $connection";', \&have_separate_connections);
