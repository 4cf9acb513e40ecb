# nginx as one process, master_process off: the companion and the event loop share it.
use lib 't/lib';
use UrlproxyTest 'no_plan';

master_off();
run_tests;

__DATA__

=== a single process routes and follows changes
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/   200  a
/unknown/  503  -
--- perl
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' });
# The companion's first scan may find the first change, but not the second.
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'c' });
is(scalar(() = worker_pids()), 0, 'there are no workers');

