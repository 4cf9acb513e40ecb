# Every response over https has the platform's HSTS header, once: also errors, redirects and defaults, and never a tool's own.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $own = tool('10.0.0.2', sub {
    my ($request) = @_;
    my ($status) = $request->{uri} =~ m{/(\d+)};
    $status //= 200;
    return "HTTP/1.1 $status Any\r\nstrict-transport-security: max-age=0\r\nX-Any: x\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
});
route(hello => $own);
route('one.example.net' => $own);
route(down => '10.0.0.3:9');
redis('HSET', 'prefix:nowhere', '.*', 'http://10.0.0.3:9');
my @urls = (map({ ("https://tools.example.org/hello/$_", "https://hello.toolforge.org/$_", "https://one.example.net/$_") } 200, 204, 302, 404, 500),
    'https://tools.example.org/down/', 'https://down.toolforge.org/', 'https://tools.example.org/none/', 'https://none.example.net/',
    'https://tools.example.org/favicon.ico', 'https://none.toolforge.org/robots.txt', 'https://tools.example.org/.well-known/healthz');
for my $url (@urls) {
    for my $http ('--http1.1', '--http2') {
        my $answer = fetch($url, http => $http);
        is($answer->{headers}{'strict-transport-security'}, 'max-age=31536000', "$url $http: $answer->{status}");
    }
}
is(fetch('https://tools.example.org/hello/', headers => ['User-Agent:'])->{headers}{'strict-transport-security'}, 'max-age=31536000', 'banned');
done_testing();
