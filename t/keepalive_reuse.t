# urlproxy_keepalive: the next request to a backend uses the connection that was kept last.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== each backend has its own connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_2
--- perl
for my $round (1 .. 5) {
    is(serve('GET /one/'), '1.1', "round $round");
    is(serve('GET /two/'), '2.1', "round $round");
}
connections_are('1.1 2.1');



=== the newest connection is reused first
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
--- perl
is("@{[serve_together(('GET /one/') x 3)]}", '1.1 1.2 1.3', 'concurrent requests have separate connections');
is(serve('GET /one/'), '1.3', 'the last that was kept') for 1, 2;
is("@{[serve_together(('GET /one/') x 2)]}", '1.3 1.2');
is(serve('GET /one/'), '1.2', 'the order is by the time of keeping');
is("@{[serve_together(('GET /one/') x 4)]}", '1.2 1.3 1.1 1.4', 'a new connection if all are in use');
connections_are('1.1 1.2 1.3 1.4');



=== several backends of a tool have separate connections
--- upstream
urlproxy_keepalive 64;
--- redis
SADD prefix:hello http://$TEST_NGINX_PEER_1 http://$TEST_NGINX_PEER_2 http://$TEST_NGINX_PEER_3
--- perl
my %asked;
$asked{ serve('GET /hello/') }++ for 1 .. 9;
is_deeply(\%asked, { '1.1' => 3, '2.1' => 3, '3.1' => 3 });



=== patterns of a tool share connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:hello /a http://$TEST_NGINX_PEER_1 /b http://$TEST_NGINX_PEER_1 .* http://$TEST_NGINX_PEER_2
--- perl
is(serve("GET /hello/$_->[0]"), $_->[1], $_->[0]) for ['a', '1.1'], ['b', '1.1'], ['c', '2.1'], ['a', '1.1'];



=== locations share connections
--- upstream
urlproxy_keepalive 64;
--- server
location ~ /x$ { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_PEER_1
--- perl
is(serve("GET /hello/$_"), '1.1', "/hello/$_") for 'a', 'x', 'a';



=== upstreams share no connections
--- upstream
urlproxy_keepalive 64;
--- http
upstream others { urlproxy_peers; urlproxy_keepalive 64; }
--- server
location ~ /x$ { urlproxy tools path; proxy_pass http://others; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_PEER_1
--- perl
is(serve("GET /hello/$_->[0]"), $_->[1], "/hello/$_->[0]") for ['a', '1.1'], ['x', '1.2'], ['a', '1.1'], ['x', '1.2'];



=== hundreds of backends keep separate connections
--- upstream
urlproxy_keepalive 1000;
--- redis eval
[ map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{'TEST_NGINX_PEER_' . (1 + $_ % 8)}"] } 1 .. 300 ]
--- perl
use List::Util 'shuffle';
srand 15;
my @tools = map { "tool-$_" } 1 .. 300;
my %kept  = map { $_ => serve("GET /$_/") } shuffle @tools;
is(scalar(keys %{ { reverse %kept } }), 300, 'one connection per backend');
my @moved = grep { serve("GET /$_/") ne $kept{$_} } shuffle @tools;
is("@moved", '', 'each is reused');



=== IPv6 connections are reused
--- upstream
urlproxy_keepalive 64;
--- perl
use IO::Socket::IP;
my $listener = IO::Socket::IP->new(LocalHost => '::1', Listen => 8);
if (!$listener) { ok(1, 'this machine has no IPv6') }
else {
    redis('HSET', 'prefix:hello', '.*', 'http://[::1]:' . $listener->sockport);
    ok(eventually { ask('GET /list')->{body} =~ /"hello"/ }, 'routed');
    my $client = start_ask('GET /hello/1');
    my $kept   = $listener->accept;
    for my $round (1, 2, 3) {
        like(read_message($kept)->{head}, qr{\AGET /hello/$round }, "round $round");
        send_bytes($kept, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        answer($client);
        $client = start_ask('GET /hello/' . ($round + 1));
    }
    ok(!IO::Select->new($listener)->can_read(0), 'one connection');
}
