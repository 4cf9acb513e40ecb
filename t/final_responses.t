# Interim responses of a tool (1xx) and responses without a header are answered with 502, so that no tool can put a second
# response on a client's connection. Upgrades that the client asks for pass.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;
use NginxBackend;

our @upgrade = ('Connection: keep-alive, Upgrade', 'Upgrade: websocket');
our $forged  = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Tool: forged\r\n\r\nforged" x 3;
our @rejected = (
    (map { ["status $_", "HTTP/1.1 $_ X\r\nSet-Cookie: forged=1\r\n\r\n"] } qw(100 101 102 103 199 000 001 099)),
    ['103 with a length', "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n"],
    ['103 in chunks', "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ['103 by HTTP/1.0', "HTTP/1.0 103 Early Hints\r\n\r\n"],
    ['100 and an invalid header', "HTTP/1.1 100 X\r\nX-\0: forged\r\n\r\n"],
    ['102 and a large header', "HTTP/1.1 102 X\r\nX-Forged: " . 'x' x 9000 . "\r\n\r\n"],
    ['no number', "HTTP/1.1 abc X\r\n\r\n"],
    ['no status line', ''],
    ['an empty line', "\r\n"],
);

# Since 1.29.0 nginx itself reads early hints, and drops them unless `early_hints` is on.
our $reads_hints = nginx_version() ge '001.029.000';
our @hints = grep { $_->[0] =~ /^(?:status 103|103 with a length)$/ } @rejected;
@rejected = grep { my $row = $_; !grep { $_ == $row } @hints } @rejected if $reads_hints;

# Sends a request on a client's connection.
sub send_request {
    my ($client, $line, @headers) = @_;
    send_bytes($client, join "\r\n", "$line HTTP/1.1", 'Host: localhost', @headers, '', '');
}

# Sends a request whose tool answers with these bytes. The client must get 502 and nothing of the tool, and then the answer of
# another tool on the same connection.
sub is_rejected {
    my ($name, $bytes, $line, @headers) = @_;
    my $body = $line =~ /^POST/ ? 'abc' : '';
    push @headers, 'Content-Length: 3' if $body;
    my $client = to_nginx();
    send_request($client, $line, @headers);
    send_bytes($client, $body);
    my ($id) = arrived($client);
    # Nothing of this may be taken for the response to the next request.
    respond($id, $bytes =~ /^\w.* abc / || $bytes !~ /^HTTP/ ? $bytes . ($forged =~ s{^HTTP/1.1}{ICY}r) : $bytes . $forged);
    my $answer = read_message($client, $line =~ /^HEAD/);
    like($answer->{head}, qr{^HTTP/1\.1 502 }, "$name: 502");
    unlike($answer->{head} . $answer->{body}, qr/forged/, "$name: nothing of the tool");
    send_request($client, 'GET /other/');
    $answer = read_message($client);
    is($answer->{headers}{'x-tool'}, 'a', "$name: the next request gets the answer of its tool");
    connections_are('', "$name: the connection to the tool is closed");
}

run_tests;

__DATA__

=== one request per kind
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected(@$_, 'GET /1/') for @::rejected;
like(error_log(), qr/\[error\] [^:]*: \*\d+ urlproxy: backend sent unrequested status 100; answering 502, backend=http:\/\/\Q$ENV{TEST_NGINX_PEER_1}\E tool="1" suppressed=0[ ,]/, 'the log names the tool');



=== an unfinished interim response, and pages for it
--- upstream
urlproxy_keepalive 64;
--- server
location /paged/ { urlproxy tools path; proxy_pass http://tools; error_page 502 /page; }
location /named/ { urlproxy tools path; proxy_pass http://tools; error_page 502 = @page; }
location = /page { return 200 page; }
location @page { return 203 page; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:paged .* http://$TEST_NGINX_PEER_1
HSET prefix:named .* http://$TEST_NGINX_PEER_1
--- perl
for (['/1/', 502, qr/502 Bad Gateway/], ['/paged/', 502, qr/^page$/], ['/named/', 203, qr/^page$/]) {
    my ($path, $status, $body) = @$_;
    for my $bytes ("HTTP/1.1 103 X\r\nX-Forged", "HTTP/1.1 100 X\r\nX-\0: forged\r\n\r\n", "HTTP/1.1 102 X\r\nX-Forged: 1\r\n\r\n") {
        my $client = start_ask("GET $path");
        my $id = arrived($client);
        respond($id, $bytes);
        close_as_backend('close', $id) if $bytes =~ /X-Forged$/;
        my $answer = read_message($client);
        like($answer->{head}, qr{^HTTP/1\.1 $status }, $path);
        like($answer->{body}, $body);
        unlike($answer->{head}, qr/forged/i);
        unlike($answer->{body}, qr/HTTP/);
    }
}



=== early hints that nginx reads are for no client
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
for my $hints ($::reads_hints ? @::hints : ()) {
    my $client = start_ask('GET /1/');
    respond(scalar arrived($client), $hints->[1] . "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    my $answer = read_message($client);
    like($answer->{head}, qr{^HTTP/1\.1 200 }, "$hints->[0]: the response that follows");
    is($answer->{body}, 'ok');
    unlike($answer->{head}, qr/forged|103/, "$hints->[0]: nothing of the hints");
}



=== HEAD and POST
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
for my $line ('HEAD /1/', 'POST /1/') {
    is_rejected("$line, $_->[0]", $_->[1], $line) for @::rejected;
}



=== without buffers, through the variable
--- pass: $urlproxy_backend
--- location
proxy_buffering off;
proxy_request_buffering off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected("POST, $_->[0]", $_->[1], 'POST /1/') for @::rejected;



=== nginx's own keepalive
--- upstream
keepalive 8;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected(@$_, 'GET /1/') for @::rejected;



=== domain mode
--- server
location /1/ { urlproxy tools domain; proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Host $host; }
--- redis
SADD frontend:localhost http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected(@$_, 'GET /1/') for $::rejected[2], $::rejected[-2];
--- error_log
urlproxy: backend sent unrequested status 102; answering 502, backend=http://$TEST_NGINX_PEER_1 suppressed=0



=== only an upgrade that the client asks for passes
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
my $accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
for my $with ([@::upgrade], ['connection: upgrade', 'upgrade: other'], ['Connection: x,UPGRADE ,y', 'Upgrade: websocket'], ['Connection: keep-alive', @::upgrade]) {
    my $client = to_nginx();
    send_request($client, 'GET /1/', @$with);
    my ($id) = arrived($client);
    respond($id, "${accepted}to the client");
    my $name = join ', ', @$with;
    like(read_message($client)->{head}, qr{^HTTP/1\.1 101 .*^Connection: upgrade\r$}ms, "$name: accepted");
    is(UrlproxyTest::read_exactly($client, 13), 'to the client');
    my $request = "GET /other/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    send_bytes($client, $request);
    is(UrlproxyTest::read_exactly(connection($id), length $request), $request, 'a later request is a message to the tool');
    close_as_backend('close', $id);
    is(sysread($client, my $more, 1), 0, 'the connection ends with the tunnel');
}
is_rejected("@$_", $accepted, 'GET /1/', @$_) for [], ['Upgrade: websocket'], ['Connection: upgrade'], ['Connection: xupgrade', 'Upgrade: websocket'];
is_rejected("$_->[0] with an upgrade", $_->[1], 'GET /1/', @::upgrade) for grep { $_->[0] ne 'status 101' } @::rejected;
my $client = to_nginx();
send_bytes($client, "GET /1/ HTTP/1.0\r\nHost: localhost\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n");
respond(scalar arrived($client), $accepted);
like(read_message($client)->{head}, qr{^HTTP/1\.1 502 }, 'HTTP/1.0 has no upgrades');



=== error pages
--- server
error_page 502 /page;
location = /page { return 502 "page\n"; add_header X-Page 1 always; }
location /again/ { urlproxy tools path; proxy_pass http://tools; proxy_http_version 1.1; error_page 502 @again; }
location @again { urlproxy tools path; proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; error_page 502 /page; }
--- location
recursive_error_pages on;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:again .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected(@$_, 'GET /1/') for @::rejected;
my $client = start_ask('GET /1/');
respond(scalar arrived($client), "HTTP/1.1 102 X\r\nSet-Cookie: a=b\r\nContent-Encoding: gzip\r\n\r\n");
my $answer = answer($client);
is_deeply([@$answer{qw(status body)}, @{ $answer->{headers} }{qw(x-page set-cookie content-encoding)}], [502, "page\n", 1, undef, undef], 'the page, without the headers of the tool');
# The status of an error page replaces that of the tool, also of one that accepts an upgrade.
for my $bytes ($::rejected[2][1], "HTTP/1.1 101 X\r\n\r\n") {
    $client = to_nginx();
    send_request($client, 'GET /again/', @::upgrade);
    respond(scalar arrived($client), $::rejected[2][1]);
    respond(scalar arrived($client), $bytes . $::forged);
    like(read_message($client)->{head}, qr{^HTTP/1\.1 502 }, 'an error page of a tool');
    send_request($client, 'GET /other/');
    is(read_message($client)->{headers}{'x-tool'}, 'a');
}



=== nothing of it is cached
--- http
proxy_cache_path $TEST_NGINX_SERVER_ROOT/cache keys_zone=cache:1m;
--- location
proxy_cache cache;
proxy_cache_key $uri;
proxy_cache_valid 100 101 102 103 199 200 1h;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected(@$_, 'GET /1/') for @::rejected;
is_rejected(@$_, 'GET /1/') for @::rejected;



=== subrequests
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /1/ break; proxy_pass http://tools; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
--- location
auth_request /check;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
for my $rejected (@::rejected) {
    my $client = start_ask('GET /other/', headers => [@::upgrade]);
    respond(scalar arrived($client), $rejected->[1] . ($rejected->[1] =~ / \d{3} / ? $::forged : 'ICY'));
    is(answer($client)->{status}, 500, $rejected->[0]);
}



=== https backends
--- pass: $urlproxy_scheme://tools
--- location
error_page 502 /up;
--- redis
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- user_files eval
NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', 'ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; location / { return 102 x; } location /hello/ok { return 200 x; }', sub {
    my ($port) = @_;
    redis('HSET', 'prefix:hello', '.*', "https://127.0.0.1:$port");
    ok(eventually { ask('GET /hello/ok')->{status} == 200 }, 'the route is there');
    is(ask('GET /hello/')->{status}, 502);
});



=== lines in the log are limited
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:other .* http://$TEST_NGINX_TOOL_A
--- perl
is_rejected('102', $::rejected[2][1], 'GET /1/') for 1 .. 50;
my $seconds = time - int $UrlproxyTest::begun;
my $lines   = () = error_log() =~ /unrequested status/g;
cmp_ok($lines, '<=', 1 + $seconds, 'logged at most once per second');
cmp_ok($lines, '>=', 1, 'logged');



=== locations without urlproxy stay as nginx makes them
--- server
location /plain/ { proxy_pass http://$TEST_NGINX_PEER_2; proxy_http_version 1.1; }
--- perl
for my $status (102, $::reads_hints ? () : 103, 199) {
    my $client = start_ask('GET /plain/');
    my ($id) = arrived($client);
    respond($id, "HTTP/1.1 $status X\r\nContent-Length: 0\r\n\r\n");
    like(read_message($client, 1)->{head}, qr{^HTTP/1\.1 $status }, "status $status");
}
