# A route grants no access: access control of a location still applies.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== deny applies
--- location
deny all;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  403  -



=== allow applies
--- location
allow 127.0.0.1; deny all;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/   200  a
/unknown/  503  -



=== auth_basic applies
--- location
auth_basic closed;
auth_basic_user_file $TEST_NGINX_SERVER_ROOT/html/users;
--- user_files
>>> users
me:{PLAIN}secret
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /hello/')->{status}, 401);
is(ask('GET /hello/', headers => ['Authorization: Basic bWU6c2VjcmV0'])->{status}, 200);



=== a route does not satisfy "satisfy any"
--- location
satisfy any;
deny all;
auth_basic closed;
auth_basic_user_file $TEST_NGINX_SERVER_ROOT/html/users;
--- user_files
>>> users
me:{PLAIN}secret
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /hello/')->{status}, 401);
is(ask('GET /hello/', headers => ['Authorization: Basic bWU6c2VjcmV0'])->{status}, 200);
is(ask('GET /hello/', headers => ['Authorization: Basic bm9ib2R5Og=='])->{status}, 401);



=== "satisfy any" does not hide a miss
--- location
satisfy any;
allow all;
--- server
location /nowhere/ { urlproxy tools path; urlproxy_miss 403; satisfy any; allow all; proxy_pass http://tools; }
location /unauthorized/ { urlproxy tools path; urlproxy_miss 401; satisfy any; allow all; proxy_pass http://tools; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/          200  a
/unknown/        503
/nowhere/x       403
/unauthorized/x  401



=== limit_except applies
--- location
limit_except GET { deny all; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(join(' ', map { ask("$_ /hello/")->{status} } qw(GET HEAD POST)), '200 200 403');
is(join(' ', map { ask("$_ /unknown/")->{status} } qw(GET HEAD)), '503 503');
