# nginx as one process, master_process off: the companion and the event loop share it.
use lib 't/lib';
use UrlproxyTest 'no_plan';

master_off();
run_tests;

__DATA__

=== routes, and follows changes
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/   200  a
/nobody/  503  -
--- perl
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' });
# The first change may have been found by the companion's first comparison, the second is not.
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'c' });
is(scalar(() = worker_pids()), 0, 'it has no workers');

