# What a tool may believe about a request is set by the proxy: no header of the client replaces it, adds to it, or imitates it.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2');
route(hello => $tool);
route('one.example.net' => $tool);
redis('HSET', 'prefix:admin', '.*', "http://$tool");

# The headers that the tool gets, one per line, sorted.
sub seen { return join "\n", sort map { s/^([^:]+)/\L$1/r } split /\r\n/, $_[0]{body} =~ s/^.*\r\n//r }

my @claims = map { "$_: forged" } qw(
    Proxy X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Server X-Forwarded-Scheme
    X-Forwarded-Protocol X-Forwarded-Ssl X-Forwarded-User X-Forwarded-Path X-Forwarded-By X-Forwarded X-Original-URI X-Original-URL X-Original-Host
    X-Original-Forwarded-For X-Rewrite-URL X-Script-Name X-Host X-HTTP-Host-Override X-Real-IP X-Client-IP X-Cluster-Client-IP True-Client-IP
    CF-Connecting-IP Client-IP X-ProxyUser-IP X-Url-Scheme Front-End-Https X-Remote-User X-Sendfile-Type X-Accel-Mapping
    X_Forwarded_For X_Forwarded_Proto X_Original_URI X_Real_IP);
push @claims, 'Forwarded: for=127.0.0.1;proto=http', 'x-forwarded-PROTO: second', 'TE: trailers', 'Keep-Alive: 300';
for (['https://tools.example.org/hello/a%2Fb?x=%20', '/hello/a%2Fb?x=%20', 'tools.example.org'], ['https://hello.toolforge.org/a;b', '/a;b', 'hello.toolforge.org'],
    ['https://one.example.net/', '/', 'one.example.net'], ['https://tools.example.org/favicon.ico', '/favicon.ico', 'tools.example.org']) {
    my ($url, $uri, $host) = @$_;
    for my $http ('--http1.1', '--http2') {
        my $answer = fetch($url, http => $http, headers => ['User-Agent: test', 'Accept: */*', 'X-Own: kept', @claims]);
        is($answer->{status}, 200, $url);
        is(seen($answer), "accept: */*\nhost: $host\nuser-agent: test\nx-forwarded-proto: https\nx-original-uri: $uri\nx-own: kept", "$url $http");
    }
}
# A hop-by-hop header names what the next proxy shall drop.
my $answer = fetch('https://tools.example.org/hello/', headers => ['Connection: close, X-Original-URI, X-Forwarded-Proto, Host', 'User-Agent: test']);
like(seen($answer), qr/^x-forwarded-proto: https\nx-original-uri: /m, 'Connection drops nothing');
# Two lines of a header, or one without a value.
$answer = fetch('https://tools.example.org/hello/', headers => ['X-Forwarded-For: 1', 'X-Forwarded-For: 2', 'X-Real-IP;', 'Proxy;', 'User-Agent: test']);
unlike($answer->{body}, qr/^(?:x-forwarded-for|x-real-ip|proxy):/mi, 'repeated or empty');
like(fetch('https://tools.example.org/hello/', headers => ["User-Agent: x", 'X-Forwarded-Proto : http'])->{status}, qr/^(?:200|400)$/, 'a space before the colon');
done_testing();
