# Subrequests are routed by themselves, like other requests.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== auth_request to a tool
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /auth/check?status=$http_x_status? break; proxy_pass http://tools; }
--- location
auth_request /check;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:auth .* http://$TEST_NGINX_TOOL_B
--- perl
for (['204', 200, 'a'], ['403', 403, undef], ['401', 401, undef]) {
    my ($checked, $status, $by) = @$_;
    my $answer = ask('GET /hello/', headers => ["X-Status: $checked"]);
    is_deeply([$answer->{status}, @{ $answer->{headers} }{qw(x-tool x-urlproxy-tool x-urlproxy-backend)}],
        [$status, $by, 'hello', "http://$ENV{TEST_NGINX_TOOL_A}"], "checked: $checked");
}



=== auth_request to a missing tool refuses
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass http://tools; }
location = /check2 { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass $urlproxy_scheme://tools; }
location = /check3 { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass $urlproxy_backend; }
location /hello/2 { urlproxy tools path; auth_request /check2; proxy_pass http://tools; }
location /hello/3 { urlproxy tools path; auth_request /check3; proxy_pass http://tools; }
--- location
auth_request /check;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/   500
/hello/2  500
/hello/3  500



=== auth_request before the initial load is 503
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass http://tools; }
location = /x { auth_request /check; alias $TEST_NGINX_SERVER_ROOT/html/index.html; }
--- requests
/x  500



=== an error page knows its tool after subrequests
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass http://tools; }
location = /sorry { default_type text/plain; return 200 "$urlproxy_tool at $urlproxy_backend"; }
--- location
auth_request /check;
error_page 502 /sorry;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
HSET prefix:auth .* http://$TEST_NGINX_TOOL_B
--- request
GET /hello/
--- error_code: 502
--- response_body chomp
hello at http://$TEST_NGINX_DEAD_A



=== a location without urlproxy has no route from a subrequest
--- server
location = /check { internal; return 204; add_header X-Tool "[$urlproxy_tool]"; }
location = /plain { auth_request /route; add_header X-Route "[$urlproxy_tool$urlproxy_result]"; alias $TEST_NGINX_SERVER_ROOT/html/index.html; }
location = /route { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass http://tools; }
--- redis
HSET prefix:auth .* http://$TEST_NGINX_TOOL_B
--- request
GET /plain
--- error_code: 200
--- response_headers
X-Route: []



=== mirror to another tool
--- server
location = /copy { internal; urlproxy tools path; rewrite ^ /mirror/ break; proxy_pass http://tools; }
location = /lost { internal; urlproxy tools path; rewrite ^ /unknown/ break; proxy_pass http://tools; }
--- location
mirror /copy;
mirror /lost;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:mirror .* http://$TEST_NGINX_OWN_A
--- perl
my $client = start_ask('POST /hello/', body => 'both');
my $mirror = accept_on('A');
is(read_message($mirror)->{body}, 'both', 'the mirror');
send_bytes($mirror, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
my $answer = answer($client);
is("$answer->{headers}{'x-tool'} $answer->{headers}{'x-urlproxy-tool'}", 'a hello', 'the client');
like($answer->{body}, qr/^body: 4 bytes/m);



=== SSI parts of a page
--- http
ssi on;
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
--- user_files
>>> page
<!--# include virtual="/hello/?body_bytes=1" -->,<!--# include virtual="/unknown/" -->,<!--# include virtual="/several/?body_bytes=2" -->
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD prefix:several http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_A
--- request
GET /page
--- error_code: 200
--- response_body_like: ^x,.*,xx



=== an SSI part that misses has the status of a miss and is not logged
--- http
ssi on;
log_subrequest on;
log_format part '$uri $status';
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
location /gone/ { urlproxy tools path; urlproxy_miss 410; proxy_pass http://tools; }
access_log $TEST_NGINX_SERVER_ROOT/html/parts.log part;
--- user_files
>>> page
<!--# include virtual="/unknown/" -->,<!--# include virtual="/gone/x" -->,<!--# include virtual="/hello/" -->
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /page')->{status}, 200);
my $log = sub { open my $file, '<', "$ENV{TEST_NGINX_SERVER_ROOT}/html/parts.log" or die; local $/; <$file> };
ok(eventually { $log->() =~ m{^/page 200$}m });
like($log->(), qr{^\Q$_\E$}m) for '/unknown/ 503', '/gone/x 410', '/hello/ 200';
--- no_error_log
[error]
[alert]



=== an SSI part before the initial load is 503
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- http
ssi on;
log_subrequest on;
log_format part '$uri $status $sent_http_retry_after';
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
access_log $TEST_NGINX_SERVER_ROOT/html/parts.log part;
--- user_files
>>> page
<!--# include virtual="/hello/" -->
--- perl
is(ask('GET /page')->{status}, 200);
my $log = sub { open my $file, '<', "$ENV{TEST_NGINX_SERVER_ROOT}/html/parts.log" or die; local $/; <$file> };
ok(eventually { $log->() =~ m{^/hello/ 503 1$}m }) or diag($log->());
--- no_error_log
[error]
[alert]



=== try_files changes the path after the lookup
--- server
location /x/ { urlproxy tools path; root $TEST_NGINX_SERVER_ROOT/html; try_files /there $uri =404; proxy_pass http://tools; }
--- user_files
>>> there
a file
--- redis
HSET prefix:x .* http://$TEST_NGINX_TOOL_A
--- request
GET /x/
--- error_code: 503
--- no_error_log
[error]
[alert]
