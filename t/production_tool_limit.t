# A tool has 200 open requests at most, a domain too. Beyond that its clients get 503 with Retry-After, and other tools answer.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
route(calm => tool('10.0.0.2'));
route('calm.example.net' => tool('10.0.0.2'));
my $busy = serve('10.0.0.3', 8000);
route(busy => '10.0.0.3:8000');
route('*.busy.example.net' => '10.0.0.3:8000');

# Opens more requests than the limit at once; their statuses come in the order of the answers.
sub limits {
    my ($calm, $name, $count, @urls) = @_;
    my $asked = $count + 7;
    # Standard error is not buffered: each status comes at once.
    open my $statuses, '-|', 'sh', '-c', 'exec curl "$@" 2>&1', 'curl', qw(-Z --no-progress-meter --parallel-max 300 --parallel-immediate),
        qw(--max-time 60 --cacert /tmp/production/ca.pem --connect-to ::127.0.0.1: -w), '%{stderr}%{http_code}\n',
        map { ('-o', '/dev/null', $urls[$_ % @urls]) } 1 .. $asked or die "curl: $!\n";
    my @held;
    my $select = IO::Select->new($busy);
    while (@held < $count) {
        $select->can_read(60) or last;
        push @held, scalar $busy->accept;
    }
    is(scalar @held, $count, "$name: $count requests reach it");
    chomp(my @first = map { scalar <$statuses> } 1 .. 7);
    is("@first", "@{[(503) x 7]}", 'the others get 503');
    my $answer = fetch($urls[0]);
    is($answer->{status}, 503, 'one more too');
    is($answer->{headers}{'retry-after'}, 1, 'with Retry-After');
    like($answer->{body}, qr/Too busy|too many requests/i, 'and a page that says why');
    is(fetch($calm)->{status}, 200, "$calm answers");
    unlike(fetch('https://tools.example.org/' . 'no' x 200)->{body}, qr/Too busy/, 'a miss is no open request');
    ok(!$select->can_read(0), 'no further request has reached it');
    for my $socket (@held) {
        print $socket "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        close $socket;
    }
    chomp(my @rest = <$statuses>);
    is(scalar(grep { $_ == 200 } @rest), $count, 'those within the limit are answered');
}
# One limit for both hosts of the tool.
limits('https://tools.example.org/calm/', 'a tool', 200, 'https://tools.example.org/busy/', 'https://busy.toolforge.org/');
# One limit for all hosts of a wildcard.
limits('https://calm.example.net/', 'a domain', 200, 'https://a.busy.example.net/', 'https://b.busy.example.net/');
unlike(error_log(), qr/more than 255 bytes/, 'no name is too long to count');
unlike(error_log(), qr/\[error\].*limiting/, 'a busy tool does not fill the log with errors');
done_testing();
