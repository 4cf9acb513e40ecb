# After a worker is killed, its successor serves the same routes and follows Redis.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== a worker killed while idle or during changes is replaced
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for my $round (1 .. 3) {
    my ($worker) = worker_pids();
    redis('HSET', "prefix:tool-$round-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}") for 1 .. 50;
    kill 'KILL', $worker;
    ok(eventually { my ($now) = worker_pids(); defined $now && $now != $worker }, "round $round: there is a new one");
    is(ask('GET /hello/')->{status}, 200, "round $round: with the route");
    ok(eventually { ask("GET /tool-$round-50/")->{status} == 200 }, "round $round: with the change");
    redis('HSET', 'prefix:hello', '.*', "http://$ENV{'TEST_NGINX_TOOL_' . ($round % 2 ? 'B' : 'A')}");
    ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq ($round % 2 ? 'b' : 'a') }, "round $round: and follows");
}
--- error_log
[alert]
exited on signal 9
--- no_error_log
panic
