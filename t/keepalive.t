# nginx's own keepalive: connections to backends are reused, and stale connections fail no request.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== keepalive reuses one connection
--- upstream
keepalive 8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:twin .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
my $peer = sub { ask("GET $_[0]")->{body} =~ /^peer: (.*)$/m ? $1 : 'none' };
my %peers;
$peers{ $peer->('/hello/') }++ for 1 .. 5;
is_deeply([values %peers], [5], 'one connection for five requests');
my ($kept) = keys %peers;
my $twin = $peer->('/twin/');
isnt($twin, $kept, 'another tool at the same address has its own connection');
is($peer->('/twin/'), $twin, 'and reuses it');
my $other = $peer->('/other/');
isnt($other, $kept, 'another address has its own connection');
is($peer->('/hello/') . $peer->('/other/'), $kept . $other, 'both are kept');



=== without keepalive nginx decides: since 1.29.7 it keeps connections
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my %peers;
$peers{ ask('GET /hello/')->{body} =~ /^peer: (.*)$/m ? $1 : 'none' }++ for 1 .. 5;
is(scalar keys %peers, nginx_version() ge '001.029.007' ? 1 : 5);



=== each of several backends has its own connection
--- upstream
keepalive 8;
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
my %peers;
for (1 .. 6) {
    my $answer = ask('GET /hello/');
    $answer->{body} =~ /^peer: (.*)$/m or die;
    $peers{ $answer->{headers}{'x-tool'} }{$1}++;
}
is_deeply([map { values %$_ } @peers{qw(a b)}], [3, 3], 'two connections, three requests each');



=== a moved route does not reuse its old connection
--- upstream
keepalive 8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' });



=== a GET on a stale connection is repeated on a new one
--- upstream
keepalive 8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client = start_ask('GET /hello/1');
my $kept   = accept_on('A');
read_message($kept);
send_bytes($kept, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
is(answer($client)->{body}, 1, 'the first request');
$client = start_ask('GET /hello/2');
like(read_message($kept)->{head}, qr{\AGET /hello/2 }, 'the second request arrives on the kept connection');
close $kept;
my $new = accept_on('A');
like(read_message($new)->{head}, qr{\AGET /hello/2 }, 'it arrives again on a new connection');
send_bytes($new, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
is(answer($client)->{body}, 2, 'the client gets its response');



=== a POST on a stale connection is not repeated
--- upstream
keepalive 8;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client = start_ask('GET /hello/');
my $kept   = accept_on('A');
read_message($kept);
send_bytes($kept, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
answer($client);
$client = start_ask('POST /hello/', body => 'x');
read_message($kept);
close $kept;
is(answer($client)->{status}, 502);
ok(has_no_connection('A'), 'no second connection');



=== stale connections to two backends fail no request
--- upstream
keepalive 8;
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_OWN_B
--- perl
my %kept;
for (1, 2) {
    my $client = start_ask('GET /hello/');
    my $name = next_backend($client);
    $kept{$name} = accept_on($name);
    read_message($kept{$name});
    send_bytes($kept{$name}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    answer($client);
}
is_deeply([sort keys %kept], ['A', 'B'], 'both have a connection');
my $client = start_ask('GET /hello/again');
for (1, 2) {
    my ($ready) = IO::Select->new(values %kept)->can_read($timeout) or die 'no request arrived';
    my ($asked) = grep { $kept{$_} == $ready } keys %kept;
    read_message($ready);
    close delete $kept{$asked};
}
my $new = accept_on(next_backend($client));
like(read_message($new)->{head}, qr{\AGET /hello/again }, 'the request arrives on a new connection');
send_bytes($new, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
is(answer($client)->{body}, 'again', 'the client gets its response');



=== the pool does not exceed its size
--- upstream
keepalive 1;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
my $peer = sub { ask("GET $_[0]")->{body} =~ /^peer: (.*)$/m ? $1 : 'none' };
my $first = $peer->('/hello/');
is($peer->('/hello/'), $first, 'one is kept');
$peer->('/other/');
isnt($peer->('/hello/'), $first, 'it was evicted by another');



=== a former tool's open connection is not used for the next tool on its port
--- upstream
keepalive 8;
--- redis
HSET prefix:former .* http://$TEST_NGINX_OWN_A
HSET prefix:next .* http://$TEST_NGINX_OWN_A
--- perl
my $client = start_ask('GET /former/');
my $kept   = accept_on('A');
read_message($kept);
send_bytes($kept, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
is(answer($client)->{body}, 1);
$client = start_ask('GET /next/', headers => ['Cookie: secret']);
my $new = accept_on('A');
like(read_message($new)->{head}, qr{\AGET /next/ .*^Cookie: secret}ms, 'the current listener gets the request');
send_bytes($new, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
is(answer($client)->{body}, 2);
ok(!IO::Select->new($kept)->can_read(0.1), 'and the former tool does not');
$client = start_ask('GET /former/again');
like(read_message($kept)->{head}, qr{\AGET /former/again }, 'the former tool still has its connection');
send_bytes($kept, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3");
is(answer($client)->{body}, 3);



=== a former tool's open IPv6 connection is not used for the next tool
--- upstream
keepalive 8;
--- perl
use IO::Socket::IP;
my $listener = IO::Socket::IP->new(LocalHost => '::1', Listen => 8);
if (!$listener) { ok(1, 'this machine has no IPv6') for 1 .. 4 }
else {
    redis('HSET', "prefix:$_", '.*', 'http://[::1]:' . $listener->sockport) for qw(one two);
    ok(eventually { ask('GET /list')->{body} =~ /"one".*"two"|"two".*"one"/ }, 'routed');
    my %kept;
    for my $tool (qw(one two)) {
        my $client = start_ask("GET /$tool/");
        IO::Select->new($listener)->can_read($timeout) or die "no connection for $tool";
        $kept{$tool} = $listener->accept;
        like(read_message($kept{$tool})->{head}, qr{\AGET /$tool/ });
        send_bytes($kept{$tool}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        answer($client);
    }
    my $client = start_ask('GET /one/again');
    like(read_message($kept{one})->{head}, qr{\AGET /one/again });
    send_bytes($kept{one}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    answer($client);
}



=== tools share connections in shared networks
--- http
upstream common { urlproxy_peers shared=192.0.2.0/24,127.0.0.0/8; keepalive 8; }
--- pass: http://common
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:twin .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
my $peer = sub { ask("GET $_[0]")->{body} =~ /^peer: (.*)$/m ? $1 : 'none' };
my $kept = $peer->('/hello/');
is($peer->('/twin/'), $kept, 'one connection for two tools');
isnt($peer->('/other/'), $kept, 'another address has its own connection');



=== tools do not share connections in other networks
--- http
upstream common { urlproxy_peers shared=192.0.2.0/24; keepalive 8; }
--- pass: http://common
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:twin .* http://$TEST_NGINX_TOOL_A
--- perl
my $peer = sub { ask("GET $_[0]")->{body} =~ /^peer: (.*)$/m ? $1 : 'none' };
my $kept = $peer->('/hello/');
isnt($peer->('/twin/'), $kept);
is($peer->('/hello/'), $kept);
