# A client that asks faster than the limit and its burst gets 429 with Retry-After. Other clients are not affected, and networks of
# the list have no limit. The hosts of one IPv6 network are one client.
use lib 't/lib';
use Production;

# A listener for both families sees IPv4 clients as ::ffff:192.0.2.7.
system(qw(ip -6 route add local 64:ff9b::/96 dev lo)) == 0 or die 'no route';
write_file('/etc/nginx/conf.d/both.conf', <<'CONF');
server { listen [::]:8090 ipv6only=off; location / { return 200 "$urlproxy_client"; } }
CONF
site('urlproxy', 'domainproxy');
my %client = map { $_ => fetch('http://tools.example.org:8090/', from => $_)->{body} } '192.0.2.7', '192.0.2.8', '2001:db8:0:1::1', '2001:db8:0:1::2', '64:ff9b::192.0.2.7', '64:ff9b::192.0.2.8';
isnt($client{'192.0.2.7'}, $client{'192.0.2.8'}, 'mapped IPv4 addresses are different clients');
isnt($client{'64:ff9b::192.0.2.7'}, $client{'64:ff9b::192.0.2.8'}, 'translated ones too');
is($client{'2001:db8:0:1::1'}, $client{'2001:db8:0:1::2'}, 'the addresses of an IPv6 network are one');
route(hello => tool('10.0.0.2'));
route('one.example.net' => tool('10.0.0.3'));
my $url = 'https://tools.example.org/none/';
my $limited = sub { my ($from, $count, $at) = @_; return statuses($at // $url, $count, '--interface', $from)->{429} // 0 };

# A client that floods until the code has returned.
sub while_flooding {
    my ($from, $code) = @_;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        statuses($url, 1000, '--interface', $from) while 1;
    }
    my $result = $code->();
    kill 'TERM', $pid;
    waitpid $pid, 0;
    return $result;
}
ok(eventually(sub { $limited->('192.0.2.7', 2000) }), 'a client is limited');
# Fewer than the burst can be limited only if somebody else counts with them.
while_flooding('192.0.2.7', sub {
    ok(eventually(sub { $limited->('192.0.2.7', 50) }), 'on all of its connections');
    is($limited->('192.0.2.8', 400), 0, 'another client is not');
    my $answer;
    ok(eventually(sub { ($answer = fetch('https://hello.toolforge.org/', from => '192.0.2.7'))->{status} == 429 }), 'for all tools together');
    like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'Retry-After');
    like($answer->{body}, qr/Too many requests/, 'a page says so');
    ok(eventually(sub { fetch($url, from => '192.0.2.7', method => 'POST', body => 'x' x 100_000)->{status} == 429 }), 'POST');
    is(fetch('https://tools.example.org/.well-known/healthz', from => '192.0.2.7')->{status}, 200, 'healthz is not limited');
});
while_flooding('2001:db8:0:1::1', sub {
    ok(eventually(sub { $limited->('2001:db8:0:1:ffff::2', 50) }), 'the hosts of an IPv6 network share the limit');
    is($limited->('2001:db8:0:2::1', 400), 0, 'another network does not');
});
ok(eventually(sub { $limited->('192.0.2.9', 2000, 'https://none.example.net/') }), 'domains are limited too');
add_to('lists/unlimited-clients.conf', "192.0.2.0/24 platform;\n2001:db8:0:1::/64 platform;");
reload();
is($limited->($_, 3000), 0, "$_ is exempt") for '192.0.2.7', '2001:db8:0:1::1';
ok(eventually(sub { $limited->('198.51.100.7', 2000) }), 'others are not');
done_testing();
