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
