# proxy_pass to an upstream with urlproxy_peers.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the peers are the backends of the route
--- redis
HSET prefix:hello /api http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_C
--- requests
/hello/x%2Fy?z=%20  200  a  result=route backend=http://$TEST_NGINX_TOOL_A sees=/hello/x%2Fy?z=%20
/hello/api          200  b
/other/             200  c
/unknown/           503  -  backend=



=== $urlproxy_scheme selects the scheme of the route
--- pass: $urlproxy_scheme://tools
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/x%2Fy?z=%20  200  a  scheme=http sees=/hello/x%2Fy?z=%20
/unknown/           503  -  scheme=



=== a default backend is a peer
--- location
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- requests
/unknown/x  200  c  result=default sees=/unknown/x



=== one upstream serves several tables
--- http
urlproxy_table others { redis redis://127.0.0.1:$TEST_NGINX_REDIS_PORT/1; }
--- server
location /second { urlproxy others path; proxy_pass http://tools; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SELECT 1
HSET prefix:second .* http://$TEST_NGINX_TOOL_B
SELECT 0
--- requests
/hello/   200  a
/second/  200  b



=== $upstream_addr and the log show the peer
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:dead .* http://$TEST_NGINX_DEAD_A
--- location
add_header X-Addr "$upstream_addr $upstream_status" always;
--- perl
is(ask('GET /hello/')->{headers}{'x-addr'}, "$ENV{TEST_NGINX_TOOL_A} 200");
is(ask('GET /dead/')->{headers}{'x-addr'}, "$ENV{TEST_NGINX_DEAD_A} 502");
--- error_log
connect() failed (111: Connection refused) while connecting to upstream
upstream: "http://$TEST_NGINX_DEAD_A/dead/"



=== a location without urlproxy has no peer
--- server
location = /lost { proxy_pass http://tools; }
--- redis
HSET prefix:lost .* http://$TEST_NGINX_TOOL_A
--- requests
/lost  500
--- error_log
urlproxy_peers: location has no "urlproxy"; request has no route and fails



=== an IPv6 address is a peer
--- redis
HSET prefix:hello .* http://[::1]:1
--- requests
/hello/  502  -  backend=http://[::1]:1
--- error_log
upstream: "http://[::1]:1/hello/"
