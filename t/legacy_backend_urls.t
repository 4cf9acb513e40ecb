# Backend URLs in the data of the old stack: without a port, with a scheme in any case, with a trailing slash.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== backends are accepted and shown in normal form
--- redis
HSET prefix:slash .* http://$TEST_NGINX_TOOL_A/
HSET prefix:upper .* HTTP://$TEST_NGINX_TOOL_B
HSET prefix:both .* hTTp://$TEST_NGINX_TOOL_A/ /b HTTP://$TEST_NGINX_TOOL_B/
SADD prefix:set http://$TEST_NGINX_TOOL_A HTTP://$TEST_NGINX_TOOL_A/
SADD frontend:www.example.org HTTP://$TEST_NGINX_TOOL_B/
HSET prefix:noport .* http://127.0.0.9
HSET prefix:tls .* HTTPS://127.0.0.9
--- requests
/slash/    200  a  backend=http://$TEST_NGINX_TOOL_A
/upper/    200  b  backend=http://$TEST_NGINX_TOOL_B
/both/b    200  b  backend=http://$TEST_NGINX_TOOL_B
/both/     200  a
/set/      200  a  backend=http://$TEST_NGINX_TOOL_A
/noport/   502  -  backend=http://127.0.0.9:80
/tls/      502  -  backend=https://127.0.0.9:443
--- no_error_log
route rejected
[alert]
panic



=== a default backend is normalized too
--- location
urlproxy_default HTTP://$TEST_NGINX_TOOL_B/;
--- requests
/x/  200  b  result=default backend=http://$TEST_NGINX_TOOL_B



=== backends with a path are rejected
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A/ /x http://$TEST_NGINX_TOOL_B/x /y http://$TEST_NGINX_TOOL_B//
--- requests
/hello/x  200  a
/hello/y  200  a
--- error_log
[warn]
has more than a host and a port, expected scheme://host:port, tool="hello" pattern="/x"
has more than a host and a port, expected scheme://host:port, tool="hello" pattern="/y"
