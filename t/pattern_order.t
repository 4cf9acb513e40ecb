# Of several matching patterns, the one with the longest literal text wins.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== longest literal text first, catch-all patterns last
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A / http://$TEST_NGINX_TOOL_A /api http://$TEST_NGINX_TOOL_B /api/v2 http://$TEST_NGINX_TOOL_C
--- requests
/hello/             200  a
/hello/x            200  a  pattern=.*
/hello/api          200  b  pattern=/api
/hello/api/v1       200  b
/hello/api/v2/x     200  c  pattern=/api/v2
/hello/x/api/v2     200  c



=== literal text counts, not the length or kind of the pattern
--- redis
HSET prefix:hello ^/[a-z]+[0-9]*[a-z]*$ http://$TEST_NGINX_TOOL_A /ab http://$TEST_NGINX_TOOL_B ^/abc http://$TEST_NGINX_TOOL_C
HSET prefix:either /abcdef|/a http://$TEST_NGINX_TOOL_A /ab http://$TEST_NGINX_TOOL_B
HSET prefix:repeat /(abc)+ http://$TEST_NGINX_TOOL_A /ab http://$TEST_NGINX_TOOL_B
HSET prefix:optional /a(bcd)? http://$TEST_NGINX_TOOL_A /ab http://$TEST_NGINX_TOOL_B
--- requests
/hello/abcd       200  c  pattern=^/abc
/hello/abd        200  b  pattern=/ab
/hello/xyz        200  a  pattern=^/[a-z]+[0-9]*[a-z]*$
/either/abcdef    200  b
/either/a         200  a
/repeat/abc       200  a
/optional/abcd    200  b



=== byte order decides equal lengths
--- redis
HSET prefix:hello b http://$TEST_NGINX_TOOL_B a http://$TEST_NGINX_TOOL_A B http://$TEST_NGINX_TOOL_C
HSET prefix:many ^/x http://$TEST_NGINX_TOOL_B /x http://$TEST_NGINX_TOOL_A
--- requests
/hello/ab    200  a
/hello/abB   200  c
/hello/b     200  b
/many/x      200  a  pattern=/x



=== byte order decides among catch-all patterns
--- redis
HSET prefix:hello ^/ http://$TEST_NGINX_TOOL_C .* http://$TEST_NGINX_TOOL_B / http://$TEST_NGINX_TOOL_A [a-z] http://$TEST_NGINX_TOOL_A
HSET prefix:empty / http://$TEST_NGINX_TOOL_A .* http://$TEST_NGINX_TOOL_A (.*) http://$TEST_NGINX_TOOL_B
--- requests
/hello/1   200  b  pattern=.*
/hello/x   200  a  pattern=[a-z]
/empty/    200  b  pattern=(.*)



=== the order of registration does not matter
--- redis
HSET prefix:hello /api/v2 http://$TEST_NGINX_TOOL_C
HSET prefix:hello /api http://$TEST_NGINX_TOOL_B
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/api/v2  200  c
/hello/api     200  b
/hello/        200  a
--- perl
redis('HDEL', 'prefix:hello', '/api/v2');
ok(eventually { ask('GET /hello/api/v2')->{headers}{'x-tool'} eq 'b' }, 'the next longest pattern wins');
redis('HSET', 'prefix:hello', '/api/v2', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /hello/api/v2')->{headers}{'x-tool'} eq 'c' }, 'restored');
