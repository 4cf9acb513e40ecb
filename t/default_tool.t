# urlproxy_default: the fallback for requests that match no route is a tool, a backend or none.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== patterns of the default tool match the whole path
--- location
urlproxy_default admin;
--- redis
HSET prefix:hello ^/only http://$TEST_NGINX_TOOL_A
HSET prefix:admin ^/unknown/ http://$TEST_NGINX_TOOL_C .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/only     200  a  result=route tool=hello pattern=^/only
/hello/other    200  b  result=default tool=admin pattern=.* backend=http://$TEST_NGINX_TOOL_B sees=/hello/other
/unknown/x?y=1  200  c  result=default tool=admin pattern=^/unknown/ sees=/unknown/x?y=1
/unknown        200  b  pattern=.*
/               200  b  result=default tool=admin
/admin/         200  b  result=route tool=admin pattern=.*
/admin/unknown/  200  c  result=route tool=admin pattern=^/unknown/



=== a default tool without a matching route is a miss
--- location
urlproxy_default admin;
--- redis
HSET prefix:admin ^/known http://$TEST_NGINX_TOOL_B
--- requests
/known     200  b  result=default
/unknown  503  -  result=miss tool=unknown



=== a default tool is a miss until it is registered
--- location
urlproxy_default admin;
--- requests
/hello/  503  -  result=miss tool=hello
--- perl
redis('HSET', 'prefix:admin', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{status} == 200 });



=== a backend can be the default
--- location
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- redis
HSET prefix:hello ^/only http://$TEST_NGINX_TOOL_A
--- requests
/hello/only   200  a  result=route
/hello/x      200  c  result=default tool=hello pattern= scheme=http backend=http://$TEST_NGINX_TOOL_C sees=/hello/x
/             200  c  result=default tool=



=== off overrides inheritance
--- http
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- server
location /inherits { urlproxy tools path; proxy_pass http://tools; }
--- location
urlproxy_default off;
--- requests
/inherits  200  c
/hello/    503  -  result=miss
