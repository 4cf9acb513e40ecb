# A request that finds its kept connection closed goes again on a new one; the backend is not taken for one that fails.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== a GET is sent again, on a new connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $how (qw(close reset half)) {
    my $kept   = serve('GET /1/');
    my $client = start_ask("GET /1/$how");
    is(scalar arrived($client), $kept, "$how: it comes on the kept connection");
    close_as_backend($how, $kept);
    my ($new, $request) = arrived($client);
    isnt($new, $kept, 'and again on a new one');
    like($request->{head}, qr{\AGET /1/$how });
    respond($new);
    finish($client, 'GET', 200);
    connections_are($new);
}



=== not on another kept one
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
my $client = start_ask('GET /1/');
is(scalar arrived($client), '1.3');
close_as_backend('close', '1.3');
is(scalar arrived($client), '1.4', 'a new one');
respond('1.4');
finish($client, 'GET', 200);
connections_are('1.1 1.2 1.4');



=== although it has no further try
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream_tries 1;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
my $client = start_ask('GET /1/');
close_as_backend('close', scalar arrived($client));
is(scalar arrived($client), '1.2');
respond('1.2');
finish($client, 'GET', 200);



=== the backend's health is not marked
--- upstream
urlproxy_keepalive 64;
--- redis
SADD prefix:hello http://$TEST_NGINX_PEER_1 http://$TEST_NGINX_PEER_2
--- perl
for my $round (1 .. 4) {
    my @kept = map { serve('GET /hello/') } 1, 2;
    is(join(' ', sort map { s/\..*//r } @kept), '1 2', "round $round: both are asked in turn");
    my $client = start_ask('GET /hello/');
    my $stale  = arrived($client);
    close_as_backend('close', $stale);
    my $id = arrived($client);
    ok(!(grep { $_ eq $id } @kept), "on a new connection, $id");
    respond($id);
    finish($client, 'GET', 200);
    close_as_backend('half', split / /, open_connections());
    connections_are('');
}
unlike(error_log(), qr/backend failed; not used for/, 'both backends stay available');



=== a new connection that fails is the backend's failure
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
my $client = start_ask('GET /1/');
close_as_backend('close', scalar arrived($client));
close_as_backend('close', scalar arrived($client));
finish($client, 'GET', 502);
is(serve('GET /1/'), '1.3', 'the next is asked as ever');



=== a backend that is gone
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
my $client = start_ask('GET /1/');
my $kept   = arrived($client);
stop_listening(1);
close_as_backend('close', $kept);
finish($client, 'GET', 502);
--- error_log
connect() failed (111: Connection refused) while connecting to upstream
