# A request on a stale connection is repeated on a new one; the backend does not count as failed.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== a GET is repeated on a new connection
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
    isnt($new, $kept, 'it arrives again on a new connection');
    like($request->{head}, qr{\AGET /1/$how });
    respond($new);
    finish($client, 'GET', 200);
    connections_are($new);
}



=== the repetition does not use another kept connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
my $client = start_ask('GET /1/');
is(scalar arrived($client), '1.3');
close_as_backend('close', '1.3');
is(scalar arrived($client), '1.4', 'a new connection');
respond('1.4');
finish($client, 'GET', 200);
connections_are('1.1 1.2 1.4');



=== the repetition does not count as a try
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



=== the backend does not count as failed
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
unlike(error_log(), qr/backend failed; unavailable for/, 'both backends stay available');



=== a failing new connection counts as a failure
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
is(serve('GET /1/'), '1.3', 'the backend is still used');



=== a backend that is gone is answered with 502
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
