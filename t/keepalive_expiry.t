# urlproxy_keepalive closes a connection after `timeout` idle, after `requests` requests, and past the age `time`.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== an idle connection closes after timeout
--- upstream
urlproxy_keepalive 64 timeout=1s;
--- http
upstream patient { urlproxy_peers; urlproxy_keepalive 64 timeout=1h; }
upstream usual { urlproxy_peers; urlproxy_keepalive 64; }
--- server
location /2/ { urlproxy tools path; proxy_pass http://patient; proxy_http_version 1.1; proxy_set_header Connection ""; }
location /3/ { urlproxy tools path; proxy_pass http://usual; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
--- perl
serve_together(('GET /1/') x 3, ('GET /2/') x 2, 'GET /3/');
connections_are('2.1 2.2 3.1', 'only connections of the upstream with the short timeout are closed');
is(serve('GET /3/'), '3.1', 'the others are reused');
is(serve('GET /1/'), '1.4', 'the next request opens a new connection');
connections_are('2.1 2.2 3.1', 'and that connection closes too');



=== a connection in use does not time out
--- upstream
urlproxy_keepalive 64 timeout=3s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve('GET /1/');
my $client = start_ask('GET /1/');
my $id     = arrived($client);
is($id, '1.1', 'reused');
serve('GET /2/');
connections_are('1.1', 'a connection kept later closes, this one does not');
respond($id);
finish($client, 'GET /1/', 200);
connections_are('', 'it closes after it is idle again');



=== a connection closes after its number of requests
--- upstream
urlproxy_keepalive 64 requests=3;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
is(join(' ', map { serve('GET /1/') } 1 .. 3), '1.1 1.1 1.1');
connections_are('', 'closed after the third');
is(join(' ', map { serve('GET /1/') } 1 .. 4), '1.2 1.2 1.2 1.3');
connections_are('1.3', 'the next connection serves as many');



=== requests=1 keeps no connection
--- upstream
urlproxy_keepalive 64 requests=1;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
is(join(' ', map { serve('GET /1/') } 1 .. 3), '1.1 1.2 1.3');
connections_are('', 'none is kept');



=== the default is a thousand requests
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my %asked;
my $client = to_nginx();
$asked{ serve('GET /1/', client => $client) }++ for 1 .. 999;
$client = to_nginx();
$asked{ serve('GET /1/', client => $client) }++ for 1 .. 2;
is_deeply(\%asked, { '1.1' => 1000, '1.2' => 1 });



=== a connection closes past its age
--- upstream
urlproxy_keepalive 64 time=1s;
--- http
upstream patient { urlproxy_peers; urlproxy_keepalive 64; }
--- server
location /2/ { urlproxy tools path; proxy_pass http://patient; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve('GET /2/');
ok(eventually { serve('GET /1/') ne '1.1' }, 'a busy connection is replaced past its age');
is(serve('GET /2/'), '2.1', 'not in the other upstream');
ok(eventually { open_connections() !~ /\b1\.1\b/ }, 'the old connection is closed');
