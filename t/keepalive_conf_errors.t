# Every way to write urlproxy_keepalive wrong, or where it cannot be: nginx does not start, and says why.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== before urlproxy_peers
--- http
upstream others { urlproxy_keepalive 8; urlproxy_peers; }
--- refused
"urlproxy_keepalive" keeps connections for "urlproxy_peers", and goes after it



=== without urlproxy_peers
--- http
upstream others { server 127.0.0.1:1; urlproxy_keepalive 8; }
--- refused
"urlproxy_keepalive" keeps connections for "urlproxy_peers", and goes after it



=== after another method
--- http
upstream others { urlproxy_peers; least_conn; urlproxy_keepalive 8; }
--- refused
"keepalive" and "urlproxy_keepalive" exclude each other, expected "urlproxy_peers" and then one of them



=== before nginx's keepalive
--- http
upstream others { urlproxy_peers; urlproxy_keepalive 8; keepalive 8; }
--- refused
"keepalive" and "urlproxy_keepalive" exclude each other, expected "urlproxy_peers" and then one of them



=== after nginx's keepalive
--- http
upstream others { urlproxy_peers; keepalive 8; urlproxy_keepalive 8; }
--- refused
"keepalive" and "urlproxy_keepalive" exclude each other, expected "urlproxy_peers" and then one of them



=== twice
--- http
upstream others { urlproxy_peers; urlproxy_keepalive 8; urlproxy_keepalive 8; }
--- refused
"urlproxy_keepalive" is duplicate



=== in a server
--- server
urlproxy_keepalive 8;
--- refused
"urlproxy_keepalive" directive is not allowed here



=== in a location
--- location
urlproxy_keepalive 8;
--- refused
"urlproxy_keepalive" directive is not allowed here



=== no number
--- upstream
urlproxy_keepalive;
--- refused
"urlproxy_keepalive" takes a number of connections, e.g. "urlproxy_keepalive 4096 per_backend=16 timeout=60s;"



=== parameters alone
--- upstream
urlproxy_keepalive per_backend=8;
--- refused
"urlproxy_keepalive" invalid number of connections (1 to 1000000) "per_backend=8", expected e.g. "4096"



=== none
--- upstream
urlproxy_keepalive 0;
--- refused
"urlproxy_keepalive" invalid number of connections (1 to 1000000) "0", expected e.g. "4096"



=== less than none
--- upstream
urlproxy_keepalive -1;
--- refused
"urlproxy_keepalive" invalid number of connections (1 to 1000000) "-1", expected e.g. "4096"



=== too many
--- upstream
urlproxy_keepalive 1000001;
--- refused
"urlproxy_keepalive" invalid number of connections (1 to 1000000) "1000001", expected e.g. "4096"



=== with a unit
--- upstream
urlproxy_keepalive 4k;
--- refused
"urlproxy_keepalive" invalid number of connections (1 to 1000000) "4k", expected e.g. "4096"



=== a second number
--- upstream
urlproxy_keepalive 64 16;
--- refused
"urlproxy_keepalive" invalid parameter "16", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== an unknown parameter
--- upstream
urlproxy_keepalive 64 per_host=16;
--- refused
"urlproxy_keepalive" invalid parameter "per_host=16", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== per_backend=0
--- upstream
urlproxy_keepalive 64 per_backend=0;
--- refused
"urlproxy_keepalive" invalid parameter "per_backend=0", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== per_backend=-1
--- upstream
urlproxy_keepalive 64 per_backend=-1;
--- refused
"urlproxy_keepalive" invalid parameter "per_backend=-1", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== per_backend=
--- upstream
urlproxy_keepalive 64 per_backend=;
--- refused
"urlproxy_keepalive" invalid parameter "per_backend=", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== per_tool=0
--- upstream
urlproxy_keepalive 64 per_tool=0;
--- refused
"urlproxy_keepalive" invalid parameter "per_tool=0", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== per_tool=many
--- upstream
urlproxy_keepalive 64 per_tool=many;
--- refused
"urlproxy_keepalive" invalid parameter "per_tool=many", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== timeout=0
--- upstream
urlproxy_keepalive 64 timeout=0;
--- refused
"urlproxy_keepalive" invalid parameter "timeout=0", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== timeout=soon
--- upstream
urlproxy_keepalive 64 timeout=soon;
--- refused
"urlproxy_keepalive" invalid parameter "timeout=soon", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== timeout=-1s
--- upstream
urlproxy_keepalive 64 timeout=-1s;
--- refused
"urlproxy_keepalive" invalid parameter "timeout=-1s", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== timeout=
--- upstream
urlproxy_keepalive 64 timeout=;
--- refused
"urlproxy_keepalive" invalid parameter "timeout=", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== requests=0
--- upstream
urlproxy_keepalive 64 requests=0;
--- refused
"urlproxy_keepalive" invalid parameter "requests=0", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== requests=-1
--- upstream
urlproxy_keepalive 64 requests=-1;
--- refused
"urlproxy_keepalive" invalid parameter "requests=-1", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== requests=1k
--- upstream
urlproxy_keepalive 64 requests=1k;
--- refused
"urlproxy_keepalive" invalid parameter "requests=1k", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== time=0
--- upstream
urlproxy_keepalive 64 time=0;
--- refused
"urlproxy_keepalive" invalid parameter "time=0", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== time=1y
--- upstream
urlproxy_keepalive 64 time=1y;
--- refused
"urlproxy_keepalive" invalid parameter "time=1y", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== shared=
--- upstream
urlproxy_keepalive 64 shared=;
--- refused
"urlproxy_keepalive" invalid parameter "shared=", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== shared=10.0.0.0/33
--- upstream
urlproxy_keepalive 64 shared=10.0.0.0/33;
--- refused
"urlproxy_keepalive" invalid parameter "shared=10.0.0.0/33", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== shared=10.0.0.1,
--- upstream
urlproxy_keepalive 64 shared=10.0.0.1,;
--- refused
"urlproxy_keepalive" invalid parameter "shared=10.0.0.1,", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== shared=ingress.example
--- upstream
urlproxy_keepalive 64 shared=ingress.example;
--- refused
"urlproxy_keepalive" invalid parameter "shared=ingress.example", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"



=== all that is right
--- http
upstream all { urlproxy_peers max_fails=2 shared=192.0.2.0/24; urlproxy_keepalive 1000000 per_backend=1000000 per_tool=1000000 timeout=100d requests=18446744073709551615 time=500ms shared=10.0.0.1,fd00::/8; }
upstream one { urlproxy_peers; urlproxy_keepalive 1; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/  200  a
