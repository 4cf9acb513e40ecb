# Connections to a backend that no route names any more are closed within the time-out, and none of them is used for whoever
# has the name or the address next.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== a route that goes
--- upstream
urlproxy_keepalive 64 timeout=1s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
redis('DEL', 'prefix:1');
ok(eventually { ask('GET /list')->{body} !~ /"1"/ }, 'the tool is gone');
connections_are('', 'and its connections are closed');



=== a route that moves
--- upstream
urlproxy_keepalive 64 timeout=1s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
redis('HSET', 'prefix:1', '.*', "http://$ENV{TEST_NGINX_PEER_2}");
ok(eventually { serve('GET /1/') =~ /^2/ }, 'requests go to the new backend');
ok(eventually { serve('GET /1/'); open_connections() !~ /\b1\./ }, 'while they do, the connections to the old one are closed');



=== a route that comes back
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



=== an address that another tool has next
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:former .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /former/');
redis('DEL', 'prefix:former');
redis('HSET', 'prefix:next', '.*', "http://$ENV{TEST_NGINX_PEER_1}");
ok(eventually { ask('GET /list')->{body} =~ /^\{"next":[^,]*\}\s*$/ }, 'the next tool has the address');
is(serve('GET /next/'), '1.2', 'its request does not come on the connection of the former');
