# Requests with unusual bytes are routed or refused, and the worker survives.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== a newline in the path is routed
--- redis eval
[ ['HSET', 'prefix:hello', '^/a\nb$', "http://$ENV{TEST_NGINX_TOOL_C}", '^/a.b', "http://$ENV{TEST_NGINX_TOOL_B}",
    '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- requests
/hello/a%0ab    200  c  sees=/hello/a%0ab
/hello/a%0Ab/   200  a  sees=/hello/a%0Ab/
/hello/axb      200  b
/hello/%0a%0d   200  a
/hel%0alo/      503  -
/hello%0a/      503  -
/%0ahello/      503  -



=== a newline in the path injects no header
--- location
urlproxy_default http://$TEST_NGINX_OWN_A;
proxy_set_header X-Tool $urlproxy_tool;
--- perl
my $client  = start_ask('GET /a%0d%0aX-Injected:%20yes/');
my $backend = accept_on('A');
unlike(read_message($backend)->{head}, qr/^X-Injected/m, 'for the backend');
send_bytes($backend, "HTTP/1.0 200 OK\r\n\r\n");
close $backend;
unlike(answer($client)->{head}, qr/^X-Injected/m, 'for the client');



=== a zero byte is refused
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/hello/%00   400
/hel%00lo/   400
/%00         400
/hello/?%00  200  a



=== bytes that are not UTF-8 are routed
--- redis eval
[ ['HSET', 'prefix:hello', '^/[^/]+$', "http://$ENV{TEST_NGINX_TOOL_B}", '(?-u:\xfe)/', "http://$ENV{TEST_NGINX_TOOL_C}",
    '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- requests
/hello/%ff           200  b  sees=/hello/%ff
/hello/%ff%fe/       200  c
/hello/%c3%28/       200  a
/%ff/                503  -
/hello%ff/           503  -



=== raw high bytes are passed on unchanged
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client  = start_ask("GET /hello/\xff\xc3\xa9");
my $backend = accept_on('A');
like(read_message($backend)->{head}, qr{\AGET /hello/\xff\xc3\xa9 HTTP});
send_bytes($backend, "HTTP/1.0 204 No Content\r\n\r\n");
is(answer($client)->{status}, 204);



=== names and paths up to nginx's limits
--- redis
HSET prefix:hello x$ http://$TEST_NGINX_TOOL_B .* http://$TEST_NGINX_TOOL_A
--- perl
for my $length (1, 254, 255, 256, 257, 1023, 4096, 8000, 8170) {
    is(ask('GET /' . 'y' x $length . '/')->{status}, 503, "a name of $length bytes");
    is(ask('GET /' . '%61' x int($length / 3) . '/')->{status}, 503, "a name of $length bytes, encoded");
}
for my $length (1000, 8000) {
    my $answer = ask('GET /hello/' . 'a/' x ($length / 2) . 'x');
    is($answer->{headers}{'x-tool'}, 'b', "a path of $length bytes");
    like($answer->{body}, qr{^uri: /hello/(a/)+x$}m);
}
is(ask('GET /hello/' . 'x' x 9000)->{status}, 414, 'a path that nginx refuses');



=== incomplete requests
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix: .* http://$TEST_NGINX_TOOL_B
--- perl
for (
    ["GET /hello/\r\n", qr/^tool: a$/m, 'no version'],
    ["GET /hello/ HTTP/1.0\r\n\r\n", qr/^tool: a$/m, 'no host'],
    ["GET /hello/ HTTP/1.1\r\n\r\n", qr{\AHTTP/1.1 400}, 'no host where one is needed'],
    ["GET http://h HTTP/1.0\r\n\r\n", qr/^tool: b$/m, 'no path'],
    ["OPTIONS * HTTP/1.0\r\n\r\n", qr{\AHTTP/1.1 \d\d\d }, 'no path at all'],
    ["CONNECT hello:80 HTTP/1.0\r\n\r\n", qr{\AHTTP/1.1 (405|400)}, 'a tunnel'],
    ["\r\n\r\n\0\0\r\n", qr{\AHTTP/1.1 400}, 'nothing'],
    ["\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", qr{\AHTTP/1.1 400}, 'TLS'])
{
    my ($bytes, $want, $name) = @$_;
    my $client = to_nginx();
    send_bytes($client, $bytes);
    my $got = '';
    1 while sysread $client, $got, 4096, length $got;
    like($got, $want, $name);
}



=== thousands of random requests
--- location
urlproxy_default admin;
proxy_ignore_client_abort on;
--- redis eval
[ ['HSET', 'prefix:hello', '^/x$', "http://$ENV{TEST_NGINX_TOOL_A}", '\.php$', "http://$ENV{TEST_NGINX_TOOL_B}",
    '^/(a|b)+[0-9]{2,}', "http://$ENV{TEST_NGINX_TOOL_C}", '\xff', "http://$ENV{TEST_NGINX_TOOL_C}"],
  ['SADD', 'prefix:several', "http://$ENV{TEST_NGINX_TOOL_A}", "http://$ENV{TEST_NGINX_DEAD_A}"],
  ['HSET', 'prefix:named', '.*', 'http://no-such-host:80'],
  ['HSET', 'prefix:admin', '[0-9]$', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- perl
my $seed = $ENV{URLPROXY_T_SEED} // time;
srand $seed;
my @workers = worker_pids();
my @tame    = (qw(/ // /. /./ /.. %2f %2F %2e %5c %0a %0d%0a %20 %25 %7f %ff %c3%a9 ? & = ; : @ * + ~ | \\), "\x80", "\xff", "\xc3\xa9",
    qw(hello several named admin a b x 12 .php / / x 7));
my @wild    = ('/../', '/../../', '%00', '%zz', '%', '#', ' ', "\t", "\r", "\n", "\0", "\x7f");
my @methods = (('GET') x 12, qw(HEAD HEAD POST PUT DELETE OPTIONS TRACE PATCH PROPFIND get G CONNECT), '', "\xff");
my @ends    = ((' HTTP/1.1') x 20, ' HTTP/1.0', ' HTTP/1.0', ' HTTP/0.9', ' HTTP/9.9', ' HTTP/1.1 ', ' HTTX', '', "\0");
my @headers = (('Connection: close', 'Connection: upgrade', 'Upgrade: websocket', 'Expect: 100-continue', 'Range: bytes=0-0,-1',
    "X: \xff\x01", 'X: ' . 'z' x 3000, 'Content-Length: 3') x 3, 'Host: localhost', 'Host: x:y:z', "Host: \xff", 'Host:',
    'Content-Length: -1', 'Transfer-Encoding: chunked', ': x', "\0: y");
my $any     = sub { $_[ rand @_ ] };
my ($made, %answers) = 0;
while ($made < 4000) {
    my $uri = '/' . $any->('', qw(hello hello/ several/ named/ admin/));
    $uri .= $any->(@tame) for 1 .. rand 12;
    $uri .= $any->(@tame) x rand 3000 if rand() < 0.02;
    $uri .= $any->(@wild) . $any->(@tame) if rand() < 0.15;
    my $request = $any->(@methods) . ' ' . $uri . $any->(@ends) . "\r\n";
    $request .= $any->(@headers) . "\r\n" for 1 .. rand 5;
    $request .= "Host: h\r\nConnection: close\r\n\r\n" . $any->('', '', 'abc', "3\r\nabc\r\n0\r\n\r\n", "\xff" x 50);
    substr($request, rand length $request, 1) = chr rand 256 if rand() < 0.1;
    my $client = to_nginx();
    # nginx may refuse the beginning and reset the connection before the end is sent.
    eval { send_bytes($client, $request) };
    shutdown $client, 1;
    my $got = '';
    1 while sysread $client, $got, 65536, length $got;
    $made++;
    next if $got =~ m{\A(?:HTTP/1\.1 (\d\d\d) |\z|<html>|tool: )} && ++$answers{ $1 // 'no status' };
    (my $shown = "$request\n answered with\n$got") =~ s/([^\n -~])/sprintf '\\x%02x', ord $1/eg;
    fail("request $made of seed $seed: $shown");
    last;
}
is($made, 4000, "requests, made from URLPROXY_T_SEED=$seed");
cmp_ok($answers{$_} // 0, '>', 20, "of them answered with $_") for 200, 400, 502, 503;
is("@{[worker_pids()]}", "@workers", "the worker is still the same (URLPROXY_T_SEED=$seed)");
