# A connection is kept after complete responses without `Connection: close`, as by nginx's own keepalive.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

# Sends each of these, [name, line, response, status, options], and checks whether the connection stays open and serves the
# next request.
sub are_kept {
    my ($is_kept, @asked) = @_;
    for my $asked (@asked) {
        my ($name, $line, $response, $status, @with) = @$asked;
        my $id = serve("$line /1/", answer => $response, status => $status, @with);
        connections_are($is_kept ? $id : '', $name);
        my $next = serve('GET /1/');
        $is_kept ? is($next, $id, 'reused') : isnt($next, $id, 'the next request opens a new connection');
        close_as_backend('half', $next);
        connections_are('');
    }
}

our @kept = (
    ['length',              'GET',  "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",                             200],
    ['length 0',            'GET',  "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",                                200],
    ['large',               'GET',  "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" . 'x' x 300000,            200],
    ['chunked',             'GET',  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",  200],
    ['keep-alive',          'GET',  "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",      200],
    ['HEAD',                'HEAD', "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",                                200],
    ['HEAD of a chunked',   'HEAD', "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",                       200],
    ['status 204',          'GET',  "HTTP/1.1 204 No Content\r\n\r\n",                                             204],
    ['status 304',          'GET',  "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",                      304],
    ['status 404',          'GET',  "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",                         404],
    ['status 500',          'GET',  "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",             500],
    ['POST',                'POST', "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",                                200, body => 'abc'],
    ['large POST',          'POST', "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",                                200, body => 'x' x 300000],
);
our @not_kept = (
    ['Connection: close',   'GET',  "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",        200],
    ['HTTP/1.0',            'GET',  "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",                             200],
    ['HTTP/1.0 keep-alive', 'GET',  "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",   200],
    ['more than the length', 'GET', "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",                          200],
    ['body of a 204',       'GET',  "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",                     204],
);

sub read_more {
    my ($socket, $into) = @_;
    IO::Select->new($socket)->can_read($timeout) && sysread($socket, $$into, 4096, length $$into) or die "no request\n";
}

run_tests;

__DATA__

=== complete responses keep the connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
are_kept(1, @::kept);



=== complete unbuffered responses keep the connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_buffering off;
proxy_request_buffering off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
are_kept(1, @::kept);



=== other responses close the connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
are_kept(0, @::not_kept);



=== other unbuffered responses close the connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_buffering off;
proxy_request_buffering off;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
are_kept(0, @::not_kept);



=== Connection: close of nginx itself closes the connection
--- config
location / { urlproxy tools path; proxy_pass http://tools; proxy_http_version 1.1; }
location /10/ { urlproxy tools path; proxy_pass http://tools; proxy_http_version 1.0; proxy_set_header Connection ""; }
location = /up { return 204; }
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:10 .* http://$TEST_NGINX_PEER_1
--- perl
# As nginx's own keepalive, the pool trusts the backend: a closed connection leaves at once.
for my $path ('/1/', '/10/') {
    my $id = serve("GET $path");
    close_as_backend('close', $id) if open_connections() =~ /\b\Q$id\E\b/;
    isnt(serve("GET $path"), $id, $path);
}



=== a response before the whole request closes the connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_request_buffering off;
client_max_body_size 100m;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $client = start_ask('POST /1/', headers => ['Content-Length: 1000']);
send_bytes($client, 'part');
ok(eventually { open_connections() eq '1.1' }, 'the backend has a connection');
my $request = '';
read_more(connection('1.1'), \$request) until $request =~ /\r\n\r\npart\z/;
respond('1.1', "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n");
finish($client, 'POST', 413);
connections_are('', 'closed');
is(serve('GET /1/'), '1.2', 'the next request arrives on a new connection');



=== an aborted client closes the connection
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
my $client = start_ask('GET /1/');
is(scalar arrived($client), '1.1');
close $client;
connections_are('', 'closed with the client');
is(serve('GET /1/'), '1.2');



=== a timeout closes the connection
--- upstream
urlproxy_keepalive 64;
--- location
proxy_read_timeout 1s;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve('GET /1/');
my $client = start_ask('GET /1/');
is(scalar arrived($client), '1.1');
finish($client, 'GET', 504);
connections_are('');
is(serve('GET /1/'), '1.2');



=== an intercepted error keeps the connection only without a body
--- upstream
urlproxy_keepalive 64;
--- location
proxy_intercept_errors on;
error_page 404 /up;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
# nginx does not read its body and keeps the connection only if there is none.
is(serve('GET /1/', answer => "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", status => 404), '1.1');
connections_are('', 'with a body');
is(serve('GET /2/', answer => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", status => 404), '2.1');
connections_are('2.1', 'without');



=== an extra response never reaches another tool's client
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
# Extra data after a response, which looks like the next response.
my $smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
serve('GET /1/', answer => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok$smuggled");
for (1 .. 5) {
    my $client = start_ask('GET /1/');
    my $id     = arrived($client);
    respond($id, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue$smuggled");
    is(finish($client, 'GET', 200)->{body}, 'true');
}
