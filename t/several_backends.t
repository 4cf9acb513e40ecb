# A tool with several backends: they take turns, and a failing one fails no request.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== backends take turns
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
my $asked = join '', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 6;
like($asked, qr/^(ab){3}$|^(ba){3}$/);



=== each tool has its own turns
--- redis
SADD prefix:one http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
SADD prefix:two http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
my %asked;
for my $tool (qw(one two) x 4) { $asked{$tool} .= ask("GET /$tool/")->{headers}{'x-tool'} }
like($asked{$_}, qr/^(ab){2}$|^(ba){2}$/) for qw(one two);



=== a backend that refuses connections is skipped for any method
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_A http://$TEST_NGINX_TOOL_B
--- perl
for my $method (qw(GET POST PUT DELETE HEAD)) {
    my @got = map { my $answer = ask("$method /hello/"); "$answer->{status} $answer->{headers}{'x-tool'}" } 1 .. 3;
    is(scalar(grep { /^200 [ab]$/ } @got), 3, "$method: @got");
}
--- error_log
urlproxy_peers: backend failed; unavailable for 10 s, backend=http://$TEST_NGINX_DEAD_A tool="hello"



=== the variables show the backend that answered
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_A
--- perl
is(ask('GET /hello/')->{headers}{'x-urlproxy-backend'}, "http://$ENV{TEST_NGINX_TOOL_A}") for 1, 2;



=== a failed backend becomes unavailable
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- perl
my $failed = 0;
for (1, 2) {
    my $client = start_ask('GET /hello/');
    if (next_backend($client)) {
        my $backend = accept_on('A');
        read_message($backend);
        close $backend;
        $failed++;
    }
    is(answer($client)->{headers}{'x-tool'}, 'a', 'the other backend answers');
}
is($failed, 1, 'one of two requests starts with the failing backend');
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a') for 1 .. 4;
ok(has_no_connection('A'), 'the next request skips it');
--- error_log
urlproxy_peers: backend failed; unavailable for 10 s, backend=http://$TEST_NGINX_OWN_A tool="hello"



=== failures of one tool do not affect another
--- redis
SADD prefix:one http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
SADD prefix:two http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_OWN_A
--- perl
for my $tool (qw(one two)) {
    my $failed = 0;
    for (1 .. 4) {
        my $client = start_ask("GET /$tool/");
        if (next_backend($client)) { close accept_on('A'); $failed++ }
        is(answer($client)->{headers}{'x-tool'}, $tool eq 'one' ? 'a' : 'b');
    }
    is($failed, 1, "$tool finds out by itself, once");
}



=== a request tries each backend once and returns the last failure
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
# If all are unavailable, all are tried.
for my $round (1, 2) {
    my $client = start_ask("GET /hello/$round");
    for my $turn (1, 2) {
        my $name    = next_backend($client);
        my $backend = accept_on($name);
        like(read_message($backend)->{head}, qr{\AGET /hello/$round }, "round $round: $name");
        close $backend;
    }
    is(answer($client)->{status}, 502, "round $round: both failed");
    ok(has_no_connection('A') && has_no_connection('B'), "round $round: none was asked twice");
}



=== all backends refuse connections
--- redis
SADD prefix:hello http://$TEST_NGINX_DEAD_A http://$TEST_NGINX_DEAD_B
--- location
add_header X-Addr "$upstream_addr" always;
--- perl
for (1 .. 3) {
    my $answer = ask('GET /hello/');
    is($answer->{status}, 502);
    is(join(' ', sort split /, /, $answer->{headers}{'x-addr'}), join(' ', sort @ENV{qw(TEST_NGINX_DEAD_A TEST_NGINX_DEAD_B)}));
}



=== a POST that a backend has read is not repeated
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
my $client = start_ask('POST /hello/', body => 'once');
my $backend = accept_on(next_backend($client));
is(read_message($backend)->{body}, 'once');
close $backend;
is(answer($client)->{status}, 502);
ok(has_no_connection('A') && has_no_connection('B'));



=== non_idempotent repeats a POST
--- location
proxy_next_upstream error timeout non_idempotent;
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
my $client = start_ask('POST /hello/', body => 'twice');
my %asked;
for my $turn (1, 2) {
    my $name = next_backend($client);
    $asked{$name} = accept_on($name);
    is(read_message($asked{$name})->{body}, 'twice');
    send_bytes($asked{$name}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") if $turn == 2;
    close $asked{$name};
}
is(answer($client)->{status}, 200);
is(scalar keys %asked, 2);



=== a status in proxy_next_upstream is a failure
--- location
proxy_next_upstream http_503;
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- perl
my $failed = 0;
for (1, 2) {
    my $client = start_ask('GET /hello/');
    if (next_backend($client)) {
        my $backend = accept_on('A');
        read_message($backend);
        send_bytes($backend, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        $failed++;
    }
    is(answer($client)->{headers}{'x-tool'}, 'a');
}
is($failed, 1, 'one request starts with the failing backend');



=== other error statuses are responses
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
my @got = map { my $answer = ask('GET /hello/?status=503'); "$answer->{status}$answer->{headers}{'x-tool'}" } 1 .. 4;
like("@got", qr/^503(a 503b 503a 503b|b 503a 503b 503a)$/);



=== proxy_next_upstream_tries limits the tries
--- redis
SADD prefix:hello http://$TEST_NGINX_DEAD_A http://$TEST_NGINX_DEAD_B
--- location
proxy_next_upstream_tries 1;
add_header X-Addr "$upstream_addr" always;
--- perl
my $answer = ask('GET /hello/');
is($answer->{status}, 502);
unlike($answer->{headers}{'x-addr'}, qr/,/);



=== a single backend never becomes unavailable
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
for (1 .. 3) {
    my $client = start_ask('GET /hello/');
    close accept_on('A');
    is(answer($client)->{status}, 502);
}



=== a name among addresses is skipped
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://no-such-host.example:80 http://$TEST_NGINX_TOOL_B
--- perl
my @got = map { ask('GET /hello/')->{status} } 1 .. 6;
is("@got", '200 200 200 200 200 200');



=== 64 backends
--- redis eval
[ ['SADD', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_A}", map { "http://127.0.0.$_:1" } 2 .. 64] ]
--- perl
# The 63 failing backends are tried only once.
is(ask('GET /hello/')->{status}, 200, "request $_") for 1 .. 70;
--- no_error_log
[alert]
panic
