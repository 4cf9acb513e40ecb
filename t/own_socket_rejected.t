# Routes to nginx's own listening sockets would loop: they are rejected and logged.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== any address of the socket is rejected
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /x http://127.0.0.1:$TEST_NGINX_SERVER_PORT
HSET prefix:other .* http://127.1.2.3:$TEST_NGINX_SERVER_PORT
HSET prefix:any .* http://0.0.0.0:$TEST_NGINX_SERVER_PORT
HSET prefix:mapped .* http://[::ffff:127.0.0.1]:$TEST_NGINX_SERVER_PORT
HSET prefix:https .* https://127.0.0.1:$TEST_NGINX_SERVER_PORT
SADD prefix:several http://$TEST_NGINX_TOOL_B http://127.0.0.1:$TEST_NGINX_SERVER_PORT
--- requests
/hello/    200  a
/hello/x   200  a  pattern=.*
/other/    503  -  result=miss
/any/      503  -
/mapped/   503  -
/https/    503  -
/several/  200  b
/several/  200  b
--- error_log
urlproxy: route rejected: backend http://127.0.0.1:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="hello" pattern="/x"
urlproxy: route rejected: backend http://127.1.2.3:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="other" pattern=".*"
urlproxy: route rejected: backend http://0.0.0.0:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="any" pattern=".*"
urlproxy: route rejected: backend https://127.0.0.1:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="https" pattern=".*"
urlproxy: route rejected: backend http://127.0.0.1:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="several"
is this proxy itself, tool="mapped" pattern=".*"



=== the machine's own address is rejected
--- redis eval
use IO::Socket::INET;
# Sends no packet: only determines the local address.
my $socket = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '192.0.2.1', PeerPort => 9);
my $own    = $socket ? $socket->sockhost : '127.0.0.1';
[ ['HSET', 'prefix:hello', '.*', "http://$own:$ENV{TEST_NGINX_PORT}"] ]
--- requests
/hello/  503  -
--- error_log
is this proxy itself, tool="hello"



=== a socket on one address does not reject others
--- http
server { listen 127.0.0.9:$TEST_NGINX_RAND_PORT_1; return 200; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
open my $conf, '<', server_root() . '/conf/nginx.conf' or die;
my ($port) = map { /listen 127\.0\.0\.9:(\d+)/ } <$conf>;
redis('HSET', 'prefix:own', '.*', "http://127.0.0.9:$port");
redis('HSET', 'prefix:near', '.*', "http://127.0.0.8:$port");
ok(eventually { ask('GET /near/')->{status} == 502 }, 'the next address is not rejected');
is(ask('GET /own/')->{status}, 503);
--- error_log
is this proxy itself, tool="own"



=== changes while nginx runs are checked
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a');
redis('HSET', 'prefix:hello', '.*', "http://127.0.0.1:$ENV{TEST_NGINX_SERVER_PORT}");
ok(eventually { ask('GET /hello/')->{status} == 503 });
--- error_log
urlproxy: route rejected: backend http://127.0.0.1:$TEST_NGINX_SERVER_PORT is this proxy itself, tool="hello" pattern=".*"
