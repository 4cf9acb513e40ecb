# Text is compressed for clients that accept it, from tools behind other proxies too; a tool can prevent it.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2', sub {
    my ($type, $size, $encoding) = $_[0]{uri} =~ m{\?([^,]+),(\d+)(?:,(\w+))?};
    my $body = 'x' x $size;
    return join "\r\n", 'HTTP/1.1 200 OK', "Content-Type: $type", 'ETag: "1"', ($encoding ? "Content-Encoding: $encoding" : ()), 'Content-Length: ' . length $body, 'Connection: close', '', $body;
});
route(hello => $tool);
route('one.example.net' => $tool);
for my $url ('https://tools.example.org/hello/', 'https://hello.toolforge.org/', 'https://one.example.net/') {
    for my $row (
        ['text/html,5000',               'gzip',     'a page'],
        ['text/html;charset=x,5000',  'gzip',     'with a charset'],
        ['application/json,5000',        'gzip',     'JSON'],
        ['image/svg+xml,5000',           'gzip',     'SVG'],
        ['text/html,500',                '',         'a short page'],
        ['image/png,5000',               '',         'an image'],
        ['text/event-stream,5000',       '',         'a stream'],
        ['text/html,5000,br',            'br',       'compressed by the tool'],
        ['text/html,5000,identity',      'identity', 'a tool that does not want it'],
    ) {
        my ($query, $encoding, $what) = @$row;
        my $answer = fetch("$url?$query", headers => ['Accept-Encoding: gzip', 'Via: 1.1 other']);
        is($answer->{headers}{'content-encoding'} // '', $encoding, "$url: $what");
        like($answer->{headers}{vary} // '', qr/Accept-Encoding/, 'Vary') if $encoding eq 'gzip';
    }
    is(fetch("$url?text/html,5000")->{headers}{'content-encoding'}, undef, 'not for a client that does not ask');
}
done_testing();
