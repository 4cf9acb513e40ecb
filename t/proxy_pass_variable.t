# proxy_pass with $urlproxy_backend, without an upstream block, as in the old configuration.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the variable is the URL of the backend
--- pass: $urlproxy_backend
--- redis
HSET prefix:hello /api http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
SADD prefix:several http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- requests
/hello/x%2Fy?z=%20  200  a  result=route backend=http://$TEST_NGINX_TOOL_A sees=/hello/x%2Fy?z=%20
/hello/api          200  b
/hello              200  a  sees=/hello
/unknown/           503  -  backend=



=== the variable is the URL of the default
--- pass: $urlproxy_backend
--- location
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- requests
/unknown/x  200  c  sees=/unknown/x



=== Host is the client's if set, else the backend's
--- pass: $urlproxy_backend
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- server
location /own/ { urlproxy tools path; rewrite ^/own(.*) $1 break; proxy_pass $urlproxy_backend; proxy_set_header Host $http_host; }
--- perl
like(ask('GET /hello/')->{body}, qr/^host: \Q$ENV{TEST_NGINX_TOOL_A}\E$/m);
like(ask('GET /own/hello/', headers => ['Host: Tools.Example.org:81'])->{body}, qr/^host: Tools\.Example\.org:81$/m);



=== several backends take turns
--- pass: $urlproxy_backend
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- perl
my %count;
$count{ ask('GET /hello/')->{headers}{'x-tool'} }++ for 1 .. 6;
is_deeply(\%count, { a => 2, b => 2, c => 2 });



=== a failed backend is a 502, without a retry
--- pass: $urlproxy_backend
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
--- requests
/hello/  502  -  result=route backend=http://$TEST_NGINX_DEAD_A
--- error_log
connect() failed (111: Connection refused) while connecting to upstream



=== a name needs a resolver
--- pass: $urlproxy_backend
--- redis
HSET prefix:hello .* http://tool-hello.example:8000
--- requests
/hello/  502  -  backend=http://tool-hello.example:8000
--- error_log
no resolver defined to resolve tool-hello.example



=== an IPv6 address works
--- pass: $urlproxy_backend
--- redis
HSET prefix:hello .* http://[2001:DB8::1]:8000
--- location
proxy_connect_timeout 100ms;
--- perl
my $answer = ask('GET /hello/');
is($answer->{headers}{'x-urlproxy-backend'}, 'http://[2001:db8::1]:8000');
like($answer->{status}, qr/^50[24]$/);
