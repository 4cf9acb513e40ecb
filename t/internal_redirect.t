# Internal redirects: error pages, named locations, X-Accel-Redirect, try_files.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the error page of a failed backend knows the tool
--- location
error_page 502 504 /sorry;
--- server
location = /sorry { default_type text/plain; return 200 "$urlproxy_result of $urlproxy_tool by $urlproxy_pattern at $urlproxy_backend"; }
--- redis
HSET prefix:hello ^/api http://$TEST_NGINX_DEAD_A
--- request
GET /hello/api/x
--- error_code: 502
--- response_body chomp
route of hello by ^/api at http://$TEST_NGINX_DEAD_A



=== a named location knows the tool
--- location
error_page 502 504 @sorry;
--- server
location @sorry { default_type text/plain; return 502 "$urlproxy_tool does not answer"; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
--- request
GET /hello/
--- error_code: 502
--- response_body: hello does not answer



=== an error page may come from another tool
--- location
error_page 502 /errors/page;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
HSET prefix:errors .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/  502  b  tool=errors sees=/errors/page



=== an error page may come from the default tool
--- location
error_page 503 = @admin;
--- server
location @admin { urlproxy tools path; urlproxy_default admin; proxy_pass http://tools; add_header X-Urlproxy-Tool $urlproxy_tool; }
--- redis
HSET prefix:admin .* http://$TEST_NGINX_TOOL_C
--- requests
/unknown/x  200  c  tool=admin sees=/unknown/x



=== a missing error page ends the request
--- location
error_page 502 /dead/;
recursive_error_pages on;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
HSET prefix:dead .* http://$TEST_NGINX_DEAD_B
--- perl
like(ask('GET /hello/')->{status}, qr/^50[02]$/);



=== proxy_intercept_errors replaces an error of the tool
--- location
proxy_intercept_errors on;
error_page 404 /sorry;
--- server
location = /sorry { default_type text/plain; return 200 "$urlproxy_tool has no such page"; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- request
GET /hello/?status=404
--- error_code: 404
--- response_body: hello has no such page



=== a request that nginx refuses has no route
--- server
error_page 400 /sorry;
location = /sorry { default_type text/plain; return 200 "[$urlproxy_tool$urlproxy_result]"; }
--- raw_request eval
"GET /hello/ HTTP/1.1\r\n\r\n"
--- error_code: 400
--- response_body: []



=== X-Accel-Redirect can lead to another tool
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
my $client  = start_ask('GET /hello/');
my $backend = accept_on('A');
read_message($backend);
send_bytes($backend, "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /other/x\r\nContent-Length: 0\r\n\r\n");
my $answer = answer($client);
is("$answer->{status} $answer->{headers}{'x-tool'} $answer->{headers}{'x-urlproxy-tool'}", '200 b other');
like($answer->{body}, qr{^uri: /other/x$}m);



=== try_files changes the route
--- server
location /files/ { root $TEST_NGINX_SERVER_ROOT/html; try_files $uri @tools; }
location @tools { urlproxy tools path; proxy_pass http://tools; }
--- user_files
>>> files/there
a file
--- redis
HSET prefix:files .* http://$TEST_NGINX_TOOL_A
--- requests
/files/there    200  -
/files/missing  200  a  sees=/files/missing



=== an error location with urlproxy knows the failed tool
--- location
error_page 502 /sorry;
--- server
location = /sorry { urlproxy tools path; default_type text/plain; return 200 "$urlproxy_result of $urlproxy_tool at $urlproxy_backend"; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
HSET prefix:sorry .* http://$TEST_NGINX_TOOL_A
--- request
GET /hello/
--- error_code: 502
--- response_body chomp
route of hello at http://$TEST_NGINX_DEAD_A
--- requests
/sorry  200



=== a named error location with urlproxy knows the failed tool
--- location
error_page 503 @sorry;
--- server
location @sorry { urlproxy tools path; urlproxy_default admin; default_type text/plain; return 503 "$urlproxy_result of $urlproxy_tool"; }
--- redis
HSET prefix:admin .* http://$TEST_NGINX_TOOL_A
--- request
GET /unknown/
--- error_code: 503
--- response_body: miss of unknown



=== variables change when the error location passes the request on
--- location
error_page 502 = /errors/page;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
HSET prefix:errors .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/  200  b  tool=errors backend=http://$TEST_NGINX_TOOL_B
