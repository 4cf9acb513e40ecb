# urlproxy_loop_mark: a request to a backend given by name carries the loop mark, and is answered with 508 if it returns.
use lib 't/lib';
use UrlproxyTest 'no_plan';

my $dns;

# A name server that resolves every name to 127.0.0.1.
BEGIN {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') or die "socket: $!";
    $ENV{TEST_NGINX_DNS} = '127.0.0.1:' . $socket->sockport;
    $dns = fork // die "fork: $!";
    if (!$dns) {
        while (defined $socket->recv(my $query, 512)) {
            my ($id, $question) = (substr($query, 0, 2), substr $query, 12);
            my $end = index($question, "\0") + 5;
            $question = substr $question, 0, $end;
            my $is_a = substr($question, -4, 2) eq "\0\1";
            my $answer = $is_a ? pack('n n n N n C4', 0xc00c, 1, 1, 60, 4, 127, 0, 0, 1) : '';
            $socket->send($id . pack('n5', 0x8180, 1, $is_a ? 1 : 0, 0, 0) . $question . $answer);
        }
        exit;
    }
}
END { my $status = $?; if ($dns) { kill 'KILL', $dns; waitpid $dns, 0 } $? = $status }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(pass => '$urlproxy_backend') unless defined $block->pass;
    $block->set_value(server => "resolver $ENV{TEST_NGINX_DNS} ipv6=off;\n" . ($block->server // ''));
});

# Answers a request at the test's own backend A, and returns the request.
sub seen_by_a {
    my (@request) = @_;
    my $client  = start_ask(@request);
    my $backend = accept_on('A');
    my $head    = read_message($backend)->{head};
    send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    close $backend;
    is(answer($client)->{status}, 200, $request[0]);
    return join '|', $head =~ /^CDN-Loop: (.*?)\r$/mgi;
}

