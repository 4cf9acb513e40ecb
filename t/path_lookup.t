# The first segment of the path names the tool; what follows goes to the backend as the client sent it.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the first segment names the tool
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- requests
/hello/      200  a  result=route tool=hello pattern=.* scheme=http backend=http://$TEST_NGINX_TOOL_A
/hello/x/y   200  a  tool=hello
/other/      200  b  result=route tool=other pattern=.* scheme=http backend=http://$TEST_NGINX_TOOL_B
/hell/       503  -  result=miss tool=hell pattern= scheme= backend=
/hello2/     503  -  tool=hello2
/Hello/      503  -  tool=Hello
/x/hello/    503  -  tool=x
/            503  -  tool=



=== the path / selects the tool with the empty name
--- redis
HSET prefix: .* http://$TEST_NGINX_TOOL_A
--- requests
/       200  a  result=route tool= sees=/
/?x=1   200  a  sees=/?x=1
/x      503  -  tool=x



=== any path segment can be a tool name
--- redis eval
[ map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] }
    'with space', "w\xc3\xaeki", '100%', 'a?b', 'a#b', '..', '.', 'a.b-c_d~e', '"', 'x' x 255 ]
--- requests eval
<<"ROWS"
/with%20space/  200  a  sees=/with%20space/
/w%C3%AEki/x    200  a  sees=/w%C3%AEki/x
/w%c3%aeki/x    200  a  sees=/w%c3%aeki/x
/100%25/        200  a
/a%3Fb/         200  a
/a%23b/         200  a
/a.b-c_d~e/     200  a
/%22/           200  a
/${\('x' x 255)}/  200  a
/${\('x' x 256)}/  503  -
/${\('x' x 254)}/  503  -
ROWS



=== the query is preserved and not matched
--- redis
HSET prefix:hello /api http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/?a=1&b=%2F     200  a  sees=/hello/?a=1&b=%2F
/hello/?/api          200  a  pattern=.*
/hello/api?x=/../..   200  b  sees=/hello/api?x=/../..
/hello/?              200  a  sees=/hello/?
/?/hello/             503  -



=== the lookup uses the decoded path, the backend gets the URI as sent
--- redis eval
[ ['HSET', 'prefix:hello', '^/a b$', "http://$ENV{TEST_NGINX_TOOL_C}", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"],
  ['HSET', 'prefix:other', "^/caf\xc3\xa9\$", "http://$ENV{TEST_NGINX_TOOL_B}"] ]
--- requests
/%68ello/x            200  a  tool=hello sees=/%68ello/x
/hello/a%20b          200  c  sees=/hello/a%20b
/hello/a+b            200  a  sees=/hello/a+b
/hello/%61%2f%2F%3f   200  a  sees=/hello/%61%2f%2F%3f
/other/%63af%c3%a9    200  b  sees=/other/%63af%c3%a9
/other/caf            503  -
/hello/~!$'()*,;=:@&  200  a  sees=/hello/~!$'()*,;=:@&
/hello/"{}|\^[]       200  a  sees=/hello/"{}|\^[]



=== an absolute URI is routed
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $answer = ask('GET http://tools.example.org/hello/x%2Fy?z');
is($answer->{status}, 200);
like($answer->{body}, qr{^uri: /hello/x%2Fy\?z$}m);



=== tables are independent
--- http
urlproxy_table others { redis redis://127.0.0.1:$TEST_NGINX_REDIS_PORT/1; }
--- server
location /second { urlproxy others path; proxy_pass http://tools; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SELECT 1
HSET prefix:second .* http://$TEST_NGINX_TOOL_B
SELECT 0
--- requests
/hello/   200  a
/second/  200  b
--- perl
redis(qw(SELECT 1)), redis(qw(HDEL prefix:second .*)), redis(qw(SELECT 0));
ok(eventually { ask('GET /second/')->{status} == 503 }, 'withdrawn from the second table');
is(ask('GET /hello/')->{status}, 200, 'the first table is unchanged');
