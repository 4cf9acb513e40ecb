# allow_backend: a route that leads anywhere else is set aside, and says so.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== inside and outside
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /x http://192.0.2.1:80
HSET prefix:outside .* https://198.51.100.7:443
HSET prefix:six .* http://[2001:db8::1]:80
HSET prefix:mapped .* http://[::ffff:192.0.2.1]:80
--- requests
/hello/    200  a
/hello/x   200  a  pattern=.*
/outside/  503  -
/six/      503  -
/mapped/   503  -
--- error_log
urlproxy: route set aside: backend http://192.0.2.1:80 is outside the allowed networks, tool="hello" pattern="/x"
urlproxy: route set aside: backend https://198.51.100.7:443 is outside the allowed networks, tool="outside" pattern=".*"
urlproxy: route set aside: backend http://[2001:db8::1]:80 is outside the allowed networks, tool="six" pattern=".*"
is outside the allowed networks, tool="mapped" pattern=".*"



=== a name may be anything
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://localhost:80
--- requests
/hello/  503  -
--- error_log
urlproxy: route set aside: backend http://localhost:80 is a name, but only addresses in the allowed networks may be used, tool="hello" pattern=".*"



=== several networks, single addresses, several lines
--- table
allow_backend 192.0.2.0/24 127.0.0.1;
allow_backend fd00::/8;
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://127.0.0.2:80
HSET prefix:other .* http://192.0.2.77:80
HSET prefix:six .* http://[fd12::1]:80
--- requests
/hello/  200  a
/hello/  200  a
--- request
GET /list
--- error_code: 200
--- response_body_like chomp
(?=.*"hello")(?=.*"other")(?=.*"six")
--- error_log
urlproxy: route set aside: backend http://127.0.0.2:80 is outside the allowed networks, tool="hello"



=== while nginx runs
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
redis('HSET', 'prefix:hello', '.*', 'http://192.0.2.1:80');
ok(eventually { ask('GET /hello/')->{status} == 503 }, 'a route that moves outside is gone');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{status} == 200 }, 'and comes back with a place inside');
