# The lookup uses the path after rewrites.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== rewrite in the location
--- location
rewrite ^/old/(.*)$ /hello/$1 break;
--- redis
HSET prefix:hello ^/x http://$TEST_NGINX_TOOL_A
HSET prefix:old .* http://$TEST_NGINX_TOOL_B
--- requests
/old/x?y=z  200  a  tool=hello sees=/hello/x?y=z
/hello/x    200  a  sees=/hello/x
/old        200  b



=== rewrite to another location
--- server
location /old/ { rewrite ^/old(/.*)$ $1 last; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/old/hello/x  200  a  tool=hello sees=/hello/x



=== the lookup is repeated after a rewrite
--- location
set $before $urlproxy_tool;
rewrite ^/old/(.*)$ /hello/$1 break;
add_header X-Before $before;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:old .* http://$TEST_NGINX_TOOL_B
--- perl
my $answer = ask('GET /old/x');
is(join(' ', @{ $answer->{headers} }{qw(x-before x-urlproxy-tool x-tool)}), 'old hello a');



=== variables are set in the rewrite phase
--- location
if ($urlproxy_result = miss) { return 410; }
if ($urlproxy_tool = closed) { return 403; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:closed .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/   200  a
/unknown/  410
/closed/  403



=== rewrite inside an if
--- location
if ($arg_x) { set $y 1; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/?x=1   200  a
/hello/       200  a
/unknown/?x=1  503



=== proxy_pass with its own path
--- pass: http://tools/prefix/
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/x  200  a  sees=/prefix/hello/x
