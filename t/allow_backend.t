# allow_backend: routes to other networks are rejected and logged.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== only routes to allowed networks are served
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /x http://192.0.2.1:80
HSET prefix:outside .* https://198.51.100.7:443
HSET prefix:six .* http://[2001:db8::1]:80
HSET prefix:mapped .* http://[::ffff:192.0.2.1]:80
--- requests
/hello/    200  a
/hello/x   200  a  pattern=.*
/outside/  503  -
/six/      503  -
/mapped/   503  -
--- error_log
urlproxy: route rejected: backend http://192.0.2.1:80 is outside the allowed networks, tool="hello" pattern="/x"
urlproxy: route rejected: backend https://198.51.100.7:443 is outside the allowed networks, tool="outside" pattern=".*"
urlproxy: route rejected: backend http://[2001:db8::1]:80 is outside the allowed networks, tool="six" pattern=".*"
is outside the allowed networks, tool="mapped" pattern=".*"



=== a list rejects names
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://localhost:80
--- requests
/hello/  503  -
--- error_log
urlproxy: route rejected: backend http://localhost:80 is a name, but only addresses in the allowed networks may be used, tool="hello" pattern=".*"



=== lists accept networks, addresses and several lines
--- table
allow_backend 192.0.2.0/24 127.0.0.1;
allow_backend fd00::/8;
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://127.0.0.2:80
HSET prefix:other .* http://192.0.2.77:80
HSET prefix:six .* http://[fd12::1]:80
--- requests
/hello/  200  a
/hello/  200  a
--- request
GET /list
--- error_code: 200
--- response_body_like chomp
(?=.*"hello")(?=.*"other")(?=.*"six")
--- error_log
urlproxy: route rejected: backend http://127.0.0.2:80 is outside the allowed networks, tool="hello"



=== changes while nginx runs are checked
--- table
allow_backend 127.0.0.0/8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
redis('HSET', 'prefix:hello', '.*', 'http://192.0.2.1:80');
ok(eventually { ask('GET /hello/')->{status} == 503 }, 'a route that moves outside is withdrawn');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{status} == 200 }, 'a route that moves inside is served again');



=== without a list, special addresses are rejected and loopback is allowed
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /meta http://169.254.169.254 /any http://0.0.0.0:80 /mapped http://[::ffff:169.254.169.254]:80
HSET prefix:hello /nat64 http://[64:ff9b::a9fe:a9fe]:80 /group http://224.0.0.1:80 /local http://[fe80::1]:80
SADD frontend:www.example.org http://[fd00:ec2::254]:80
--- requests
/hello/        200  a
/hello/meta    200  a  pattern=.*
/hello/any     200  a  pattern=.*
/hello/mapped  200  a  pattern=.*
/hello/nat64   200  a  pattern=.*
/hello/group   200  a  pattern=.*
/hello/local   200  a  pattern=.*
--- error_log
urlproxy: route rejected: backend http://169.254.169.254:80 is a link-local, metadata, unspecified or multicast address, tool="hello" pattern="/meta"
or multicast address, tool="hello" pattern="/any"
or multicast address, tool="hello" pattern="/mapped"
or multicast address, tool="hello" pattern="/nat64"
or multicast address, tool="hello" pattern="/group"
or multicast address, tool="hello" pattern="/local"
or multicast address, domain="www.example.org"



=== special addresses must be listed explicitly
--- table
allow_backend 0.0.0.0/0 169.254.7.0/24;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /meta http://169.254.169.254:80
HSET prefix:named .* http://169.254.7.1:80
--- requests
/hello/meta    200  a  pattern=.*
--- error_log
or multicast address, tool="hello" pattern="/meta"
--- no_error_log
tool="named"
[alert]
panic
