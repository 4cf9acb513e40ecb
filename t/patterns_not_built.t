# A tool with patterns still being compiled is not a miss: clients get 503 with Retry-After.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== requests at start wait for the compiled patterns
--- table
zone 64m;
--- location
urlproxy_default admin;
--- redis eval
[ ['HSET', 'prefix:admin', '.*', "http://$ENV{TEST_NGINX_TOOL_C}"],
  map { my $n = $_; ['HSET', "prefix:heavy-$n", map { ("/$n-$_\[ab]*a[ab]{8}\$", "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 3] } 1 .. 150 ]
--- perl
my %seen;
for my $n (reverse 1 .. 150) {
    my $answered = eventually {
        my $answer = ask("GET /heavy-$n/$n-3aaaaaaaaa");
        my $result = join ' ', $answer->{status}, $answer->{headers}{'x-urlproxy-result'}, $answer->{headers}{'retry-after'} // '';
        $seen{$result}++;
        $answer->{status} == 200;
    };
    ok($answered, "heavy-$n");
}
my @others = grep { $_ ne '200 route ' && $_ ne '503 unready 1' } keys %seen;
is("@others", '', 'no miss and no default');
ok($seen{'503 unready 1'}, 'some requests had to wait');
