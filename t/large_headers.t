# Headers up to nginx's limits, and beyond.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== large request headers
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for my $size (10, 1000, 8000) {
    my $answer = ask('GET /hello/', headers => ["X-Large: " . 'x' x $size]);
    is($answer->{status}, 200, "$size bytes");
    like($answer->{body}, qr/^header x-large: x{$size}$/m);
}
my $answer = ask('GET /hello/', headers => [map { "X-Large-$_: " . 'x' x 7000 } 1 .. 3]);
is(scalar(() = $answer->{body} =~ /^header x-large-\d: x{7000}$/mg), 3, 'three of 7000');
$answer = ask('GET /hello/', headers => [map { "X-Many-$_: $_" } 1 .. 80]);
is(scalar(() = $answer->{body} =~ /^header x-many-/mg), 80, '80 headers');
is(ask('GET /hello/', headers => ['X-Large: ' . 'x' x 9000])->{status}, 400, 'more than nginx accepts');
is(ask('GET /unknown/', headers => ['X-Large: ' . 'x' x 8000])->{status}, 503, 'no tool gets the request');



=== large response headers in a sufficient buffer
--- location
proxy_buffer_size 32k;
proxy_buffers 4 32k;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for my $size (10, 4000, 20000) {
    my $answer = ask("GET /hello/?header_bytes=$size");
    is("$answer->{status} " . length $answer->{headers}{'x-padding'}, "200 $size");
}



=== large response headers in a small buffer
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD prefix:several http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
is(ask('GET /hello/?header_bytes=20000')->{status}, 502);
is(ask('GET /hello/')->{status}, 200, 'the worker survives');
is(ask('GET /several/?header_bytes=20000')->{status}, 502, 'all of several');
is(ask('GET /several/')->{status}, 200, 'the worker survives');
--- error_log
upstream sent too big header while reading response header from upstream
