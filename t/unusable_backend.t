# A backend with a scheme that the location cannot use is a 502, and the log names the directive to change.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== every protocol module refuses an unusable scheme
--- server
location /grpc/ { urlproxy tools path; grpc_pass grpc://tools; }
location /uwsgi/ { urlproxy tools path; uwsgi_pass tools; }
location /fastcgi/ { urlproxy tools path; fastcgi_pass tools; }
--- redis
HSET prefix:grpc .* https://127.0.0.1:1
HSET prefix:uwsgi .* https://127.0.0.1:3
HSET prefix:fastcgi .* https://127.0.0.1:4
HSET prefix:http .* https://127.0.0.1:6
--- requests
/grpc/     502
/uwsgi/    502
/fastcgi/  502
/http/     502
--- error_log
urlproxy_peers: "grpc_pass" cannot use the backend's scheme; answering 502, expected "grpcs://", backend=https://127.0.0.1:1 tool="grpc"
urlproxy_peers: "uwsgi_pass" cannot use the backend's scheme; answering 502, expected "suwsgi://", backend=https://127.0.0.1:3 tool="uwsgi"
urlproxy_peers: "fastcgi_pass" cannot use the backend's scheme; answering 502, expected an http backend (it has no TLS), backend=https://127.0.0.1:4 tool="fastcgi"
urlproxy_peers: "proxy_pass" cannot use the backend's scheme; answering 502, expected "https://" (serves both schemes), backend=https://127.0.0.1:6 tool="http"
