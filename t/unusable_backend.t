# A backend of another scheme than the location speaks is a 502, and the log says which directive would have to say what.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== whichever way the request is passed on
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
urlproxy_peers: backend https://127.0.0.1:1 of tool "grpc" is not of the scheme that "grpc_pass" says, expected "grpcs://"
urlproxy_peers: backend https://127.0.0.1:3 of tool "uwsgi" is not of the scheme that "uwsgi_pass" says, expected "suwsgi://"
urlproxy_peers: backend https://127.0.0.1:4 of tool "fastcgi" is not of the scheme that "fastcgi_pass" says, expected an http backend: it has no TLS
urlproxy_peers: backend https://127.0.0.1:6 of tool "http" is not of the scheme that "proxy_pass" says, expected "https://", which serves both
