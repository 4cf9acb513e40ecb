# Redis authentication: user and password are sent; a wrong password leaves the table empty, but nginx starts.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== user and password from the URL
--- table
redis redis://reader:s%40cret@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
--- redis
ACL SETUSER reader on resetpass >s@cret ~* &* +@all
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  200  a



=== the password from a file, without its line end
--- table
redis redis://reader@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
password_file $TEST_NGINX_SERVER_ROOT/html/pass;
--- user_files
>>> pass
s@cret
only the first line counts
--- redis
ACL SETUSER reader on resetpass >s@cret ~* &* +@all
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  200  a



=== a wrong password is logged, nginx starts
--- table
redis redis://reader:wrong@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
wait_for_routes 200ms;
--- redis
ACL SETUSER reader on resetpass >s@cret ~* &* +@all
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  503  -  result=unready
--- no_error_log
wrong@
[alert]
panic
--- error_log
WRONGPASS



=== a user without permission is logged
--- table
redis redis://reader:s%40cret@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
wait_for_routes 200ms;
--- redis
ACL SETUSER reader reset on >s@cret +@connection
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  503  -  result=unready
--- error_log
NOPERM
