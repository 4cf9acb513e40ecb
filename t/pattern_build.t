# The companion compiles patterns once: they do not slow down requests of the tool or of others.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== requests to tools with costly patterns are fast
--- table
zone 128m;
--- redis eval
[ (map { my $tool = $_; ['HSET', "prefix:t$tool", map { ("x$_" . "[ab]*a[ab]{4}$tool\$" => "http://$ENV{TEST_NGINX_TOOL_A}") } 10 .. 41] } 1 .. 4),
  (map { my $tool = $_; ['HSET', "prefix:u$tool", map { ("x$_" . "[ab]*a[ab]{11}$tool\$" => "http://$ENV{TEST_NGINX_TOOL_A}") } 10 .. 41] } 1 .. 4),
  ['HSET', 'prefix:honest', '.*', "http://$ENV{TEST_NGINX_TOOL_B}"] ]
--- perl
sub worker_seconds {
    my $ticks = 0;
    for my $pid (worker_pids()) {
        open my $stat, '<', "/proc/$pid/task/$pid/stat" or next;
        my @fields = split ' ', (split /\) /, <$stat>)[1];
        $ticks += $fields[11] + $fields[12];
    }
    return $ticks / 100;
}
for my $tool (1 .. 4) {
    ok(eventually { ask("GET /t$tool/x10aaaaa$tool")->{status} == 200 }, "t$tool is built");
}
my $begin = worker_seconds();
my @wrong;
for my $n (1 .. 100) {
    my ($tool, $pattern) = (1 + $n % 4, 10 + $n % 32);
    push @wrong, "t$tool" if ask("GET /t$tool/x${pattern}aaaaa$tool")->{status} != 200 || ask("GET /t$tool/x${pattern}abbb$tool")->{status} != 503;
    ask("GET /u$tool/x${pattern}abbbbbbbbbbb$tool");
    push @wrong, 'honest' if (ask('GET /honest/')->{headers}{'x-tool'} // '') ne 'b';
}
is("@wrong", '', 'all are answered by the right pattern');
# Without compiled patterns, each request to such a tool took 0.2 s.
cmp_ok(worker_seconds() - $begin, '<', 10, "seconds of the worker's own thread");
--- error_log
needs too many states, expected at most



=== a tool that changes its backend keeps its patterns
--- table
zone 128m;
--- redis eval
[ ['HSET', 'prefix:hello', (map { ("x$_" . '[ab]*a[ab]{4}$' => "http://$ENV{TEST_NGINX_TOOL_A}") } 10 .. 41), '[0-9]{1000}{1000}', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- perl
ok(eventually { (ask('GET /hello/x10aaaaa')->{headers}{'x-tool'} // '') eq 'a' }, 'built');
redis('HSET', 'prefix:hello', map { ("x$_" . '[ab]*a[ab]{4}$' => "http://$ENV{TEST_NGINX_TOOL_B}") } 10 .. 41);
ok(eventually { (ask('GET /hello/x41aaaaa')->{headers}{'x-tool'} // '') eq 'b' }, 'moved');
is(ask('GET /hello/x42aaaaa')->{status}, 503);
redis('DEL', 'prefix:hello');
ok(eventually { ask('GET /hello/x10aaaaa')->{status} == 503 }, 'gone');
