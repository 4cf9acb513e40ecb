# A tool's response that nginx would pass on as it is does not reach the client's connection: an invalid status line, or a status
# below 200 with a body, would let the tool write its own headers and the next response of the connection, which may be another
# tool's. A switch of protocols passes only where the client has asked for it.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2', sub { slurp('/run/production/answer') });
route(evil => $tool);
route('evil.example.net' => $tool);
route(good => tool('10.0.0.3', sub { "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood" }));

my $headers = "Service-Worker-Allowed: /\r\nStrict-Transport-Security: max-age=0\r\n";
my $forged = "HTTP/1.1 200 OK\r\n${headers}Content-Length: 3\r\n\r\nownHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
my $length = 'Content-Length: ' . length $forged;

# Two requests on one connection; returns all that nginx has sent.
sub both {
    my (@extra) = @_;
    my ($in, $out, $pid) = client_on('tools.example.org');
    syswrite $out, join '', map { join "\r\n", @$_, '', '' } ["GET /evil/ HTTP/1.1", 'Host: tools.example.org', 'User-Agent: t', @extra],
        ['GET /good/ HTTP/1.1', 'Host: tools.example.org', 'User-Agent: t', 'Connection: close'];
    my $text = '';
    while (IO::Select->new($in)->can_read(60)) { sysread($in, $text, 65536, length $text) or last }
    hang_up($pid);
    return $text;
}

my %invalid = (
    'no status line'        => "<html>evil</html>\r\n$headers\r\n",
    'a tab in the line'     => "HTTP/1.1 200\tOK\r\n${headers}Content-Length: 4\r\n\r\nevil",
    'a control character'   => "HTTP/1.1 200 OK\r\r\n${headers}Content-Length: 4\r\n\r\nevil",
    'two digits'            => "HTTP/1.1 20\r\n${headers}Content-Length: 4\r\n\r\nevil",
    'another version'       => "HTTP/2 200\r\n${headers}Content-Length: 4\r\n\r\nevil",
    'status 000'            => "HTTP/1.1 000 Any\r\n$length\r\n\r\n$forged",
    'status 099'            => "HTTP/1.1 099 Any\r\n$length\r\n\r\n$forged",
    'status 101, not asked' => "HTTP/1.1 101 Any\r\nUpgrade: websocket\r\n$length\r\n\r\n$forged",
    'status 100'            => "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n${headers}Content-Length: 3\r\n\r\nown",
    'status 103'            => "HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\nHTTP/1.1 201 Created\r\n${headers}Content-Length: 3\r\n\r\nown",
    'interim, then nothing' => "HTTP/1.1 103 Early Hints\r\n\r\n",
    'interim, then invalid' => "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200\tOK\r\n\r\n",
    'too many interim'      => "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" x 1000 . "HTTP/1.1 200 OK\r\n\r\n",
);
# Since 1.29.0 nginx drops early hints itself, and passes on what follows them.
my %follows = nginx_version() ge '001.029.000' ? ('status 103' => 201, 'too many interim' => 200) : ();
for my $what (sort keys %invalid) {
    my $status = $follows{$what} // 502;
    my $body   = $status == 502 ? '<h1>This tool is down</h1>.*^' : $status == 201 ? "\r\n\r\nown" : '^';
    write_file('/run/production/answer', $invalid{$what});
    my $said = both();
    like($said, qr{\AHTTP/1\.1 $status .*${body}HTTP/1\.1 200 OK\r\n.*\r\n\r\ngood\z}ms, "$what: $status, and the connection stays usable");
    unlike($said, qr/Service-Worker|max-age=0|forged/, "$what: nothing of the tool");
    for my $url ('https://tools.example.org/evil/', 'https://evil.toolforge.org/', 'https://evil.example.net/') {
        is(fetch_h2($url)->{status}, $status, "$what: $url, HTTP/2");
    }
}

done_testing();
