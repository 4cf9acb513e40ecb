# Requests that nginx cannot repeat use a kept connection only while it is open and silent: a backend that closes it, or sends
# data on it, fails none of them.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

# Keeps a connection, then delivers the request and the backend's action to nginx at the same moment, the request first: only
# a check of the socket can detect the action. The request must arrive once, on a new connection. The last byte of the body is
# sent later, since a complete body could be sent again: if the body is streamed, after its beginning has arrived.
sub goes_elsewhere_when {
    my ($what, $line, $body, $is_streamed) = @_;
    my $client = to_nginx();
    my $kept   = serve('GET /1/', client => $client);
    my $length = defined $body ? 'Content-Length: ' . (1 + length $body) . "\r\n" : '';
    idle();
    while_stopped(sub {
        send_bytes($client, "$line HTTP/1.1\r\nHost: localhost\r\n$length\r\n" . ($body // ''));
        if ($what eq 'speaks') { respond($kept, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") }
        else                   { close_as_backend($what, $kept) }
    });
    begun($client) if $is_streamed;
    send_bytes($client, '.') if defined $body;
    my ($id, $request) = arrived($client);
    isnt($id, $kept, "$line when the backend does this: $what");
    is($request->{body}, defined $body ? "$body." : '', 'with its body');
    respond($id);
    finish($client, $line, 200);
    connections_are($id);
}

run_tests;

__DATA__

=== POST reuses a kept connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $body = join '', map { chr } (0 .. 255) x 1000;
is(serve('POST /1/', body => 'x'), '1.1', 'the first connects');
for my $line ('POST /1/', 'PATCH /1/', 'LOCK /1/', 'PUT /1/', 'DELETE /1/', 'GET /1/', 'POST /1/') {
    idle();
    my $client = start_ask($line, body => $body);
    my ($id, $request) = arrived($client);
    is($id, '1.1', $line);
    ok($request->{body} eq $body, 'the body is complete');
    respond($id);
    finish($client, $line, 200);
}
--- no_error_log
[error]
[alert]



=== a streamed body reuses a kept connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_request_buffering off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
for my $method (qw(POST PUT)) {
    idle();
    my $client = start_ask("$method /1/", headers => ['Content-Length: 6']);
    send_bytes($client, 'abc');
    ok(IO::Select->new(connection('1.1'))->can_read($timeout), "$method: the first half comes on the kept connection");
    send_bytes($client, 'def');
    my ($id, $request) = arrived($client);
    is("$id $request->{body}", '1.1 abcdef');
    respond($id);
    finish($client, $method, 200);
}
--- no_error_log
[error]
[alert]



=== a backend that closes at the same moment fails no request
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $how (qw(close half reset)) {
    goes_elsewhere_when($how, "$_ /1/", 'x' x 1000) for qw(POST PATCH LOCK);
}



=== a backend that sends data at the same moment fails no request
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
goes_elsewhere_when('speaks', "$_ /1/", 'x' x 1000) for qw(POST PATCH LOCK);



=== streamed bodies are safe too
--- upstream
urlproxy_keepalive 64;
--- location
proxy_request_buffering off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $how (qw(close half reset speaks)) {
    goes_elsewhere_when($how, "$_ /1/", 'x' x 1000, 1) for qw(PUT POST GET);
}



=== requests are safe with proxy_next_upstream off
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $how (qw(close half reset speaks)) {
    goes_elsewhere_when($how, "$_ /1/") for qw(GET POST);
}



=== requests are safe with proxy_next_upstream without error
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream http_503;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
goes_elsewhere_when($_, 'GET /1/') for qw(close half reset speaks);



=== only open and silent connections are reused
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $client = to_nginx();
serve('GET /1/', client => $client);
my ($id) = serve_together('GET /1/', 'GET /1/', 'GET /1/');
connections_are('1.1 1.2 1.3');
idle();
while_stopped(sub {
    send_bytes($client, "POST /1/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
    close_as_backend('close', '1.3');
    respond('1.2', 'x');
});
$id = arrived($client);
like($id, qr/^1\.[14]$/, "on $id");
respond($id);
finish($client, 'POST', 200);
connections_are($id eq '1.1' ? '1.1' : '1.1 1.4');



=== a backend that closes after the request has failed
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
idle();
my $client = start_ask('POST /1/', body => 'x');
is(scalar arrived($client), '1.1');
close_as_backend('close', '1.1');
finish($client, 'POST', 502);
connections_are('');
is(serve('GET /1/'), '1.2', 'the request was sent once, on one connection');



=== non_idempotent allows the repetition
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream error non_idempotent;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
idle();
my $client = start_ask('POST /1/', body => 'body');
is(scalar arrived($client), '1.1');
close_as_backend('close', '1.1');
my ($id, $request) = arrived($client);
is("$id $request->{body}", '1.2 body');
respond($id);
finish($client, 'POST', 200);
