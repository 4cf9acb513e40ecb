# An exiting worker closes its kept connections. A worker short of connections closes kept ones before it refuses requests.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

worker_connections(64);

run_tests;

__DATA__

=== a reload closes kept connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve_together(('GET /1/') x 3, 'GET /2/');
my $client = start_ask('GET /2/');
is(scalar arrived($client), '2.1', 'one is in use');
my ($former) = worker_pids();
kill 'HUP', nginx_pid();
connections_are('2.1', 'idle connections close while the old worker is still serving');
ok((grep { $_ == $former } worker_pids()), 'the old worker is running');
is(serve('GET /1/'), '1.4', 'the new worker opens its own connection');
respond('2.1');
is(finish($client, 'GET', 200)->{body}, 'ok', 'the request is answered');
connections_are('1.4', 'and its connection is not kept');
ok(eventually { !grep { $_ == $former } worker_pids() }, 'the old worker is gone');
is(serve('GET /1/'), '1.4');



=== repeated reloads fail no request
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_TOOL_A
HSET prefix:2 .* http://$TEST_NGINX_TOOL_B
--- perl
my $failed = 0;
for my $round (1 .. 5) {
    my @before = worker_pids();
    kill 'HUP', nginx_pid();
    my $is_new = eventually {
        for my $line ('GET /1/', 'POST /1/', 'GET /2/', 'POST /2/') {
            $failed++ unless ask($line, body => 'x')->{status} == 200;
        }
        my @now = worker_pids();
        @now == 1 && $now[0] != $before[0];
    };
    ok($is_new, "round $round");
}
is($failed, 0, 'requests that failed');



=== a worker that quits closes kept connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $signal (qw(QUIT TERM)) {
    my @kept = serve_together(('GET /1/') x 3);
    my ($worker) = worker_pids();
    kill $signal, $worker;
    connections_are('', "$signal: all are closed");
    ok(eventually { my ($new) = worker_pids(); $new && $new != $worker }, 'a new worker starts');
    my $id = serve('GET /1/');
    ok(!(grep { $_ eq $id } @kept), "with its own connections, $id");
    close_as_backend('half', $id);
    connections_are('');
}



=== a killed worker leaves no connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 3);
my ($worker) = worker_pids();
kill 'KILL', $worker;
connections_are('');
ok(eventually { my ($new) = worker_pids(); $new && $new != $worker });
is(serve('GET /1/'), '1.4');
--- error_log
[alert]
exited on signal 9
--- no_error_log
panic



=== a worker short of connections closes kept ones
--- upstream
urlproxy_keepalive 1000 per_backend=100;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
--- perl
# Of 64 connections, a request takes two and a kept connection takes one.
serve_together(('GET /1/') x 20);
connections_are(join(' ', map { "1.$_" } 1 .. 20), 'twenty connections are kept');
is(scalar(() = serve_together(('GET /2/') x 22)), 22, 'requests that need these connections are answered');
my $left = () = open_connections() =~ /\b1\./g;
cmp_ok($left, '<', 20, "$left of the kept are left");
is(scalar(() = serve_together(('GET /3/') x 24)), 24, 'and again');
for my $tool (1, 2, 3) {
    for (1 .. 5) { serve("GET /$tool/") }
}
pass('all goes on');
--- no_error_log
[alert]
[emerg]
[crit]



=== the least recently used are closed first
--- upstream
urlproxy_keepalive 1000 per_backend=100;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
HSET prefix:3 .* http://$TEST_NGINX_PEER_3
--- perl
serve('GET /2/');
serve_together(('GET /1/') x 20);
is(serve('GET /2/'), '2.1', 'kept first, used last');
my @asked = serve_together(('GET /3/') x 20);
my %is_left = map { $_ => 1 } split / /, open_connections();
cmp_ok(scalar(grep { !$is_left{"1.$_"} } 1 .. 20), '>', 0, 'some connections are closed');
my ($first_left) = grep { $is_left{"1.$_"} } 1 .. 21;
ok(!(grep { !$is_left{"1.$_"} } $first_left .. 20), "the first of them, up to 1.$first_left");
ok($is_left{'2.1'}, 'the most recently used connection stays');
--- no_error_log
[alert]
[emerg]
[crit]



=== connections kept while idle are closed when requests need them
--- upstream
urlproxy_keepalive 1000;
--- redis eval
[ ['HSET', 'prefix:busy', '.*', "http://$ENV{TEST_NGINX_PEER_1}"],
  map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{TEST_NGINX_PEER_2}"] } 1 .. 50 ]
--- perl
# One more of 64 connections is kept each time, while only two are in use.
serve("GET /tool-$_/") for 1 .. 28;
connections_are(join(' ', map { "2.$_" } 1 .. 28), 'kept');
is(scalar(() = serve_together(('GET /busy/') x 24)), 24, 'requests that need these connections are answered');
serve("GET /tool-$_/") for 1 .. 50;
--- no_error_log
[alert]
[emerg]
[crit]



=== connections kept by another upstream are closed too
--- upstream
urlproxy_keepalive 1000;
--- http
upstream others { urlproxy_peers; urlproxy_keepalive 1000; }
--- server
location /busy/ { urlproxy tools path; proxy_pass http://others; proxy_http_version 1.1; proxy_set_header Connection ""; }
location /direct/ { proxy_pass http://$TEST_NGINX_PEER_1; }
--- redis eval
[ ['HSET', 'prefix:busy', '.*', "http://$ENV{TEST_NGINX_PEER_1}"],
  map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{TEST_NGINX_PEER_2}"] } 1 .. 28 ]
--- perl
for my $path ('/busy/', '/direct/') {
    serve("GET /tool-$_/") for 1 .. 28;
    connections_are(join(' ', map { "2.$_" } 1 .. 28), 'kept') if $path eq '/busy/';
    is(scalar(() = serve_together(("GET $path") x 24)), 24, "requests to $path are answered");
}
--- no_error_log
[alert]
[emerg]
[crit]
