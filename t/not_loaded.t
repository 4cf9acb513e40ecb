# Before the initial load, requests are answered with 503 and Retry-After; they are not misses.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== 503 while Redis refuses connections
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- location
urlproxy_miss 404;
--- perl
for my $path ('/hello/', '/list') {
    my $answer = ask("GET $path");
    is("$answer->{status} $answer->{headers}{'retry-after'}", '503 1', $path);
    ok(!exists $answer->{headers}{age}, "$path has no age");
}
is(ask('GET /hello/')->{headers}{'x-urlproxy-result'}, 'unready');
is(ask('HEAD /list')->{status}, 503);
--- error_log
; the table is incomplete until Redis answers, source=redis://$TEST_NGINX_DEAD_A/0
; keeping existing routes, source=redis://$TEST_NGINX_DEAD_A/0



=== nginx starts while Redis accepts without replying
--- table
redis redis://$TEST_NGINX_OWN_A/0;
wait_for_routes 300ms;
--- perl
is(ask('GET /hello/')->{status}, 503);
is(ask('GET /up')->{status}, 204);



=== 503 while the source is not Redis
--- table
redis redis://$TEST_NGINX_TOOL_A/0;
wait_for_routes 100ms;
--- perl
my $answer = ask('GET /hello/');
is("$answer->{status} $answer->{headers}{'retry-after'}", '503 1');



=== the default does not answer before the load
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- server
location /tool { urlproxy tools path; urlproxy_default admin; proxy_pass http://tools; }
--- location
urlproxy_default http://$TEST_NGINX_TOOL_A;
--- requests
/tool/   503  -
/hello/  503  -  result=unready



=== error_page keeps Retry-After
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- server
location @sorry { default_type text/plain; return 503 "$urlproxy_result $urlproxy_tool"; }
--- location
error_page 503 @sorry;
--- perl
my $answer = ask('GET /hello/');
is("$answer->{status} $answer->{headers}{'retry-after'} $answer->{body}", '503 1 unready hello');



=== an empty Redis counts as loaded
--- requests
/hello/  503  -  result=miss
/list    200



=== routes are loaded when Redis appears later
--- table
redis redis://$TEST_NGINX_OWN_A/0;
wait_for_routes 0;
--- perl
# A minimal Redis, enough for one tool.
is(ask('GET /hello/')->{status}, 503, 'no routes yet');
my $redis;
my $loaded = eventually {
    $redis //= has_no_connection('A') ? undef : accept_on('A');
    return 0 unless $redis;
    serve_redis($redis) or undef $redis;
    ask('GET /hello/')->{status} == 200;
};
ok($loaded, 'served once Redis is up');

sub serve_redis {
    my ($socket) = @_;
    while (IO::Select->new($socket)->can_read(0.05)) {
        my $line = sub { my ($text, $byte) = ''; until ($text =~ s/\r\n\z//) { sysread $socket, $byte, 1 or return ''; $text .= $byte } $text };
        my ($count) = $line->() =~ /^\*(\d+)/ or return 0;
        my ($command, @rest) = map { $line->(); $line->() } 1 .. $count;
        send_bytes($socket,
            $command eq 'HELLO' ? "%3\r\n\$6\r\nserver\r\n\$5\r\nredis\r\n\$5\r\nproto\r\n:3\r\n\$4\r\nrole\r\n\$6\r\nmaster\r\n"
          : $command eq 'SCAN' ? "*2\r\n\$1\r\n0\r\n*1\r\n\$12\r\nprefix:hello\r\n"
          : $command eq 'HGETALL' ? "%1\r\n\$2\r\n.*\r\n\$" . length("http://$ENV{TEST_NGINX_TOOL_A}") . "\r\nhttp://$ENV{TEST_NGINX_TOOL_A}\r\n"
          : $command eq 'PING' ? "+PONG\r\n" : "+OK\r\n");
    }
    return 1;
}



=== several error pages add one Retry-After
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- location
recursive_error_pages on;
error_page 503 /sorry/;
--- perl
for my $path ('/hello/', '/list') {
    my @lines = ask("GET $path")->{head} =~ /^(Retry-After: .*?)\r$/mg;
    is("@lines", 'Retry-After: 1', $path);
}
