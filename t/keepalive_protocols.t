# Kept connections coexist with other protocols: upgraded connections, gRPC, FastCGI, uwsgi.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;
use NginxBackend;

# One FastCGI record: type, request 1, content.
sub fastcgi { my ($type, $content) = @_; return pack('CCnnCx', 1, $type, 1, length $content, 0) . $content }

# Reads records until the input of the request ends. Returns whether nginx asks to keep the connection.
sub read_fastcgi {
    my ($socket) = @_;
    my $keep;
    while (1) {
        my (undef, $type, undef, $length, $padding) = unpack 'CCnnC', read_bytes($socket, 8);
        my $content = read_bytes($socket, $length + $padding);
        $keep = ord substr $content, 2, 1 if $type == 1;
        return $keep if $type == 5 && $length == 0;
    }
}

sub read_bytes {
    my ($socket, $count) = @_;
    my $text = '';
    while (length $text < $count) {
        IO::Select->new($socket)->can_read($timeout) && sysread($socket, $text, $count - length $text, length $text) or die "the connection ended\n";
    }
    return $text;
}

run_tests;

__DATA__

=== an upgraded connection is not kept
--- upstream
urlproxy_keepalive 64;
--- location
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $http_connection;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $keep_alive = [headers => ['Connection: keep-alive']];
is(serve('GET /1/', @$keep_alive), '1.1', 'a connection is kept');
my $client = start_ask('GET /1/', headers => ['Connection: upgrade', 'Upgrade: echo']);
is(scalar arrived($client), '1.1', 'and used for the handshake');
respond('1.1', "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
finish($client, 'GET', 101);
send_bytes($client, 'hello');
is(main::read_bytes(connection('1.1'), 5), 'hello', 'client to backend');
respond('1.1', 'world');
is(main::read_bytes($client, 5), 'world', 'backend to client');
is(serve('GET /1/', @$keep_alive), '1.2', 'a concurrent request has another connection');
close $client;
connections_are('1.2', 'the upgraded connection ends with its client');
is(serve('GET /1/', @$keep_alive), '1.2');



=== a backend can end an upgraded connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $http_connection;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $client = start_ask('GET /1/', headers => ['Connection: upgrade', 'Upgrade: echo']);
is(scalar arrived($client), '1.1');
respond('1.1', "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nbye");
finish($client, 'GET', 101);
is(main::read_bytes($client, 3), 'bye');
close_as_backend('half', '1.1');
connections_are('');
is(serve('GET /1/'), '1.2');



=== gRPC connections are kept
--- upstream
urlproxy_keepalive 64;
--- server
location /grpc/ { urlproxy tools path; grpc_pass grpc://tools; }
--- perl
with_nginx_backend('http2', 'return 200 "$server_protocol $connection $connection_requests";', sub {
    my ($port) = @_;
    redis('HSET', 'prefix:grpc', '.*', "http://127.0.0.1:$port");
    ok(eventually { ask('GET /list')->{body} =~ /"grpc"/ }, 'routed');
    my ($connection) = ask('GET /grpc/')->{body} =~ m{^HTTP/2.0 (\d+) 1} or die 'no HTTP/2';
    is(ask('GET /grpc/')->{body}, "HTTP/2.0 $connection $_", "request $_ on the same connection") for 2 .. 5;
    idle();
    is(ask('POST /grpc/', body => 'x')->{body}, "HTTP/2.0 $connection 6", 'POST as well');
});
--- no_error_log
[error]
[alert]



=== gRPC and HTTP share no connections
--- upstream
urlproxy_keepalive 64;
--- server
location /1/grpc/ { urlproxy tools path; grpc_pass grpc://tools; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
is(serve('GET /1/'), '1.1');
my $client = start_ask('GET /1/grpc/');
my $has_new = eventually { open_connections() eq '1.1 1.2' };
ok($has_new, 'gRPC has another connection');
is(main::read_bytes(connection('1.2'), 24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
close_as_backend('close', '1.2');
finish($client, 'GET', 502);
is(serve('GET /1/'), '1.1', 'HTTP goes on');



=== FastCGI connections are kept
--- upstream
urlproxy_keepalive 64;
--- server
fastcgi_keep_conn on;
location /1/fcgi/ { urlproxy tools path; fastcgi_pass tools; fastcgi_param REQUEST_METHOD $request_method; }
location /1/once/ { urlproxy tools path; fastcgi_pass tools; fastcgi_keep_conn off; fastcgi_param REQUEST_METHOD $request_method; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
is(serve('GET /1/'), '1.1');
my $answer = main::fastcgi(6, "Content-Type: text/plain\r\n\r\nok") . main::fastcgi(6, '') . main::fastcgi(3, pack 'NCx3', 0, 0);
my $ask = sub {
    my ($path, $want, $is_new) = @_;
    my $client = start_ask("GET $path");
    if ($is_new) { (eventually { open_connections() =~ /\b\Q$want\E\b/ }) or die "no connection $want\n" }
    my $keep = main::read_fastcgi(connection($want));
    respond($want, $answer);
    # The server closes a connection that it is not asked to keep.
    close_as_backend('close', $want) unless $keep;
    is(finish($client, 'GET', 200)->{body}, 'ok', "$path on $want");
    return $keep;
};
is($ask->('/1/fcgi/', '1.2', 1), 1, 'FastCGI has its own connection');
is($ask->('/1/fcgi/', '1.2'), 1, 'and again') for 1, 2;
is($ask->('/1/once/', '1.2'), 0, 'a location without keep_conn reuses a kept connection');
connections_are('1.1', 'and closes it');
is(serve('GET /1/'), '1.1', 'HTTP goes on');



=== uwsgi shares no connections
--- upstream
urlproxy_keepalive 64;
--- server
location /1/uwsgi/ { urlproxy tools path; uwsgi_pass tools; uwsgi_param REQUEST_METHOD $request_method; }
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
is(serve('GET /1/'), '1.1');
for my $id ('1.2', '1.3') {
    my $client = start_ask('GET /1/uwsgi/');
    (eventually { open_connections() eq "1.1 $id" }) or die "no connection $id\n";
    my (undef, $length) = unpack 'Cv', main::read_bytes(connection($id), 4);
    like(main::read_bytes(connection($id), $length), qr/REQUEST_METHOD/, 'uwsgi');
    respond($id, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    close_as_backend('close', $id);
    is(finish($client, 'GET', 200)->{body}, 'ok', $id);
    connections_are('1.1');
}
is(serve('GET /1/'), '1.1', 'HTTP goes on');
