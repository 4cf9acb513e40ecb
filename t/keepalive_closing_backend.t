# A kept connection that the backend closes, resets or sends data on leaves the pool at once: nginx closes it, and the next
# request opens a new one.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

run_tests;

__DATA__

=== a connection closed by the backend leaves the pool
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
serve('GET /2/');
is(worker_descriptors(), 1);
serve_together(('GET /1/') x 5);
is(worker_descriptors(), 6, 'five connections are kept');
close_as_backend('close', map { "1.$_" } 1, 3, 5);
ok(eventually { worker_descriptors() == 3 }, 'three connections are closed');
connections_are('1.2 1.4 2.1');
is(serve('GET /1/'), '1.4', 'those that are left are used') for 1, 2;
close_as_backend('reset', '1.2');
ok(eventually { worker_descriptors() == 2 }, 'reset');
close_as_backend('half', '1.4');
connections_are('2.1', 'a half-closed connection is closed');
is(worker_descriptors(), 1);
is(serve('POST /1/', body => 'x'), '1.6', 'the next request, which nginx cannot repeat, opens a new connection');
is(serve('GET /2/'), '2.1', 'the connection to the other backend stays');
--- no_error_log
[error]
[alert]
[crit]



=== a connection with unexpected data leaves the pool
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
--- perl
serve_together(('GET /1/') x 2);
respond('1.2', "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
connections_are('1.1', 'its connection is closed');
is(serve('GET /1/'), '1.1');
respond('1.1', 'x');
connections_are('', 'one byte is enough');
is(serve('GET /1/'), '1.3');
--- no_error_log
[error]
[alert]
[crit]



=== repeated closing leaks no descriptors
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:1 .* http://$TEST_NGINX_PEER_1
HSET prefix:2 .* http://$TEST_NGINX_PEER_2
--- perl
for my $round (1 .. 20) {
    serve_together(('GET /1/', 'GET /2/') x 8);
    close_as_backend('close', split / /, open_connections());
    eventually { worker_descriptors() == 0 } or do { fail("round $round"); last };
}
is(worker_descriptors(), 0, 'none of 320 connections is left');
--- no_error_log
[error]
[alert]
[crit]
