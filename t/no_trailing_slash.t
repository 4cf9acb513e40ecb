# A path without a slash after the tool's name is the root of the tool.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the rest of the path is /
--- redis
HSET prefix:hello ^/$ http://$TEST_NGINX_TOOL_A
HSET prefix:deep ^/x http://$TEST_NGINX_TOOL_B
--- requests
/hello      200  a  tool=hello pattern=^/$ sees=/hello
/hello/     200  a  sees=/hello/
/hello?x=1  200  a  sees=/hello?x=1
/hello?     200  a  sees=/hello?
/hello/x    503  -
/deep       503  -  tool=deep
/deep/x     200  b



=== the backend responds, without a redirect
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $answer = ask('GET /hello');
is("$answer->{status} " . ($answer->{headers}{location} // 'nowhere'), '200 nowhere');
