# The cost of a match grows only with the path, also for patterns that trouble other engines. All patterns here are accepted:
# a rejected one would prove nothing.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# CPU seconds of the only worker, independent of the load of the machine.
sub worker_seconds {
    my ($worker) = worker_pids();
    open my $file, '<', "/proc/$worker/stat" or die "stat: $!\n";
    my @fields = split ' ', <$file> =~ s/^.*\) //r;
    return ($fields[11] + $fields[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

use POSIX ();
run_tests;

__DATA__

=== patterns that trouble other engines match the longest path
--- redis eval
[ map { ['HSET', "prefix:$_->[0]", $_->[1], "http://$ENV{TEST_NGINX_TOOL_A}"] }
    [nested => '^/(a+)+$'], [same => '^/(a|a)*$'], [overlap => '^/(a|aa)+$'], [dots => '(.*a){6}b'], [window => '[ab]*a[ab]{3}c'] ]
--- perl
my $long = 'a' x 8000;
my %end  = (nested => '', same => '', overlap => '', dots => 'b', window => 'bbbc');
for my $tool (sort keys %end) {
    is(ask("GET /$tool/$long$end{$tool}")->{headers}{'x-tool'}, 'a', "$tool: found at the end");
    is(ask("GET /$tool/$long!")->{status}, 503, "$tool: found nowhere");
}
--- no_error_log
route rejected
[alert]
[emerg]
panic



=== a hundred of the longest matches take less than a CPU second
--- redis eval
[ ['HSET', 'prefix:hello', (map { ($_ => "http://$ENV{TEST_NGINX_TOOL_A}") }
    '^/(a+)+x$', '^/(a|a)*y$', '^/(a|aa)+z$', '[ab]*a[ab]{3}c')] ]
--- perl
my $long = 'a' x 8000;
is(ask("GET /hello/$long$_")->{headers}{'x-tool'}, 'a', "ends with $_: the pattern is in use") for qw(x y z bbbc);
my $before = worker_seconds();
my @got    = map { ask("GET /hello/$long!")->{status} } 1 .. 100;
my $taken  = worker_seconds() - $before;
is("@got", join(' ', (503) x 100));
cmp_ok($taken, '<', 1, 'seconds of processor time');
--- no_error_log
route rejected
[alert]
[emerg]
panic
