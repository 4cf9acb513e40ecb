# `urlproxy` applies to its location and to an `if` in it, as proxy_pass does; the other directives are inherited.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== nested locations do not inherit urlproxy
--- location
location /files/ { root $TEST_NGINX_SERVER_ROOT/html; }
location = /status { stub_status; }
location = /tools { urlproxy_list tools; }
location = /sorry { return 418; }
--- user_files
>>> files/there
a file
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/         200  a
/files/there    200  -
/files/missing  404  -
/status         200  -
/tools          200  -
/sorry          418  -
/unknown/       503  -



=== a nested location with urlproxy inherits the other settings
--- http
urlproxy_miss 410;
--- server
urlproxy_default admin;
location /off/ {
    urlproxy tools path; urlproxy_default off; proxy_pass http://tools;
    location /off/below/ { urlproxy tools path; proxy_pass http://tools; }
}
--- redis
HSET prefix:admin ^/known http://$TEST_NGINX_TOOL_A
--- requests
/known       200  a  result=default
/unknown    410  -
/off/        410
/off/below/  410



=== an if inherits urlproxy
--- location
if ($arg_x) { set $y 1; }
if ($arg_off) { urlproxy off; return 204; }
--- server
location = /if { if ($arg_x) { urlproxy tools path; proxy_pass http://tools; break; } return 204; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:if .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/?x=1    200  a
/unknown/?x=1  503
/unknown/?off=1 204
/if?x=1        200  b
/if            204



=== the error page of a failed backend is not routed
--- location
error_page 502 /sorry.html;
location = /sorry.html { root $TEST_NGINX_SERVER_ROOT/html; add_header X-Tool $urlproxy_tool always; }
--- user_files
>>> sorry.html
sorry
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
--- request
GET /hello/
--- error_code: 502
--- response_headers
X-Tool: hello
--- response_body
sorry