# The number of logged passes of a request. The client is answered before the last one is logged.
sub times_seen {
    my $count = sub {
        open my $file, '<', UrlproxyTest::server_root() . '/logs/access.log' or die "access.log: $!";
        return scalar grep { m{"GET /hello/} } <$file>;
    };
    eventually { $count->() >= 2 };
    return $count->();
}

run_tests;

__DATA__

=== a name that leads back here is answered with 508
--- redis
HSET prefix:hello .* http://loop.example:$TEST_NGINX_SERVER_PORT
--- perl
is(ask('GET /hello/')->{status}, 508);
is(times_seen(), 2, 'the request passed twice');
ask('GET /hello/') for 1 .. 50;
my $seconds = time - int $UrlproxyTest::begun;
my $lines   = () = error_log() =~ /leads back to this proxy/g;
cmp_ok($lines, '<=', 1 + $seconds, 'logged at most once per second');
--- error_log
urlproxy: backend leads back to this proxy; answering 508, backend=http://loop.example:$TEST_NGINX_SERVER_PORT tool="hello" suppressed=0



=== a loop through one of several backends is detected
--- redis
SADD prefix:hello http://loop.example:$TEST_NGINX_SERVER_PORT http://again.example:$TEST_NGINX_SERVER_PORT
--- perl
is(ask('GET /hello/')->{status}, 508);
is(times_seen(), 2);



=== loops are detected in domain mode and for a default backend
--- server
location /domain/ { urlproxy tools domain; proxy_pass $urlproxy_backend; proxy_set_header Host $host; }
location /default/ { urlproxy tools path; urlproxy_default http://loop.example:$TEST_NGINX_SERVER_PORT; proxy_pass $urlproxy_backend; }
--- redis
SADD frontend:a.example.org http://loop.example:$TEST_NGINX_SERVER_PORT
--- requests
http://a.example.org/domain/  508
/default/                     508



=== a name that leads elsewhere gets the request with the mark
--- redis
HSET prefix:hello .* http://tool.example:$TEST_NGINX_OWN_A_PORT
--- perl
my $mark = seen_by_a('GET /hello/');
like($mark, qr/^urlproxy-[0-9a-f]{16}$/, 'the mark');
is(seen_by_a('GET /hello/'), $mark, 'the mark is constant');
is(seen_by_a('GET /hello/', headers => ['cdn-loop: a;v="1", b', 'X-After: 1']), qq(a;v="1", b, $mark), 'marks of other proxies stay');
is(seen_by_a('GET /hello/', headers => ['CDN-Loop: a', 'CDN-Loop: b']), "a|b, $mark", 'also on several lines');
is(seen_by_a('GET /hello/', headers => [map { "X-$_: $_" } 1 .. 50]), $mark, 'among many headers');
is(seen_by_a('GET /hello/', headers => ["CDN-Loop: x$mark, $mark-"]), "x$mark, $mark-, $mark", 'a similar value is no mark');
for my $value ($mark, uc $mark, "a, $mark", "a,$mark ;v=1, b") {
    is(ask('GET /hello/', headers => ["CDN-Loop: $value"])->{status}, 508, $value);
}
ok(has_no_connection('A'));



=== a second pass from an error location is no loop
--- server
location @again { urlproxy tools path; proxy_pass $urlproxy_backend; add_header X-Again 1 always; }
--- location
error_page 502 = @again;
--- redis
HSET prefix:hello .* http://dead.example:$TEST_NGINX_DEAD_A_PORT
--- perl
my $answer = ask('GET /hello/');
is_deeply([$answer->{status}, $answer->{headers}{'x-again'}], [502, 1]);



=== subrequests are marked and stopped like others
--- server
location = /check { internal; urlproxy tools path; rewrite ^ /auth/ break; proxy_pass $urlproxy_backend; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
--- location
auth_request /check;
--- redis
HSET prefix:hello .* http://tool.example:$TEST_NGINX_OWN_A_PORT
HSET prefix:auth .* http://tool.example:$TEST_NGINX_OWN_A_PORT
--- perl
my $client = start_ask('GET /hello/', headers => ['CDN-Loop: a']);
my @marks;
for (1, 2) {
    my $backend = accept_on('A');
    push @marks, read_message($backend)->{head} =~ /^CDN-Loop: (.*?)\r$/mgi;
    send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    close $backend;
}
is(answer($client)->{status}, 200);
like("@marks", qr/^(a, urlproxy-\w{16}) \1$/, 'once in each subrequest');



=== a backend given by address is not marked
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
is(seen_by_a('GET /hello/'), '');
is(seen_by_a('GET /hello/', headers => ['CDN-Loop: a']), 'a');



=== on marks backends given by address too
--- location
urlproxy_loop_mark on;
--- pass: http://tools
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $mark = seen_by_a('GET /hello/');
like($mark, qr/^urlproxy-/);
is(ask('GET /hello/', headers => ["CDN-Loop: $mark"])->{status}, 508, 'the other proxy sends it back');



=== off marks nothing
--- location
urlproxy_loop_mark off;
--- redis
HSET prefix:hello .* http://tool.example:$TEST_NGINX_OWN_A_PORT
--- perl
is(seen_by_a('GET /hello/'), '');



=== loops are detected over HTTP/2
--- http
server {
    listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1 http2;
    resolver $TEST_NGINX_DNS ipv6=off;
    location / { urlproxy tools path; proxy_pass $urlproxy_backend; }
}
--- redis
HSET prefix:hello .* http://tool.example:$TEST_NGINX_OWN_A_PORT
--- perl
open my $conf, '<', UrlproxyTest::server_root() . '/conf/nginx.conf' or die;
my ($address) = map { /listen (127\.0\.0\.1:\d+) http2/ } <$conf>;
my $ask = sub { open my $curl, '-|', qw(curl -s --http2-prior-knowledge --max-time 5 -o /dev/null -w), '%{http_code} %{http_version}', '-H', "CDN-Loop: $_[0]", "http://$address/hello/" or die; $curl };
my $curl    = $ask->('a');
my $backend = accept_on('A');
my ($marks) = read_message($backend)->{head} =~ /^CDN-Loop: (.*?)\r$/mi;
send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
close $backend;
is(<$curl>, '200 2');
like($marks, qr/^a, urlproxy-\w{16}$/);
is(readline($ask->($marks)), '508 2');
