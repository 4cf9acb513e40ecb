# One client has 1000 open requests at most, at all tools or domains together, so that it cannot hold all connections of nginx.
# Beyond that it gets 503 with Retry-After; other clients are answered, and networks of the list have no limit.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $silent = serve('10.0.0.3', 8000);
my @held;
for my $n (1 .. 6) {
    route("busy$n" => '10.0.0.3:8000');
    route("busy$n.example.net" => '10.0.0.3:8000');
}
route(calm => tool('10.0.0.2'));
route('calm.example.net' => tool('10.0.0.2'));

# Opens 250 requests of a client at six tools or domains, and checks that `refused` of them get 503.
sub hold {
    my ($from, $refused, @urls) = @_;
    open my $statuses, '-|', 'sh', '-c', 'exec curl "$@" 2>&1', 'curl', qw(-Z --no-progress-meter --http2 --parallel-max 300 --max-time 120
        --cacert /run/production/ca.pem --connect-to ::127.0.0.1: -w), '%{stderr}%{http_code}\n', '--interface', $from,
        map { ('-o', '/dev/null', $urls[$_ % @urls]) } 1 .. 250 or die "curl: $!\n";
    my $select = IO::Select->new($silent);
    my $reached = 0;
    while ($reached < 250 - $refused && $select->can_read(60)) { push @held, scalar $silent->accept; $reached++ }
    is($reached, 250 - $refused, "$from: requests that reach a tool");
    my @first = map { scalar(<$statuses>) + 0 } 1 .. $refused;
    is("@first", "@{[(503) x $refused]}", 'the others get 503');
    return $statuses;
}

# The shipped limit, lowered: curl has at most 300 requests open.
for my $main ('urlproxy', 'domainproxy') {
    my $conf = slurp(conf_path($main));
    $conf =~ s/^( *limit_conn +\w+_clients +)1000;/${1}200;/mg or die "no limit in $main.conf";
    write_file(conf_path($main), $conf);
}
reload();
for (['https://tools.example.org/calm/', map { $_ % 2 ? "https://tools.example.org/busy$_/" : "https://busy$_.toolforge.org/" } 1 .. 6],
    ['https://calm.example.net/', map { "https://busy$_.example.net/" } 1 .. 6]) {
    my ($calm, @urls) = @$_;
    my $client = hold('192.0.2.7', 50, @urls);
    my $answer = fetch($calm, from => '192.0.2.7');
    is("$answer->{status} $answer->{headers}{'retry-after'}", '503 1', "$calm: not one more");
    like($answer->{body}, qr/Too busy/, 'a page says why');
    is(fetch('https://tools.example.org/.well-known/healthz', from => '192.0.2.7')->{status}, 200, 'healthz is not limited');
    is(fetch($calm, from => '192.0.2.8')->{status}, 200, 'another client is answered');
    close $_ for splice @held;
    my @rest = <$client>;
}
add_to('lists/unlimited-clients.conf', '192.0.2.9 platform;');
reload();
my $listed = hold('192.0.2.9', 0, map { "https://tools.example.org/busy$_/" } 1 .. 6);
is(fetch('https://tools.example.org/calm/', from => '192.0.2.9')->{status}, 200, 'a client of the list has no limit');
close $_ for splice @held;
unlike(error_log(), qr/\[error\].*limiting/, 'no errors in the log');
done_testing();
