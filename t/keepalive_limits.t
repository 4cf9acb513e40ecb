# The limits of urlproxy_keepalive are exact: a full pool evicts the least recently used, a full backend its own oldest.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== a full pool evicts the least recently used
--- upstream
urlproxy_keepalive 3;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
HSET prefix:4 .* http://$TEST_NGINX_PEER_4
HSET prefix:5 .* http://$TEST_NGINX_PEER_5
--- perl
serve("GET /$_/") for 1, 2, 3;
connections_are('1.1 2.1 3.1');
is(serve('GET /1/'), '1.1', 'reused');
serve('GET /4/');
connections_are('1.1 3.1 4.1', 'the second connection is evicted');
serve('GET /5/');
connections_are('1.1 4.1 5.1', 'the third connection is evicted');
serve('GET /2/');
connections_are('2.2 4.1 5.1', 'the first connection is evicted');



=== connections in use do not count
--- upstream
urlproxy_keepalive 2;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
--- perl
serve("GET /$_/") for 1, 2;
my $client = start_ask('GET /1/');
my $id     = arrived($client);
is($id, '1.1', 'reused');
serve('GET /3/');
connections_are('1.1 2.1 3.1', 'two are kept, one is in use');
respond($id);
finish($client, 'GET /1/', 200);
connections_are('1.1 3.1', 'now two are kept');



=== a pool of one connection
--- upstream
urlproxy_keepalive 1;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
for my $round (1 .. 3) {
    is(serve('GET /1/'), "1.$round") for 1, 2;
    connections_are("1.$round");
    is(serve('GET /2/'), "2.$round") for 1, 2;
    connections_are("2.$round");
}



=== a full backend evicts its own oldest
--- upstream
urlproxy_keepalive 64 per_backend=2;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve('GET /2/');
is("@{[serve_together(('GET /1/') x 4)]}", '1.1 1.2 1.3 1.4', 'at the same time');
connections_are('1.3 1.4 2.1', 'the two newest are kept');
is("@{[serve_together(('GET /1/') x 3)]}", '1.4 1.3 1.5', 'all are reused');
connections_are('1.3 1.5 2.1', 'the oldest of them is evicted');



=== a full backend does not evict others
--- upstream
urlproxy_keepalive 3 per_backend=2;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve('GET /2/');
serve_together(('GET /1/') x 2);
connections_are('1.1 1.2 2.1', 'full');
serve_together(('GET /1/') x 3);
connections_are('1.1 1.3 2.1', 'the least recently used of all stays');



=== per_backend=1 keeps one per backend
--- upstream
urlproxy_keepalive 64 per_backend=1;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve_together('GET /1/', 'GET /2/', 'GET /1/', 'GET /2/');
connections_are('1.2 2.2');
is(serve("GET /$_/"), "$_.2") for 1, 2;



=== the default is sixteen per backend
--- upstream
urlproxy_keepalive 1000;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 20);
connections_are(join ' ', map { "1.$_" } 5 .. 20);



=== tools at the same address have separate limits
--- upstream
urlproxy_keepalive 64 per_backend=2;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /one/') x 3);
serve_together(('GET /two/') x 3);
connections_are('1.2 1.3 1.5 1.6');



=== each upstream has its own limit
--- upstream
urlproxy_keepalive 1;
--- http
upstream others { urlproxy_peers; urlproxy_keepalive 1; }
--- server
location /2/ { urlproxy tools path; proxy_pass http://others; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
--- perl
serve("GET /$_/") for 1, 2;
connections_are('1.1 2.1');
serve('GET /3/');
connections_are('2.1 3.1');



=== any order of requests, responses and closed connections keeps the limits
--- upstream
urlproxy_keepalive 7 per_backend=3;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
HSET prefix:4 .* http://$TEST_NGINX_PEER_4
HSET prefix:5 .* http://$TEST_NGINX_PEER_5
HSET prefix:6 .* http://$TEST_NGINX_PEER_6
--- perl
# The connections expected in the pool, as [tool, id], least recently used first.
srand 15;
my (@kept, %opened, @log);
my $take = sub {
    my ($tool) = @_;
    my ($at) = grep { $kept[$_][0] == $tool } reverse 0 .. $#kept;
    return defined $at ? splice @kept, $at, 1 : [$tool, "$tool." . ++$opened{$tool}];
};
my $put = sub {
    my ($connection) = @_;
    push @kept, $connection;
    my @same = grep { $kept[$_][0] == $connection->[0] } 0 .. $#kept;
    splice @kept, $same[0], 1 if @same > 3;
    shift @kept if @kept > 7;
};
my $sorted = sub { join ' ', sort map { $_->[1] } @kept };
for my $step (1 .. 150) {
    if (@kept && rand() < 0.2) {
        my ($closed) = splice @kept, rand @kept, 1;
        push @log, "close $closed->[1]";
        close_as_backend('half', $closed->[1]);
    } else {
        my @tools = map { 1 + int 6 * rand() ** 2 } 1 .. 1 + rand 7;
        my @want  = map { $take->($_) } @tools;
        my @came  = serve_together(map { "GET /$_/" } @tools);
        push @log, "ask @came";
        if ("@came" ne "@{[map { $_->[1] } @want]}") {
            fail("step $step: asked on @came instead of @{[map { $_->[1] } @want]} after\n@log");
            last;
        }
        $put->($_) for @want;
    }
    eventually { join(' ', sort split / /, open_connections()) eq $sorted->() } and next;
    fail("step $step: open are @{[open_connections()]} instead of @{[$sorted->()]} after\n@log");
    last;
}
cmp_ok(scalar @log, '==', 150, 'steps');
cmp_ok($opened{$_}, '>', 3, "$_ was opened $opened{$_} times") for 1 .. 6;



=== minimum and maximum values are accepted
--- http
upstream all { urlproxy_peers max_fails=2 shared=192.0.2.0/24; urlproxy_keepalive 1000000 per_backend=1000000 per_tool=1000000 timeout=100d requests=18446744073709551615 time=500ms shared=10.0.0.1,fd00::/8; }
upstream one { urlproxy_peers; urlproxy_keepalive 1; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  200  a
