# HEAD responses have the headers of GET and no body.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== HEAD to a tool
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $get  = ask('GET /hello/?body_bytes=1234');
my $head = ask('HEAD /hello/?body_bytes=1234');
is("$head->{status} $head->{headers}{'x-tool'} $head->{headers}{'content-length'}", '200 a 1234');
is($get->{headers}{'content-length'}, 1234);



=== HEAD that misses
--- perl
my $client = start_ask('HEAD /unknown/');
is(answer($client, 1)->{status}, 503);
is(sysread($client, my $more, 1), 0, 'nothing follows the header');



=== HEAD with pipelined requests
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- upstream
keepalive 8;
--- perl
my $client = to_nginx();
for my $method (qw(HEAD HEAD GET HEAD GET)) {
    send_bytes($client, "$method /hello/?body_bytes=9 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    my $answer = answer($client, $method eq 'HEAD');
    is("$answer->{status} $answer->{body}", $method eq 'GET' ? '200 xxxxxxxxx' : '200 ', $method);
}
