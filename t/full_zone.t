# A full zone: tools that fit are served; the others are rejected with the reason.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== routes that do not fit at start are rejected
--- table
zone 256k;
--- redis eval
[ map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 4000 ]
--- perl
use JSON::PP;
my @listed = sort keys %{ decode_json(ask('GET /list')->{body}) };
cmp_ok(@listed, '>', 200, @listed . ' tools fit');
cmp_ok(@listed, '<', 4000);
is(ask("GET /$_/")->{status}, 200, $_) for @listed[0, $#listed / 2, $#listed];
my %is_listed = map { $_ => 1 } @listed;
my ($missing) = grep { !$is_listed{$_} } map { "tool-$_" } 1 .. 4000;
is(ask("GET /$missing/")->{status}, 503, $missing);
redis('HSET', "prefix:$listed[0]", '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask("GET /$listed[0]/")->{headers}{'x-tool'} eq 'b' }, 'a served tool can move');
redis('DEL', map { "prefix:$_" } @listed);
ok(eventually { ask("GET /$listed[0]/")->{status} == 503 }, 'a served tool can be withdrawn');
redis('HSET', "prefix:$missing", '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask("GET /$missing/")->{status} == 200 }, 'its space is reused');
--- error_log
urlproxy: route rejected: 



=== tools at their share leave room for others
--- table
zone 1m;
--- redis eval
[ (map { my $n = $_; ['HSET', "prefix:hostile-$n", map { ('/' . '\.' x 500 . "$n-$_", "http://$ENV{TEST_NGINX_TOOL_B}") } 1 .. 32] } 1 .. 100),
  (map { ['HSET', "prefix:honest-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 2000) ]
--- perl
use JSON::PP;
ok(eventually { (grep { /^hostile/ } keys %{ decode_json(ask('GET /list')->{body}) }) == 100 }, 'all costly tools are served');
is((grep { /^honest/ } keys %{ decode_json(ask('GET /list')->{body}) }), 2000, 'all other tools are served');
is(ask("GET /honest-$_/")->{headers}{'x-tool'}, 'a', "honest-$_") for 1, 1000, 2000;
redis('HSET', 'prefix:honest-7', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /honest-7/')->{headers}{'x-tool'} eq 'c' }, 'other tools can move');
--- error_log
urlproxy: route rejected: the routes exceed their share of the table, 4096 bytes in this zone; those tried last are rejected, tool="hostile-
--- no_error_log
the table is full



=== a change that does not fit is rejected
--- table
zone 256k;
--- redis eval
[ map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 5 ]
--- perl
sub grow { redis('HSET', "prefix:$_[0]", map { ('/' . 'x' x 900 . $_, "http://$ENV{TEST_NGINX_TOOL_B}") } 1 .. 4) }
# From now on the first to grow get the space.
ok(change_routes(), 'changes are followed');
grow("big-$_") for 1 .. 60;
redis('HSET', 'prefix:1', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /1/')->{headers}{'x-tool'} eq 'c' }, 'a small change of an existing tool fits');
my $grown = 0;
for (1 .. 5) {
    grow($_);
    redis('HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
    ok(eventually { (ask("GET /$_/")->{headers}{'x-tool'} // 'none') =~ /^(b|none)$/ }, "tool $_ is not where it was");
    $grown++ if (ask("GET /$_/")->{status} == 200);
}
cmp_ok($grown, '>', 0, 'the reserve serves existing tools');
cmp_ok($grown, '<', 5, 'the reserve is limited');
is(ask('GET /5/')->{status}, 503, 'the last tool has no route');
redis('DEL', 'prefix:big-1', 'prefix:big-2', 'prefix:big-3');
ok(eventually { (ask('GET /5/')->{headers}{'x-tool'} // '') eq 'b' }, 'it is served when there is space again');
--- error_log
urlproxy: route rejected: the table is full; enlarge its zone, tool="big-
urlproxy: route rejected: the table is full; enlarge its zone, tool="5"
