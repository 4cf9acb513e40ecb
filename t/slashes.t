# Encoded and doubled slashes and dots: the lookup uses the normalized path, the backend gets the URI as sent.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== an encoded slash is a slash
--- redis
HSET prefix:hello ^/x/y$ http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
--- requests
/hello%2Fx%2fy  200  b  tool=hello sees=/hello%2Fx%2fy
%2Fhello/       400
/%2Fhello/      200  a  tool=hello sees=/%2Fhello/
/hello%252Fx/   503  -  tool=hello%2Fx



=== doubled slashes are one
--- redis
HSET prefix:hello ^/x/y$ http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
--- requests
//hello/           200  a  tool=hello sees=//hello/
///hello//x///y    200  b  sees=///hello//x///y
/hello//           200  a  sees=/hello//



=== merge_slashes off keeps them
--- redis
HSET prefix: ^/hello http://$TEST_NGINX_TOOL_C
HSET prefix:hello ^//x http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
--- server
merge_slashes off;
--- requests
//hello/     200  c  tool=
/hello//x    200  b  pattern=^//x
/hello/x     200  a



=== dots are resolved before the lookup
--- redis
HSET prefix:hello ^/y$ http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_C
--- requests
/./hello/          200  a  tool=hello sees=/./hello/
/hello/x/../y      200  b  sees=/hello/x/../y
/hello/../other/   200  c  tool=other sees=/hello/../other/
/hello/%2e%2e/other/  200  c  tool=other sees=/hello/%2e%2e/other/
/hello/..%2fother/ 200  c  tool=other
/hello/..          503  -  tool=
/hello/.           200  a
/hello/...         200  a  sees=/hello/...
/hello/.x/..y/     200  a
/../hello/         400
/hello/../../      400
/%2e%2e/hello/     400



=== with merge_slashes off, an encoded slash does not reach keys of another kind
--- server
merge_slashes off;
--- redis
SADD frontend:hello http://$TEST_NGINX_TOOL_B
HSET redirect:hello .* hello.toolforge.org
HSET prefix: .* http://$TEST_NGINX_TOOL_A
--- requests
/%2fdhello/  200  a  tool=
//dhello/    200  a  tool=
/%2frhello/  200  a  tool=
