# A route that changes while a request waits (for its body, for another handler) is used in its new state.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use feature 'state';

# Sends half a request, changes routes, waits until a marker route written last is served, and sends the other half.
our $moves = sub {
    my (@commands) = @_;
    my $client = main::to_nginx();
    main::send_bytes($client, "POST /hello/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab");
    # The only worker reads the head before it answers a later request.
    main::ask('GET /up');
    state $mark = 0;
    $mark++;
    main::redis(@$_) for @commands, ['HSET', "prefix:mark$mark", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"];
    main::ok(main::eventually(sub { main::ask("GET /mark$mark/")->{status} == 200 }), 'the change is served');
    main::send_bytes($client, 'cd');
    return main::answer($client);
};

run_tests;

__DATA__

=== a route that changes during an upload
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $answer = $main::moves->(['HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}"]);
is("$answer->{status} $answer->{headers}{'x-tool'} $answer->{headers}{'x-urlproxy-backend'}", "200 b http://$ENV{TEST_NGINX_TOOL_B}");
like($answer->{body}, qr/^body: 4 bytes/m);



=== a route withdrawn during an upload is answered with 502
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
is($main::moves->(['DEL', 'prefix:hello'])->{status}, 502);
ok(has_no_connection('A'));
--- error_log
urlproxy_peers: route withdrawn while the request waited; answering 502, tool="hello"



=== a former backend is not used while new routes are being built
--- table
zone 64m;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client = to_nginx();
send_bytes($client, "POST /hello/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab");
ask('GET /up');
redis('DEL', 'prefix:hello');
redis('HSET', 'prefix:gone', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /gone/')->{status} == 200 }, 'gone');
# Where reading a key takes long, the withdrawal of a tool that was read just now waits its turn, behind the other tool.
ok(eventually { ask('GET /list')->{body} !~ /"hello"/ }, 'not listed');
# Behind all these the tool waits long enough.
for my $tool (1 .. 40, 'hello') {
    my $key = $tool eq 'hello' ? 'prefix:hello' : "prefix:heavy$tool";
    redis('HSET', $key, map { ("x$_" . "[ab]*a[ab]{12}$tool\$" => "http://$ENV{TEST_NGINX_OWN_A}") } 10 .. 41);
}
ok(eventually { ask('GET /hello/')->{headers}{'x-urlproxy-result'} eq 'unready' }, 'the tool waits to be built');
send_bytes($client, 'cd');
is(answer($client)->{status}, 502);
ok(has_no_connection('A'));
--- error_log
route rejected



=== a new backend beside the chosen one changes nothing
--- location
set $backend $urlproxy_backend;
add_header X-Early "$backend";
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
for my $round (1 .. 3) {
    for my $command ('SADD', 'SREM') {
        my $headers = $main::moves->([$command, 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_C}"])->{headers};
        is($headers->{'x-early'}, $headers->{'x-urlproxy-backend'}, "round $round: $command") unless $headers->{'x-early'} eq "http://$ENV{TEST_NGINX_TOOL_C}";
    }
}



=== a route that changes during auth_request
--- location
auth_request /check;
--- server
location = /check { internal; proxy_pass http://$TEST_NGINX_OWN_A; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $client = start_ask('GET /hello/');
my $check  = accept_on('A');
read_message($check);
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
redis('HSET', 'prefix:mark', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /list')->{body} =~ /"mark"/ });
send_bytes($check, "HTTP/1.1 204 No Content\r\n\r\n");
is(answer($client)->{headers}{'x-tool'}, 'b');



=== a route that changes during auth_request, with proxy_pass to the variable
--- pass: $urlproxy_backend
--- location
auth_request /check;
--- server
location = /check { internal; proxy_pass http://$TEST_NGINX_OWN_A; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $client = start_ask('GET /hello/');
my $check  = accept_on('A');
read_message($check);
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
redis('HSET', 'prefix:mark', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /list')->{body} =~ /"mark"/ });
send_bytes($check, "HTTP/1.1 204 No Content\r\n\r\n");
is(answer($client)->{headers}{'x-tool'}, 'b');



=== a route withdrawn during auth_request is a miss
--- pass: $urlproxy_backend
--- location
auth_request /check;
--- server
location = /check { internal; proxy_pass http://$TEST_NGINX_OWN_A; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $client = start_ask('GET /hello/');
my $check  = accept_on('A');
read_message($check);
redis('DEL', 'prefix:hello');
ok(eventually { ask('GET /list')->{body} !~ /"hello"/ });
send_bytes($check, "HTTP/1.1 204 No Content\r\n\r\n");
is(answer($client)->{status}, 503);



=== a retry uses the current backends
--- location
proxy_next_upstream_tries 3;
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
my $client  = start_ask('GET /hello/');
my $first   = next_backend($client);
my $other   = $first eq 'A' ? 'B' : 'A';
my $backend = accept_on($first);
read_message($backend);
redis('SREM', 'prefix:hello', "http://$ENV{\"TEST_NGINX_OWN_$other\"}");
redis('SADD', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_C}");
redis('HSET', 'prefix:mark', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /list')->{body} =~ /"mark"/ });
close $backend;
my $headers = answer($client)->{headers};
is($headers->{'x-tool'}, 'c', 'the current backend gets the request');
is($headers->{'x-urlproxy-backend'}, "http://$ENV{TEST_NGINX_TOOL_C}", 'and shown');
ok(has_no_connection($other));



=== a retry of a withdrawn tool is answered with 502
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
my $client  = start_ask('GET /hello/');
my $first   = next_backend($client);
my $backend = accept_on($first);
read_message($backend);
redis('DEL', 'prefix:hello');
ok(eventually { ask('GET /list')->{body} !~ /"hello"/ });
close $backend;
is(answer($client)->{status}, 502);
ok(has_no_connection($first eq 'A' ? 'B' : 'A'));
