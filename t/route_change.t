# Changes in Redis take effect at once: writes, renames, expiry, and many at a time.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== every kind of change is followed
--- perl
my $is = sub { my ($path, $want) = @_; ok(eventually { my $answer = ask("GET $path"); ($answer->{headers}{'x-tool'} // $answer->{status}) eq $want }, "$path: $want") };
my %tool = map { $_ => "http://$ENV{'TEST_NGINX_TOOL_' . uc $_}" } qw(a b c);
$is->('/hello/', 503);
redis('HSET', 'prefix:hello', '.*', $tool{a});
$is->('/hello/', 'a');
redis('HSET', 'prefix:hello', '.*', $tool{b});
$is->('/hello/', 'b');
redis('HSET', 'prefix:hello', '/api', $tool{c});
$is->('/hello/api', 'c');
redis('HDEL', 'prefix:hello', '/api');
$is->('/hello/api', 'b');
redis('RENAME', 'prefix:hello', 'prefix:other');
$is->('/other/', 'b');
$is->('/hello/', 503);
redis('COPY', 'prefix:other', 'prefix:hello');
$is->('/hello/', 'b');
redis('DEL', 'prefix:hello');
$is->('/hello/', 503);
redis('SADD', 'prefix:hello', $tool{a});
$is->('/hello/', 'a');
redis('PEXPIRE', 'prefix:hello', 50);
$is->('/hello/', 503);
redis('MULTI'), redis('DEL', 'prefix:other'), redis('HSET', 'prefix:third', '.*', $tool{c}), redis('EXEC');
$is->('/third/', 'c');
$is->('/other/', 503);



=== changes take effect long before the next resync
--- table
resync_interval 1h;
--- perl
use Time::HiRes;
my $client = to_nginx();
my $status = sub { send_bytes($client, "GET /hello/ HTTP/1.1\r\nHost: localhost\r\n\r\n"); answer($client)->{status} };
my $slowest = 0;
for my $round (1 .. 20) {
    for (['HSET', 200], ['DEL', 503]) {
        my ($command, $want) = @$_;
        redis($command, 'prefix:hello', $command eq 'HSET' ? ('.*', "http://$ENV{TEST_NGINX_TOOL_A}") : ());
        my $begin = Time::HiRes::time();
        ok(eventually { $status->() == $want }, "round $round: $command");
        my $taken = Time::HiRes::time() - $begin;
        $slowest = $taken if $taken > $slowest;
    }
}
Test::More::note(sprintf 'the slowest of 40 changes was served after %.0f ms', $slowest * 1000);



=== requests succeed while a thousand routes change
--- redis
HSET prefix:steady .* http://$TEST_NGINX_TOOL_A
--- perl
my $wrong = 0;
for my $round (1 .. 50) {
    redis('HSET', "prefix:tool-$_", '.*', "http://127.0.0.1:$round") for 1 .. 20;
    redis('DEL', map { "prefix:tool-$_" } 1 .. 10);
    $wrong++ unless ask('GET /steady/')->{status} == 200;
}
is($wrong, 0);
ok(eventually { ask('GET /list')->{body} =~ /"tool-20"/ && ask('GET /list')->{body} !~ /"tool-10"/ });
redis('RENAME', 'prefix:tool-20', 'prefix:last');
ok(eventually { ask('GET /list')->{body} =~ /"last"/ && ask('GET /list')->{body} !~ /"tool-20"/ }, 'all changes take effect');
