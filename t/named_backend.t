# A backend given by name cannot be a peer: the request is answered with 502, and the log says what to do.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== urlproxy_peers refuses a name
--- redis
HSET prefix:hello .* http://Tool-Hello.example:8000
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  502  -  result=route tool=hello backend=http://tool-hello.example:8000
/hello/  502  -
/other/  200  a
--- error_log
urlproxy_peers: backend is a host name; answering 502, expected "proxy_pass $urlproxy_backend;" with a resolver, backend=http://tool-hello.example:8000 tool="hello"



=== urlproxy_peers refuses a name with keepalive
--- upstream
keepalive 8;
--- redis
HSET prefix:hello .* http://tool-hello.example:8000
--- requests
/hello/  502  -
/hello/  502  -
--- error_log
urlproxy_peers: backend is a host name; answering 502, expected "proxy_pass $urlproxy_backend;" with a resolver, backend=http://tool-hello.example:8000 tool="hello"



=== urlproxy_peers refuses a default backend given by name
--- location
urlproxy_default http://tool-admin.example:80;
--- requests
/unknown/  502  -  result=default
--- error_log
urlproxy_peers: backend is a host name; answering 502, expected "proxy_pass $urlproxy_backend;" with a resolver, backend=http://tool-admin.example:80 tool="unknown"
