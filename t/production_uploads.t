# A large upload reaches the tool while the client still sends it, and is not stored; one that is too large gets 413.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = serve('10.0.0.3', 8000);
route(upload => '10.0.0.3:8000');
route('one.example.net' => '10.0.0.3:8000');

sub read_bytes {
    my ($socket, $count) = @_;
    my $text = '';
    while (length $text < $count) {
        IO::Select->new($socket)->can_read(60) or die 'nothing after ' . length($text) . " bytes\n";
        sysread($socket, $text, $count - length $text, length $text) or die 'ended after ' . length($text) . " bytes\n";
    }
    return $text;
}
my $part = 'x' x 200_000;
for (['tools.example.org', '/upload/'], ['upload.toolforge.org', '/'], ['one.example.net', '/']) {
    my ($host, $path) = @$_;
    my ($in, $out, $pid) = client_on($host);
    # The second half is sent only after the tool has got the first.
    my $length = 2 * length $part;
    syswrite $out, "POST $path HTTP/1.1\r\nHost: $host\r\nUser-Agent: test\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$part";
    my $backend = $tool->accept;
    my $head = '';
    $head .= read_bytes($backend, 1) until $head =~ /\r\n\r\n\z/;
    like($head, qr/^Content-Length: $length\r$/mi, "$host: the length");
    is(length read_bytes($backend, length $part), length $part, 'the first half');
    syswrite $out, $part;
    is(length read_bytes($backend, length $part), length $part, 'the second half');
    syswrite $backend, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    like(read_bytes($in, 20), qr{^HTTP/1\.1 201 Created}, 'the answer');
    hang_up($pid);

    # The tool refuses at once what it will not read.
    ($in, $out, $pid) = client_on($host);
    syswrite $out, "POST $path HTTP/1.1\r\nHost: $host\r\nUser-Agent: test\r\nContent-Length: 9000000000\r\nConnection: close\r\n\r\n$part";
    $backend = $tool->accept;
    read_bytes($backend, 200);
    syswrite $backend, "HTTP/1.1 413 By the tool\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    like(read_bytes($in, 24), qr{^HTTP/1\.1 413 By the tool}, 'an early answer of the tool');
    close $backend;
    hang_up($pid);

    my $answer = ask($host, "POST $path HTTP/1.1\r\nHost: $host\r\nUser-Agent: test\r\nContent-Length: 11000000000\r\nConnection: close\r\n\r\n");
    is($answer->{status}, 413, 'too large');
    like($answer->{body}, qr/too large/i, 'a page says so');
}
unlike(error_log(), qr/buffered to a temporary file/, 'nothing is stored');
done_testing();
