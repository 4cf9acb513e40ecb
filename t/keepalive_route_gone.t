# Connections to a backend without a route close within the timeout, and never serve the next owner of its name or address.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== connections of a withdrawn route time out
--- upstream
urlproxy_keepalive 64 timeout=1s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
redis('DEL', 'prefix:1');
ok(eventually { ask('GET /list')->{body} !~ /"1"/ }, 'the tool is gone');
connections_are('', 'and its connections are closed');



=== connections of a moved route time out
--- upstream
urlproxy_keepalive 64 timeout=1s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
redis('HSET', 'prefix:1', '.*', "http://$ENV{TEST_NGINX_PEER_2}");
ok(eventually { serve('GET /1/') =~ /^2/ }, 'requests go to the new backend');
ok(eventually { serve('GET /1/'); open_connections() !~ /\b1\./ }, 'connections to the old backend close meanwhile');



=== a returning route may reuse its connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
redis('HSET', 'prefix:1', '.*', "http://$ENV{TEST_NGINX_PEER_2}");
ok(eventually { serve('GET /1/') =~ /^2/ });
redis('HSET', 'prefix:1', '.*', "http://$ENV{TEST_NGINX_PEER_1}");
ok(eventually { serve('GET /1/') =~ /^1/ });
connections_are('1.1 2.1', 'finds its connection');



=== the next tool at an address gets new connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:former .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /former/');
redis('DEL', 'prefix:former');
redis('HSET', 'prefix:next', '.*', "http://$ENV{TEST_NGINX_PEER_1}");
ok(eventually { ask('GET /list')->{body} =~ /^\{"next":[^,]*\}\s*$/ }, 'the next tool has the address');
is(serve('GET /next/'), '1.2', "its request does not use the former tool's connection");
