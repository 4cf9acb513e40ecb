# Requests without a User-Agent get 403 and a page that says why; the tool does not see them.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2', sub { return "HTTP/1.1 200 OK\r\nX-Tool: yes\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" });
route(hello => $tool);
route('one.example.net' => $tool);
for my $url ('https://tools.example.org/hello/', 'https://hello.toolforge.org/', 'https://one.example.net/') {
    for my $none ('User-Agent:', 'User-Agent;') {
        for my $method (qw(GET POST)) {
            my $answer = fetch($url, method => $method, headers => [$none], $method eq 'POST' ? (body => 'x' x 50_000) : ());
            is($answer->{status}, 403, "$method $url with $none");
            like($answer->{body}, qr/User-Agent/, 'the page says why');
            ok(!$answer->{headers}{'x-tool'}, 'not from the tool');
        }
    }
    is(fetch($url, headers => ['User-Agent: x'])->{headers}{'x-tool'}, 'yes', "$url with any");
}
done_testing();
