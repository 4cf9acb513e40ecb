# The files of nginx-conf/ separate tools: responses and requests of one tool do not affect another.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Returns the response to GET http://HOST/PATH if the test's own backend sends this.
sub answered_with {
    my ($url, $response) = @_;
    my ($host, $path) = $url =~ m{^http://([^/]+)(.*)} or die $url;
    my $client  = start_ask("GET $path", headers => ["Host: $host"]);
    my $backend = accept_on('A');
    read_message($backend);
    send_bytes($backend, $response);
    return ($client, $backend);
}

sub is_not_sent_elsewhere {
    my ($url, @elsewhere) = @_;
    for my $uri (@elsewhere) {
        my ($client) = answered_with($url, join "\r\n", 'HTTP/1.1 200 OK', "X-Accel-Redirect: $uri", 'X-Accel-Limit-Rate: 4096',
            'X-Accel-Expires: 60', 'X-Accel-Charset: koi8-r', 'Content-Type: text/html', 'Content-Length: 4', '', 'mine');
        my $answer = answer($client);
        is("$answer->{status} $answer->{body}", '200 mine', "$url is not sent to $uri");
        is($answer->{headers}{'content-type'}, 'text/html', 'charset');
        unlike($answer->{head}, qr/^X-Accel/mi, 'the client gets none of these headers');
    }
}

# nginx reads no more from the backend than the client reads.
sub streams {
    my ($url) = @_;
    my $whole = 64 << 20;
    my ($client, $backend) =
        answered_with($url, "HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nContent-Length: $whole\r\n\r\n");
    my $part = 'x' x 65536;
    my $sent = 0;
    $backend->blocking(0);
    while ($sent < $whole && IO::Select->new($backend)->can_write(1)) {
        $sent += syswrite($backend, $part) // 0;
    }
    cmp_ok($sent, '<', $whole, "$url streams");
    unlike(read_part($client), qr/X-Accel/i, 'the client does not see the header');
}

sub read_part {
    my ($socket) = @_;
    IO::Select->new($socket)->can_read($timeout) or die "nothing was streamed\n";
    sysread($socket, my $part, 4096) or die "the stream ended\n";
    return $part;
}

# The decrypted request to a TLS backend.
sub names_in_tls {
    my ($url) = @_;
    my ($host, $path) = $url =~ m{^http://([^/]+)(.*)} or die $url;
    my $client = start_ask("GET $path", headers => ["Host: $host"]);
    ok(read_part(accept_on('B')) =~ /\Q$host\E/, "$url: server name in TLS");
}

# `busy` has requests without a response; `calm` belongs to another tenant.
sub limits_open_requests {
    my ($busy, $calm, $missing, $name, $limit) = @_;
    my ($host, $path) = $busy =~ m{^http://([^/]+)(.*)} or die $busy;
    my ($calm_host, $calm_path) = $calm =~ m{^http://([^/]+)(.*)} or die $calm;
    my $ask = sub { ask("GET $_[1]", headers => ["Host: $_[0]"]) };
    my (@waiting, @backends);
    for (1 .. $limit // 3) {
        push @waiting,  start_ask("GET $path", headers => ["Host: $host"]);
        push @backends, scalar accept_on('A');
    }
    for (1 .. 50) {
        my $answer = $ask->($host, $path);
        $answer->{status} == 503 && $answer->{body} =~ /\Q$name\E has too many open requests/ && $answer->{headers}{'retry-after'}
            or return fail("request $_ beyond the limit: $answer->{status} $answer->{body}");
    }
    pass("$busy: 50 requests beyond the limit are refused, and say why");
    is($ask->($calm_host, $calm_path)->{headers}{'x-tool'}, 'b', "$calm is answered");
    # nginx logs each key that is too long to count.
    my ($no_host, $no_path) = $missing =~ m{^http://([^/]+)(.*)} or die $missing;
    unlike($ask->($no_host, $no_path)->{body}, qr/too many/, "$missing is answered as before");
    unlike(error_log(), qr/more than 255 bytes/, 'no key is too long to count');
    read_message($_), send_bytes($_, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate") for @backends;
    is(answer($_)->{body}, 'late', 'those within it are answered') for @waiting;
    close $_ for @backends;
    my ($client) = answered_with($busy, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
    is(answer($client)->{body}, 'next', 'the limit admits requests again');
}

run_tests;

__DATA__

=== urlproxy.conf: X-Accel headers are ignored
--- shipped: urlproxy.conf
--- server
location /secret/ { internal; return 200 "internal"; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
is_not_sent_elsewhere('http://tools.example.org/hello/', qw(/secret/x /other/x @no_answer));
streams('http://tools.example.org/hello/');



=== subdomain.conf: X-Accel headers are ignored
--- shipped: subdomain.conf urlproxy.conf
--- server
location /secret/ { internal; return 200 "internal"; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- perl
is_not_sent_elsewhere('http://hello.toolforge.org/', qw(/secret/x /other/x @no_answer));
streams('http://hello.toolforge.org/');



=== domainproxy.conf: X-Accel headers are ignored
--- shipped: domainproxy.conf
--- server
location /secret/ { internal; return 200 "internal"; }
--- redis
SADD frontend:one.example http://$TEST_NGINX_OWN_A
--- perl
is_not_sent_elsewhere('http://one.example/', qw(/secret/x @too_many));
streams('http://one.example/');



=== urlproxy.conf: a shared cache separates tools
--- shipped: urlproxy.conf
--- http
proxy_cache_path $TEST_NGINX_SERVROOT/cache keys_zone=pages:1m;
--- location
proxy_cache pages;
proxy_cache_valid 1m;
add_header X-Urlproxy-Cache $upstream_cache_status;
--- redis
HSET prefix:admin .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- requests
http://tools.example.org/hello/x     200  a  cache=MISS
http://tools.example.org/hello/x     200  a  cache=HIT
http://tools.example.org/other/x     200  b  cache=MISS
http://attacker.example/other/x      200  b  cache=MISS
http://tools.example.org/other/x     200  b  cache=HIT
--- perl
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
my $tool = sub { ask('GET /hello/x', headers => ['Host: tools.example.org'])->{headers}{'x-tool'} };
ok(eventually { $tool->() eq 'c' }, "the new tool's page, not the one that was kept of the default tool");
redis('DEL', 'prefix:hello');
ok(eventually { $tool->() eq 'a' }, 'no page of a withdrawn tool');



=== subdomain.conf: a shared cache separates tools
--- shipped: subdomain.conf urlproxy.conf
--- http
proxy_cache_path $TEST_NGINX_SERVROOT/cache keys_zone=pages:1m;
--- location
proxy_cache pages;
proxy_cache_valid 1m;
add_header X-Urlproxy-Cache $upstream_cache_status;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
--- requests
http://hello.toolforge.org/x            200  a  cache=MISS
http://hello.toolforge.org/x            200  a  cache=HIT
http://other.toolforge.org/x            200  b  cache=MISS
http://other.toolforge.org/x            200  b  cache=HIT
http://tools.example.org/hello/x        200  a  cache=MISS
http://unknown.example/hello/x          503



=== domainproxy.conf: a shared cache separates domains
--- shipped: domainproxy.conf
--- http
proxy_cache_path $TEST_NGINX_SERVROOT/cache keys_zone=pages:1m;
--- location
proxy_cache pages;
proxy_cache_valid 1m;
add_header X-Urlproxy-Cache $upstream_cache_status;
--- redis
SADD frontend:one.example http://$TEST_NGINX_TOOL_A
SADD frontend:two.example http://$TEST_NGINX_TOOL_B
SADD frontend:*.example http://$TEST_NGINX_TOOL_C
--- requests
http://one.example/x    200  a  cache=MISS
http://one.example/x    200  a  cache=HIT
http://two.example/x    200  b  cache=MISS
http://two.example/x    200  b  cache=HIT
http://more.example/x   200  c  cache=MISS
http://other.example/x  200  c  cache=MISS



=== urlproxy.conf: a tool gets the client's host
--- shipped: urlproxy.conf
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:tls .* https://$TEST_NGINX_OWN_B
--- perl
my $sees = sub {
    my $socket = to_nginx();
    send_bytes($socket, "$_[0]\r\n\r\n");
    return answer($socket)->{body} =~ /^host: (.*)$/m ? $1 : '-';
};
is($sees->("GET /hello/ HTTP/1.1\r\nHost: Tools.Example.Org:80"), 'tools.example.org', 'the host of the client');
is($sees->("GET /hello/ HTTP/1.0"), 'tools.example.org', 'HTTP/1.0 without Host');
is($sees->("GET http://tools.example.org/hello/ HTTP/1.1\r\nHost: other.example"), 'tools.example.org', 'absolute form');
names_in_tls('http://tools.example.org/tls/');



=== subdomain.conf: a tool gets the client's host
--- shipped: subdomain.conf urlproxy.conf
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:tls .* https://$TEST_NGINX_OWN_B
--- perl
like(ask('GET /', headers => ['Host: hello.toolforge.org'])->{body}, qr/^host: hello\.toolforge\.org$/m, 'Host');
names_in_tls('http://tls.toolforge.org/');



=== domainproxy.conf: a backend gets the client's host
--- shipped: domainproxy.conf
--- redis
SADD frontend:one.example http://$TEST_NGINX_TOOL_A
SADD frontend:tls.example https://$TEST_NGINX_OWN_B
--- perl
like(ask('GET /', headers => ['Host: one.example'])->{body}, qr/^host: one\.example$/m, 'Host');
names_in_tls('http://tls.example/');



=== urlproxy.conf: open requests of a tool are limited
--- shipped: urlproxy.conf
--- limit: 3
--- redis
HSET prefix:busy .* http://$TEST_NGINX_OWN_A
HSET prefix:calm .* http://$TEST_NGINX_TOOL_B
--- perl
limits_open_requests('http://tools.example.org/busy/', 'http://tools.example.org/calm/', 'http://tools.example.org/' . 'no' x 200, 'The tool busy');



=== urlproxy.conf: the limit is exact
--- shipped: urlproxy.conf
--- redis
HSET prefix:busy .* http://$TEST_NGINX_OWN_A
HSET prefix:calm .* http://$TEST_NGINX_TOOL_B
--- perl
my $site = 'http://tools.example.org/';
limits_open_requests("${site}busy/", "${site}calm/", $site . 'no' x 200, 'The tool busy', 200);



=== subdomain.conf: open requests of a tool are limited
--- shipped: subdomain.conf urlproxy.conf
--- limit: 3
--- redis
HSET prefix:busy .* http://$TEST_NGINX_OWN_A
HSET prefix:calm .* http://$TEST_NGINX_TOOL_B
--- perl
limits_open_requests('http://busy.toolforge.org/', 'http://calm.toolforge.org/', 'http://' . 'no' x 200 . '.toolforge.org/', 'The tool busy');



=== domainproxy.conf: open requests of a host are limited
--- shipped: domainproxy.conf
--- limit: 3
--- redis
SADD frontend:busy.example http://$TEST_NGINX_OWN_A
SADD frontend:calm.example http://$TEST_NGINX_TOOL_B
--- perl
limits_open_requests('http://busy.example/', 'http://calm.example/', 'http://' . 'no' x 200 . '.example/', 'The domain busy.example');



=== domainproxy.conf: the hosts of a wildcard share one limit
--- shipped: domainproxy.conf
--- limit: 3
--- redis
SADD frontend:*.busy.example http://$TEST_NGINX_OWN_A
SADD frontend:calm.example http://$TEST_NGINX_TOOL_B
--- perl
my @waiting  = map { start_ask('GET /', headers => ["Host: $_.busy.example"]) } 1 .. 3;
my @backends = map { scalar accept_on('A') } @waiting;
my $answer   = ask('GET /', headers => ['Host: another.busy.example']);
like("$answer->{status} $answer->{body}", qr/^503 The domain \*\.busy\.example has too many open requests/);
is(ask('GET /', headers => ['Host: calm.example'])->{headers}{'x-tool'}, 'b');
close $_ for @backends;
