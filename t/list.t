# urlproxy_list: all tools with a route, in the format of the old stack.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== one tool
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- request
GET /list
--- error_code: 200
--- response_headers
Content-Type: application/json
Content-Length: 29
Retry-After:
Age: 0
--- response_body chomp
{"hello":{"status":"active"}}




=== no tools
--- request
GET /list
--- error_code: 200
--- response_headers
Content-Type: application/json
--- response_body chomp
{}



=== each tool is listed once
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /x http://$TEST_NGINX_TOOL_B
SADD prefix:several http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
HSET prefix:dead .* http://$TEST_NGINX_DEAD_A
HSET prefix: .* http://$TEST_NGINX_TOOL_A
HSET redirect:gone .* tools.example.org
SET other x
--- perl
use JSON::PP;
is_deeply(decode_json(ask('GET /list')->{body}), { map { $_ => { status => 'active' } } 'hello', 'several', 'dead', '' });



=== names are escaped
--- redis eval
[ map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 'a"b\\c', "w\xc3\xaeki", '<b>', "\xf0\x9f\x98\x80" ]
--- perl
use JSON::PP;
my $list = ask('GET /list')->{body};
is_deeply([sort keys %{ decode_json($list) }], [sort 'a"b\\c', "w\x{ee}ki", '<b>', "\x{1f600}"]);
like($list, qr/"a\\"b\\\\c":\{"status":"active"\}/);



=== thousands of tools are listed
--- redis eval
[ map { ['HSET', "prefix:tool-number-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 3000 ]
--- perl
use JSON::PP;
my $answer = ask('GET /list');
is($answer->{headers}{'transfer-encoding'}, 'chunked', 'the list is sent while it is made');
is_deeply([sort keys %{ decode_json($answer->{body}) }], [sort map { "tool-number-$_" } 1 .. 3000]);
my $client = to_nginx();
send_bytes($client, "GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n" x 3);
is(length answer($client)->{body}, length $answer->{body}, 'three at once') for 1 .. 3;



=== the list follows changes
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
redis('HSET', 'prefix:other', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /list')->{body} =~ /"other":/ });
redis('DEL', 'prefix:hello');
ok(eventually { ask('GET /list')->{body} eq '{"other":{"status":"active"}}' });



=== Age is 0 while Redis answers and grows while it does not
--- redis
ACL SETUSER aged reset on >x ~* &* +@all
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- table
redis redis://aged:x@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
--- perl
my $age = sub { ask('GET /list')->{headers}{age} };
ok(eventually { $age->() eq '0' }, 'in step');
redis(qw(ACL SETUSER aged off));
redis(qw(CLIENT KILL USER aged));
ok(eventually { $age->() >= 2 }, 'Redis refuses all clients');
my $before = $age->();
ok(eventually { $age->() > $before }, 'Age grows');
is(ask('GET /list')->{body}, '{"hello":{"status":"active"}}', 'the list stays');
redis(qw(ACL SETUSER aged on));
ok(eventually { $age->() eq '0' }, 'in step again');
redis(qw(ACL DELUSER aged));



=== held withdrawals do not change Age
--- redis
HSET prefix:a .* http://$TEST_NGINX_TOOL_A
HSET prefix:b .* http://$TEST_NGINX_TOOL_A
HSET prefix:c .* http://$TEST_NGINX_TOOL_A
--- table
withdrawal_guard 50% floor=2 hold=1h;
resync_interval 1s;
--- perl
redis('FLUSHALL');
my $comparisons = sub { my @all = error_log() =~ /resync done, .* held=3/g; scalar @all };
ok(eventually { $comparisons->() >= 3 }, 'held through three comparisons');
ok(eventually { ask('GET /list')->{headers}{age} eq '0' });
like(ask('GET /list')->{body}, qr/"a":.*"status"/);



=== the response has one Age header behind another proxy
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- server
location = /front { proxy_pass http://127.0.0.1:$server_port/list; }
--- perl
for my $path (qw(/list /front)) {
    my @ages = ask("GET $path")->{head} =~ /^age: /gmi;
    is(scalar @ages, 1, $path);
}



=== HEAD has no body
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $answer = ask('HEAD /list');
is(join(' ', $answer->{status}, @{ $answer->{headers} }{qw(content-type content-length age)}), '200 application/json 29 0');



=== other methods are refused
--- perl
for my $method (qw(POST PUT DELETE OPTIONS PATCH)) {
    is(ask("$method /list", body => 'x')->{status}, 405, $method);
}
is(ask('GET /list', body => 'GET /')->{status}, 200, 'a GET may have a body');
my $client = to_nginx();
send_bytes($client, "GET /list HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
is(answer($client)->{status} . ' ' . answer($client)->{status}, '200 204', 'the body is not parsed as a request');



=== the list works in a subrequest
--- http
ssi on;
--- user_files
>>> page
before <!--# include virtual="/list" --> after
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
--- request
GET /page
--- error_code: 200
--- response_body
before {"hello":{"status":"active"}} after



=== the list works in any location, with access control
--- server
location /status/ { urlproxy_list tools; location /status/closed { urlproxy_list tools; deny all; } }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- requests
/status/        200
/status/x?y=z   200
/status/closed  403
