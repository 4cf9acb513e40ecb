# Port 80 leads to https: 301 for GET and HEAD, 308 for what must keep its method and body. ACME challenges are served.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my %code = (GET => 301, HEAD => 301, POST => 308, PUT => 308, DELETE => 308, OPTIONS => 308, PROPFIND => 308);
for my $host ('tools.example.org', 'hello.toolforge.org', 'toolforge.org', 'project.wmcloud.org', 'unknown.example.net') {
    for my $method (sort keys %code) {
        my $answer = fetch("http://$host/a%2Fb/..?x=%0a&y", method => $method, $method =~ /^P/ ? (body => 'x' x 100_000) : ());
        is("$answer->{status} " . ($answer->{headers}{location} // ''), "$code{$method} https://$host/a%2Fb/..?x=%0a&y", "$method http://$host");
        ok(!exists $answer->{headers}{'strict-transport-security'}, 'no HSTS over http');
    }
}

# Sends raw bytes to port 80 and returns the status and Location.
sub raw {
    my ($request) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => 80) or die "nginx: $!\n";
    print $socket $request;
    my $text = do { local $/; <$socket> } // '';
    my ($status) = $text =~ m{^HTTP/1\.1 (\d+)};
    my ($location) = $text =~ /^Location: (.*)\r$/m;
    return join ' ', $status // 'none', $location // '';
}
is(raw("GET /x HTTP/1.1\r\nHost: Tools.Example.Org:8080\r\nConnection: close\r\n\r\n"), '301 https://tools.example.org/x', 'host without port, in lower case');
is(raw("GET http://hello.toolforge.org/x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"), '301 https://hello.toolforge.org/x', 'absolute form');
is(raw("GET //evil.example/x HTTP/1.1\r\nHost: tools.example.org\r\nConnection: close\r\n\r\n"), '301 https://tools.example.org//evil.example/x', 'two slashes');
like(raw("GET /x HTTP/1.1\r\nHost: evil.example/\@tools.example.org\r\nConnection: close\r\n\r\n"), qr/^400 /, 'a host that is none');
like(raw("GET /x HTTP/1.0\r\n\r\n"), qr/^400 /, 'no host to lead to');

mkdir "/var/www/html/.well-known" and mkdir '/var/www/html/.well-known/acme-challenge' or die $!;
write_file('/var/www/html/.well-known/acme-challenge/token', "token.thumbprint");
my $answer = fetch('http://hello.toolforge.org/.well-known/acme-challenge/token');
is("$answer->{status} $answer->{body}", '200 token.thumbprint', 'a challenge of this host');
$answer = fetch('http://project.wmcloud.org/.well-known/acme-challenge/other?x');
is("$answer->{status} $answer->{headers}{location}", '301 https://project.wmcloud.org/.well-known/acme-challenge/other?x', "a project's own challenge");
$answer = fetch('http://tools.example.org/.well-known/acme-challenge/../../index.html');
is($answer->{status}, 301, 'no other file');
done_testing();
