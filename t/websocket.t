# WebSocket handshakes reach the tool, and both ends can talk afterwards.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== messages are echoed
--- config
location / {
    urlproxy tools path;
    proxy_pass http://tools;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
}
location = /up { return 204; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
# RFC 6455: the key of section 1.3, and a masked text frame as a client sends it.
my $frame = sub {
    my ($text) = @_;
    my $mask   = "\x01\x02\x03\x04";
    my $length = length $text;
    my $size   = $length < 126 ? chr(0x80 | $length) : chr(0x80 | 126) . pack 'n', $length;
    return "\x81$size$mask" . ($text ^ substr $mask x ($length / 4 + 1), 0, $length);
};
my $receive = sub {
    my ($socket) = @_;
    my $bytes = sub { my ($n, $got) = ($_[0], ''); while (length $got < $n) { sysread $socket, $got, $n - length $got, length $got or die 'closed' } $got };
    local $SIG{ALRM} = sub { die "no frame\n" };
    alarm $timeout;
    my ($opcode, $length) = unpack 'CC', $bytes->(2);
    $length = unpack 'n', $bytes->(2) if $length == 126;
    my $text = $bytes->($length);
    alarm 0;
    return $text;
};
for my $path ('/hello/chat', '/hello') {
    my $socket = start_ask("GET $path", headers => ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']);
    my $answer = answer($socket);
    is($answer->{status}, 101, "$path: accepted");
    is($answer->{headers}{'sec-websocket-accept'}, 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
    for my $text ('hello', '', 'x' x 5000, 'bye') {
        send_bytes($socket, $frame->($text));
        is($receive->($socket), $text, "$path: " . length($text) . ' bytes are echoed');
    }
    send_bytes($socket, $frame->('one') . $frame->('two'));
    is($receive->($socket) . $receive->($socket), 'onetwo', "$path: two at once");
}



=== a WebSocket outlives its route
--- config
location / {
    urlproxy tools path;
    proxy_pass http://tools;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
}
location = /up { return 204; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $socket = start_ask('GET /hello/', headers => ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']);
is(answer($socket)->{status}, 101);
redis('DEL', 'prefix:hello');
ok(eventually { ask('GET /hello/')->{status} == 503 }, 'the tool is gone');
send_bytes($socket, "\x81\x82\0\0\0\0ok");
sysread $socket, my $got, 4;
is($got, "\x81\x02ok", 'messages still pass');



=== a missing tool has no WebSocket
--- perl
my $answer = ask('GET /unknown/', headers => ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']);
is($answer->{status}, 503);
