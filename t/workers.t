# Several workers share routes and the health of backends.
use lib 't/lib';
use UrlproxyTest 'no_plan';

workers(4);
run_tests;

__DATA__

=== a change reaches all workers
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- location
add_header X-Worker $pid;
--- perl
my %workers;
ok(eventually { $workers{ ask('GET /hello/')->{headers}{'x-worker'} }++; keys %workers > 1 }, 'several workers answer');
# Enough connections to reach each worker: which worker accepts a connection is random.
my @clients = map { to_nginx() } 1 .. 40;
my $ask = sub { send_bytes($_[0], "GET /hello/ HTTP/1.1\r\nHost: localhost\r\n\r\n"); answer($_[0])->{headers}{'x-tool'} };
is(join('', map { $ask->($_) } @clients), 'a' x 40);
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { $ask->($clients[0]) eq 'b' }, 'the first worker sees the change');
is(join('', map { $ask->($_) } @clients), 'b' x 40, 'all workers see the change');



=== an unavailable backend is skipped by all workers
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream patient { urlproxy_peers fail_timeout=60s; }
--- pass: http://patient
--- location
add_header X-Worker $pid;
--- perl
# Each worker has its own turns: one of two requests would start with the failed backend.
my ($failed, $wrong, %asked) = (0, 0);
for (1 .. 400) {
    last if keys %asked == 4 && !grep { $_ < 2 } values %asked;
    my $client = start_ask('GET /hello/');
    if (next_backend($client)) {
        close accept_on('A');
        $failed++;
    }
    my $answer = answer($client);
    $wrong++ if ($answer->{headers}{'x-tool'} // '') ne 'a';
    $asked{ $answer->{headers}{'x-worker'} }++ if $failed;
}
is(scalar(grep { $_ >= 2 } values %asked), 4, 'each worker had two requests since the failure');
is($failed, 1, 'the failed backend was tried once');
is($wrong, 0, 'the other backend answered all');



=== one worker follows Redis
--- perl
my $own = redis('CLIENT', 'ID');
ok(eventually { 1 == grep { !/^id=$own / } split /\n/, redis('CLIENT', 'LIST') });
is(scalar(() = worker_pids()), 4);
