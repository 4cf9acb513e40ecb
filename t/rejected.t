# Invalid data in Redis is rejected with the reason in the log; all other routes are served.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== invalid backends
--- redis eval
[ ['HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_A}", '/noscheme', '10.0.0.1:80', '/ftp', 'ftp://10.0.0.1:80',
    '/path', 'http://10.0.0.1:80/x', '/noport', 'http://10.0.0.1:', '/port', 'http://10.0.0.1:65536', '/nohost', 'http://:80',
    '/empty', '', '/binary', "http://\xff:80", '/newline', "http://10.0.0.1:80\n"],
  ['HSET', 'prefix:other', '.*', "http://$ENV{TEST_NGINX_TOOL_B}"] ]
--- requests
/hello/noscheme  200  a  pattern=.*
/hello/path      200  a  pattern=.*
/hello/port      200  a  pattern=.*
/hello/binary    200  a  pattern=.*
/hello/newline   200  a  pattern=.*
/other/          200  b
--- error_log
[warn]
urlproxy: route rejected: backend "10.0.0.1:80" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/noscheme"
urlproxy: route rejected: backend "ftp://10.0.0.1:80" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/ftp"
urlproxy: route rejected: backend "http://10.0.0.1:80/x" has more than a host and a port, expected scheme://host:port, tool="hello" pattern="/path"
urlproxy: route rejected: backend "http://10.0.0.1:" has no port between 1 and 65535, expected scheme://host:port, tool="hello" pattern="/noport"
urlproxy: route rejected: backend "http://10.0.0.1:65536" has no port between 1 and 65535, expected scheme://host:port, tool="hello" pattern="/port"
urlproxy: route rejected: backend "http://:80" has no valid host, expected an IPv4 address, an [IPv6 address] or a DNS name, tool="hello" pattern="/nohost"
urlproxy: route rejected: backend "" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/empty"
is not UTF-8, tool="hello" pattern="/binary"
urlproxy: route rejected: backend "http://10.0.0.1:80\n" has more than a host and a port, expected scheme://host:port, tool="hello" pattern="/newline"



