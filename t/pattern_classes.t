# Each kind of pattern, matched against the path after the tool's name.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== patterns that match every path
--- redis eval
[ map { ['HSET', "prefix:$_->[0]", $_->[1], "http://$ENV{TEST_NGINX_TOOL_A}"] }
    [any => '.*'], [empty => ''], [start => '^'], [end => '$'], [slash => '/'], [all => '^/.*'], [group => '(.*)'] ]
--- requests
/any/x    200  a  pattern=.*
/empty/x  200  a  pattern=
/start/x  200  a  pattern=^
/end/x    200  a  pattern=$
/slash/x  200  a  pattern=/
/all/x    200  a  pattern=^/.*
/group/x  200  a  pattern=(.*)
/any      200  a
/empty    200  a



=== literal text anywhere
--- redis
HSET prefix:hello /api http://$TEST_NGINX_TOOL_A
HSET prefix:kube /p.* http://$TEST_NGINX_TOOL_B
HSET prefix:inner .*in.* http://$TEST_NGINX_TOOL_C
--- requests
/hello/api      200  a  pattern=/api
/hello/api2/x   200  a
/hello/v1/api/  200  a
/hello/Api      503  -
/hello/ap/i     503  -
/api/           503  -
/kube/p         200  b  pattern=/p.*
/kube/x/px      200  b
/kube/          503  -
/inner/bin/     200  c
/inner/         503  -



=== literal prefix
--- redis
HSET prefix:hello ^/api http://$TEST_NGINX_TOOL_A
HSET prefix:group ^/p(.*) http://$TEST_NGINX_TOOL_B
--- requests
/hello/api     200  a
/hello/apix    200  a
/hello/x/api   503  -
/hello/        503  -
/group/p       200  b
/group/x/p     503  -



=== literal suffix
--- redis
HSET prefix:hello \.php$ http://$TEST_NGINX_TOOL_A
HSET prefix:dir /$ http://$TEST_NGINX_TOOL_B
--- requests
/hello/x.php      200  a
/hello/x.php?y=z  200  a
/hello/.php       200  a
/hello/x.php/     503  -
/hello/xphp       503  -
/hello/x.php%0a   503  -
/dir/             200  b
/dir              200  b
/dir/x/           200  b
/dir/x            503  -



=== exact path
--- redis
HSET prefix:hello ^/a/b$ http://$TEST_NGINX_TOOL_A ^/$ http://$TEST_NGINX_TOOL_B
--- requests
/hello/a/b     200  a
/hello/a/b/    503  -
/hello/x/a/b   503  -
/hello/        200  b
/hello         200  b
/hello/a       503  -



=== regular expressions
--- redis
HSET prefix:hello ^/v[0-9]+/(users|groups)$ http://$TEST_NGINX_TOOL_A
HSET prefix:case (?i)^/api http://$TEST_NGINX_TOOL_B
HSET prefix:either /one|/two$ http://$TEST_NGINX_TOOL_C
HSET prefix:dot ^/a.c$ http://$TEST_NGINX_TOOL_A
HSET prefix:word \bfoo\b http://$TEST_NGINX_TOOL_B
HSET prefix:count ^/x{2,3}$ http://$TEST_NGINX_TOOL_C
HSET prefix:class ^/[^/]*$ http://$TEST_NGINX_TOOL_A
HSET prefix:space ^/\s\d$ http://$TEST_NGINX_TOOL_B
--- requests
/hello/v1/users     200  a  pattern=^/v[0-9]+/(users|groups)$
/hello/v22/groups   200  a
/hello/v/users      503  -
/hello/v1/users/    503  -
/case/API           200  b
/case/aPi/x         200  b
/case/x/api         503  -
/either/one/x       200  c
/either/x/two       200  c
/either/two/x       503  -
/dot/abc            200  a
/dot/ac             503  -
/dot/a%0ac          503  -
/dot/a%c3%a9c       503  -
/word/a-foo-b       200  b
/word/food          503  -
/count/x            503  -
/count/xxx          200  c
/count/xxxx         503  -
/class/%ff          200  a
/class/a/b          503  -
/space/%201         200  b
/space/11           503  -



=== the tool's name is not matched
--- redis
HSET prefix:hello hello http://$TEST_NGINX_TOOL_A
--- requests
/hello/       503  -
/hello/hello  200  a



=== more patterns than a worker keeps compiled
--- redis eval
[ map { my $tool = $_; ['HSET', "prefix:t$tool", map { ("^/$_-[0-9]+-$tool\$" => "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 30] } 1 .. 20 ]
--- perl
for my $round (1, 2) {
    my @wrong = grep { ask("GET /t$_/30-$round-$_")->{status} != 200 || ask("GET /t$_/30-x-$_")->{status} != 503 } 1 .. 20;
    is("@wrong", '', "round $round");
}
