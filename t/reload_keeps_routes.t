# nginx -s reload fails no request, loses no route, and leaves one companion.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== a reload under load
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $failed = 0;
for my $round (1 .. 5) {
    my @before = worker_pids();
    kill 'HUP', nginx_pid();
    my $is_new = eventually {
        $failed++ unless ask('GET /hello/')->{status} == 200;
        my @now = worker_pids();
        @now == 1 && $now[0] != $before[0];
    };
    ok($is_new, "round $round: the old worker is gone, the new one serves");
}
is($failed, 0, 'requests that failed');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' }, 'changes are followed');
my $own = redis('CLIENT', 'ID');
ok(eventually { 1 == grep { !/^id=$own / } split /\n/, redis('CLIENT', 'LIST') }, 'through one connection to Redis');



=== a reload with another zone size
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $conf = server_root() . '/conf/nginx.conf';
my $text = do { local (@ARGV, $/) = $conf; <> };
my $failed = 0;
for my $size ('1m', '32m') {
    my @before = worker_pids();
    open my $file, '>', $conf or die;
    (my $changed = $text) =~ s/urlproxy_table tools \{/$&\n zone $size;/ or die 'no table';
    print $file $changed;
    close $file;
    kill 'HUP', nginx_pid();
    my $is_new = eventually {
        $failed++ unless ask('GET /hello/')->{status} == 200;
        my @now = worker_pids();
        @now == 1 && $now[0] != $before[0];
    };
    ok($is_new, $size);
}
is($failed, 0, 'requests that failed');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' }, 'changes are followed');
is(scalar(() = error_log() =~ /routes carried over to the new zone, table=tools tools=1\b/g), 2, 'each time into a new zone');



=== a refused reload changes nothing
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $conf = server_root() . '/conf/nginx.conf';
my @workers = worker_pids();
my $text = do { local (@ARGV, $/) = $conf; <> };
open my $file, '>', $conf or die;
print $file $text =~ s/urlproxy_table tools \{/$&\n zone 8k;/r;
close $file;
kill 'HUP', nginx_pid();
ok(eventually { error_log() =~ /invalid size/ }, 'refused');
is("@{[worker_pids()]}", "@workers", 'the same worker');
is(ask('GET /hello/')->{status}, 200);
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' }, 'changes are followed');
--- error_log
[emerg]
"zone" invalid size (at least 256k) "8k", expected e.g. "16m"
--- no_error_log
[alert]
panic
