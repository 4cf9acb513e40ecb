# In the modes that need a host, a request without one is answered with 400.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== only subdomain and domain mode need a host
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- server
location /subdomain { urlproxy tools subdomain toolforge.org; urlproxy_default hello; proxy_pass http://tools; }
location /domain { urlproxy tools domain; urlproxy_default hello; proxy_pass http://tools; }
--- perl
for (['/hello/', 200], ['/subdomain', 400], ['/domain', 400]) {
    my ($uri, $status) = @$_;
    my $client = to_nginx();
    send_bytes($client, "GET $uri HTTP/1.0\r\n\r\n");
    is(answer($client)->{status}, $status, $uri);
}



=== the host of the request line overrides the header
--- redis
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
--- location
urlproxy tools domain;
--- config
location / {
    urlproxy tools domain;
    proxy_pass http://tools;
}
location = /up { return 204; }
--- perl
is(ask('GET http://www.example.org/', headers => ['Host: other.example.org'])->{status}, 200);
is(ask('GET http://other.example.org/', headers => ['Host: www.example.org'])->{status}, 404);



=== HTTP/2 uses :authority
--- redis
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
HSET prefix:hello .* http://$TEST_NGINX_TOOL_B
--- http
server {
    listen unix:$TEST_NGINX_SERVER_ROOT/h2.sock http2;
    location / { urlproxy tools domain; proxy_pass http://tools; }
    location /sub { urlproxy tools subdomain toolforge.org; proxy_pass http://tools; }
}
--- perl
my $curl = sub {
    my ($url, @more) = @_;
    my @command = ('curl', '-sS', '--http2-prior-knowledge', '--unix-socket', "$ENV{TEST_NGINX_SERVER_ROOT}/h2.sock",
        '-o', '/dev/null', '-w', '%{http_version} %{http_code}', @more, $url);
    open my $out, '-|', @command or die "curl: $!\n";
    return scalar <$out>;
};
is($curl->('http://WWW.Example.ORG:8080/'), '2 200');
is($curl->('http://other.example.org/'), '2 404');
is($curl->('http://hello.toolforge.org/sub'), '2 200');
