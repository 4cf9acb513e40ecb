# Request bodies arrive complete, however they are sent.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== bodies of any size
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for my $size (0, 1, 1000, 1 << 20, 5_000_000) {
    my $body = substr join('', map { chr } 0 .. 255) x ($size / 256 + 1), 0, $size;
    for my $method (qw(POST PUT)) {
        my $answer = ask("$method /hello/", body => $body);
        my $sum    = unpack '%32C*', $body;
        like($answer->{body}, qr/^method: $method\n(.*\n)*body: $size bytes sum $sum$/m, "$method of $size bytes");
    }
}



=== chunked bodies
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my @chunks = map { chr($_) x (3000 * $_) } 1 .. 20;
my $body   = join '', @chunks;
my $client = start_ask('POST /hello/', headers => ['Transfer-Encoding: chunked']);
send_bytes($client, sprintf "%x\r\n%s\r\n", length, $_) for @chunks;
send_bytes($client, "0\r\n\r\n");
my ($size, $sum) = (length $body, unpack '%32C*', $body);
like(answer($client)->{body}, qr/^body: $size bytes sum $sum$/m);



=== streamed bodies
--- location
proxy_request_buffering off;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client = start_ask('POST /hello/', headers => ['Content-Length: 6']);
send_bytes($client, 'abc');
my $backend = accept_on('A');
my $got = '';
sysread $backend, $got, 4096, length $got until $got =~ /\r\n\r\nabc\z/;
pass('half of it is there');
send_bytes($client, 'def');
sysread $backend, $got, 4096;
is($got, 'def', 'and the rest');
send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
is(answer($client)->{status}, 200);



=== bodies reach the next backend after a failure
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_A
--- perl
my $body = 'x' x 500_000;
my $sum  = unpack '%32C*', $body;
like(ask('POST /hello/', body => $body)->{body}, qr/^body: 500000 bytes sum $sum$/m) for 1, 2;
--- error_log
connect() failed (111: Connection refused) while connecting to upstream



=== large responses
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(length ask('GET /hello/?body_bytes=3000000')->{body}, 3_000_000);



=== bodies above client_max_body_size are refused
--- location
client_max_body_size 10;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('POST /hello/', body => 'x' x 11)->{status}, 413);
is(ask('POST /hello/', body => 'x' x 10)->{status}, 200);
