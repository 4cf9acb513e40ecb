# WebSockets pass in every mode, both ways and while idle; other upgrades do not reach the tool.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = serve('10.0.0.3', 8000);
route(echo => '10.0.0.3:8000');
route('one.example.net' => '10.0.0.3:8000');

sub read_until {
    my ($socket, $end) = @_;
    my $text = '';
    until ($text =~ $end) {
        IO::Select->new($socket)->can_read(60) or die "nothing after: $text\n";
        sysread($socket, $text, 1, length $text) or die "ended after: $text\n";
    }
    return $text;
}
for (['tools.example.org', '/echo/ws'], ['echo.toolforge.org', '/ws'], ['one.example.net', '/ws']) {
    my ($host, $path) = @$_;
    my ($in, $out, $pid) = client_on($host);
    syswrite $out, join "\r\n", "GET $path HTTP/1.1", "Host: $host", 'User-Agent: test', 'Connection: keep-alive, Upgrade', 'Upgrade: WebSocket',
        'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', '', '';
    my $backend = $tool->accept;
    my $request = read_until($backend, qr/\r\n\r\n\z/);
    like($request, qr/^Upgrade: websocket\r$/m, "$host: Upgrade");
    like($request, qr/^Connection: upgrade\r$/m, 'Connection');
    like($request, qr/^Sec-WebSocket-Key: A{22}==\r$/m, 'the key');
    syswrite $backend, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
    my $accepted = read_until($in, qr/\r\n\r\n\z/);
    like($accepted, qr{^HTTP/1\.1 101 }, 'the tool accepts');
    like($accepted, qr/^Upgrade: websocket\r$/mi, 'Upgrade');
    like($accepted, qr/^Connection: upgrade\r$/mi, 'Connection');
    like($accepted, qr/^Sec-WebSocket-Accept: x\r$/mi, 'the key');
    for my $message (1 .. 3) {
        syswrite $out, "ping $message\n";
        is(read_until($backend, qr/\n\z/), "ping $message\n", 'to the tool');
        syswrite $backend, "pong $message\n";
        is(read_until($in, qr/\n\z/), "pong $message\n", 'from the tool');
    }
    hang_up($pid);
    is(sysread($backend, my $rest, 1), 0, 'the end of the client ends it');
}
# Other protocols could carry requests past this proxy.
for my $protocol ('h2c', 'websocket, h2c', 'TLS/1.0') {
    my ($in, $out, $pid) = client_on('tools.example.org');
    syswrite $out, "GET /echo/ HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: $protocol\r\nHTTP2-Settings: x\r\n\r\n";
    my $backend = $tool->accept;
    unlike(read_until($backend, qr/\r\n\r\n\z/), qr/^(?:Upgrade|Connection):/mi, "$protocol is not passed on");
    close $backend;
    hang_up($pid);
}
done_testing();
