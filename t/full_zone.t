# More tools than fit the zone: those that are in are served, the others are set aside with the reason.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== full from the start
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
ok(eventually { ask("GET /$listed[0]/")->{headers}{'x-tool'} eq 'b' }, 'one that is in can still move');
redis('DEL', map { "prefix:$_" } @listed);
ok(eventually { ask("GET /$listed[0]/")->{status} == 503 }, 'and go');
redis('HSET', "prefix:$missing", '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask("GET /$missing/")->{status} == 200 }, 'which makes room');
--- error_log
urlproxy: route set aside: the table is full