=== invalid patterns
--- redis eval
[ ['HSET', 'prefix:hello', map { ($_ => "http://$ENV{TEST_NGINX_TOOL_B}") } '(', '/a(?=b)', '(/a)\1', '/a++', '[0-9]{1000}{1000}',
    '/' . 'x' x 1024, "/\xff", "/new\nline("],
  ['HSET', 'prefix:hello', '/' . 'y' x 1023, "http://$ENV{TEST_NGINX_TOOL_C}", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- requests eval
<<"ROWS"
/hello/(                    200  a  pattern=.*
/hello/ab                   200  a  pattern=.*
/hello/aa                   200  a  pattern=.*
/hello/${\('x' x 1024)}     200  a  pattern=.*
/hello/%ff                  200  a  pattern=.*
/hello/${\('y' x 1023)}     200  c
ROWS
--- error_log
urlproxy: route rejected: pattern "(" does not compile: unclosed group, tool="hello" pattern="("
urlproxy: route rejected: pattern "/a(?=b)" does not compile: look-around, including look-ahead and look-behind, is not supported, tool="hello" pattern="/a(?=b)"
urlproxy: route rejected: pattern "(/a)\\1" does not compile: backreferences are not supported, tool="hello" pattern="(/a)\\1"
urlproxy: route rejected: pattern "/a++" has a possessive repetition, which is not supported, tool="hello" pattern="/a++"
urlproxy: route rejected: pattern "[0-9]{1000}{1000}" needs too many states
urlproxy: route rejected: pattern has 1025 bytes, expected at most 1024, tool="hello" pattern="/xxx
is not UTF-8, tool="hello" pattern="/\xff"
urlproxy: route rejected: pattern "/new\nline(" contains '\n', expected no control character; write \n, \t or \x0A, tool="hello" pattern="/new\nline("



=== patterns with line ends
--- redis eval
[ ['HSET', 'prefix:hello', map { ($_ => "http://$ENV{TEST_NGINX_TOOL_B}") } "/a|/b\r\nX-Evil: 1", "/a\x01", "/a\x7f", "/a\xc2\x85", "/\ta"],
  ['HSET', 'prefix:hello', '/a\r\n', "http://$ENV{TEST_NGINX_TOOL_C}", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- requests
/hello/a        200  a  pattern=.*
/hello/a%0d%0a  200  c  pattern=/a\r\n
--- error_log
urlproxy: route rejected: pattern "/a|/b\r\nX-Evil: 1" contains '\r', expected no control character; write \n, \t or \x0A, tool="hello" pattern="/a|/b\r\nX-Evil: 1"
contains '\u{1}'
contains '\u{7f}'
contains '\u{85}'
contains '\t'



=== a tool without a valid route is not listed
--- redis
HSET prefix:hello .* nonsense ( http://$TEST_NGINX_TOOL_A
SADD prefix:several nonsense 10.0.0.1:80
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/    503  -  result=miss
/several/  503  -  result=miss
/other/    200  b
--- request
GET /list
--- error_code: 200
--- response_body chomp
{"other":{"status":"active"}}



=== keys of a wrong type
--- redis
SET prefix:string http://$TEST_NGINX_TOOL_A
RPUSH prefix:list http://$TEST_NGINX_TOOL_A
ZADD prefix:sorted 1 http://$TEST_NGINX_TOOL_A
XADD prefix:stream * .* http://$TEST_NGINX_TOOL_A
HSET prefix:hello .* http://$TEST_NGINX_TOOL_B
--- requests
/string/  503  -
/list/    503  -
/sorted/  503  -
/stream/  503  -
/hello/   200  b
--- error_log
urlproxy: route rejected: the key is neither a hash nor a set, tool="string"
urlproxy: route rejected: the key is neither a hash nor a set, tool="list"
urlproxy: route rejected: the key is neither a hash nor a set, tool="sorted"
urlproxy: route rejected: the key is neither a hash nor a set, tool="stream"



=== keys with an invalid tool name
--- redis eval
[ map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 'x' x 256, "a/b", "a\nb", "\xff", 'hello' ]
--- requests eval
<<"ROWS"
/${\('x' x 256)}/  503  -
/a/b               503  -
/a%2fb             503  -
/a%0ab/            503  -
/%ff/              503  -
/hello/            200  a
ROWS
--- error_log
urlproxy: route rejected: tool name has 256 bytes, expected at most 255, tool="xxx
urlproxy: route rejected: tool name "a/b" contains '/', expected no slash and no control character, tool="a/b"
urlproxy: route rejected: tool name "a\nb" contains '\n', expected no slash and no control character, tool="a\nb"
is not UTF-8, tool="\xff"



=== the last of 33 patterns is rejected
--- redis eval
[ ['HSET', 'prefix:hello', map { ('/' . 'x' x $_ . '$' => "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 33],
  ['HSET', 'prefix:full', map { ('/' . 'x' x $_ . '$' => "http://$ENV{TEST_NGINX_TOOL_B}") } 1 .. 32] ]
--- requests eval
<<"ROWS"
/hello/${\('x' x 33)}  200  a
/hello/xx              200  a
/hello/x               503  -
/full/x                200  b
/full/${\('x' x 32)}   200  b
ROWS
--- error_log
urlproxy: route rejected: the tool has 33 patterns, expected at most 32; those tried last are rejected, tool="hello"



=== a tool at all limits fits a large zone
--- table
zone 128m;
--- redis eval
[ ['HSET', 'prefix:' . 'p' x 255, map { ('^/' . 'x' x 1015 . sprintf('%02d[0-9]', $_), "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 32],
  ['SADD', 'prefix:' . 'b' x 255, "http://$ENV{TEST_NGINX_TOOL_B}",
    map { sprintf 'https://%s:65535', substr "b$_." . ('x' x 60 . '.') x 4, 0, 250 } 1 .. 63] ]
--- requests eval
<<"ROWS"
/${\('p' x 255)}/${\('x' x 1015)}329  200  a
/${\('p' x 255)}/${\('x' x 1015)}019  200  a
/${\('p' x 255)}/${\('x' x 1015)}339  503  -
ROWS
--- request
GET /list
--- error_code: 200
--- response_body_like: bbbb
--- no_error_log
route rejected
[alert]



=== a small zone rejects the patterns tried last
--- redis eval
[ ['HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_A}", map { ('/' . '\.' x 500 . sprintf('%02d', $_), "http://$ENV{TEST_NGINX_TOOL_B}") } 1 .. 31] ]
--- requests eval
<<"ROWS"
/hello/${\('.' x 500)}01  200  b
/hello/${\('.' x 500)}06  200  b
/hello/${\('.' x 500)}07  200  a
/hello/                    200  a
ROWS
--- error_log
urlproxy: route rejected: the routes exceed their share of the table, 



=== one of 65 backends is rejected
--- redis eval
[ ['SADD', 'prefix:hello', (map { "http://127.0.0.$_:1" } 2 .. 66)] ]
--- location
add_header X-Addr $upstream_addr always;
--- perl
my %asked = map { $_ => 1 } split /, /, ask('GET /hello/')->{headers}{'x-addr'};
is(scalar keys %asked, 64, '64 backends get requests');
--- error_log
urlproxy: route rejected: there are 65 backends, expected at most 64, tool="hello"



=== changes while nginx runs are rejected and accepted
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
redis('HSET', 'prefix:hello', '/x', 'nonsense');
redis('SET', 'prefix:other', 'nonsense');
redis('HSET', 'prefix:last', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /last/')->{status} == 200 }, 'later changes take effect');
is(ask('GET /hello/x')->{headers}{'x-tool'}, 'a', 'invalid data changes nothing');
redis('HSET', 'prefix:hello', '/x', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/x')->{headers}{'x-tool'} eq 'b' }, 'corrected data takes effect');
redis('HSET', 'prefix:hello', '/x', 'nonsense');
ok(eventually { ask('GET /hello/x')->{headers}{'x-tool'} eq 'a' }, 'a route made invalid is withdrawn');
redis('DEL', 'prefix:other');
redis('HSET', 'prefix:other', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /other/')->{status} == 200 }, 'a key of a wrong type is corrected');
--- error_log
urlproxy: route rejected: backend "nonsense" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/x"
urlproxy: route rejected: the key is neither a hash nor a set, tool="other"



=== the log limits the number of rejections
--- redis eval
[ ['HSET', 'prefix:hello', map { (('/' . $_ . '(') => "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 30] ]
--- error_log
urlproxy: route rejected: 10 more
