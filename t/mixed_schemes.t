# "proxy_pass https://tools" serves both schemes: only https backends get TLS, whichever backend was tried before.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;
use NginxBackend;

our $says = 'ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; location / { return 200 "tls $connection"; }';
our $where = 'location ~ ^/hello/where { urlproxy tools path; return 200 "$urlproxy_backend"; }';

# Waits until the tool's requests reach this backend.
sub is_routed_to {
    my ($backend) = @_;
    return eventually { index(ask('GET /hello/where')->{body}, $backend) >= 0 };
}

run_tests;

__DATA__

=== the URL of each backend decides
--- pass: https://tools
--- upstream
urlproxy_keepalive 64;
--- server eval: $::where
--- user_files eval: NginxBackend::certificate_files()
--- redis
HSET prefix:plain .* http://$TEST_NGINX_TOOL_A
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    redis('HSET', 'prefix:hello', '.*', "https://127.0.0.1:$port");
    ok(is_routed_to("https://127.0.0.1:$port"));
    for (1 .. 3) {
        like(ask('GET /hello/')->{body}, qr/^tls /);
        is(ask('GET /plain/')->{headers}{'x-tool'}, 'a');
    }
});



=== a retry changes the scheme
--- pass: https://tools
--- upstream
urlproxy_keepalive 64;
--- server eval: $::where
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    redis('SADD', 'prefix:hello', "https://127.0.0.1:$port", "http://$ENV{TEST_NGINX_DEAD_A}", "https://$ENV{TEST_NGINX_DEAD_B}", "http://$ENV{TEST_NGINX_DEAD_B}");
    ok(is_routed_to('http'));
    like(ask('GET /hello/')->{body}, qr/^tls /, 'TLS after plain ones') for 1 .. 4;
    redis('DEL', 'prefix:hello');
    redis('SADD', 'prefix:hello', "https://$ENV{TEST_NGINX_DEAD_A}", "http://$ENV{TEST_NGINX_TOOL_A}", "https://$ENV{TEST_NGINX_TOOL_B}");
    ok(is_routed_to("https://$ENV{TEST_NGINX_DEAD_A}"));
    is(ask('GET /hello/')->{headers}{'x-tool'}, 'a', 'plain after TLS') for 1 .. 4;
});



=== a changed record changes the scheme
--- pass: https://tools
--- upstream
urlproxy_keepalive 64;
--- server eval: $::where
--- user_files eval: NginxBackend::certificate_files()
--- redis
SADD prefix:hello http://$TEST_NGINX_PEER_1 http://$TEST_NGINX_PEER_2
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    my $client = start_ask('GET /hello/');
    my $asked  = arrived($client);
    redis('DEL', 'prefix:hello');
    redis('SADD', 'prefix:hello', "https://127.0.0.1:$port");
    ok(is_routed_to("https://127.0.0.1:$port"), 'all of the new record speak TLS');
    close_as_backend('close', $asked);
    like(finish($client, 'GET', 200)->{body}, qr/^tls /, 'and the request goes there');
});



=== "http://" uses only http backends
--- pass: http://tools
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A https://$TEST_NGINX_TOOL_B
HSET prefix:tls .* https://$TEST_NGINX_TOOL_B
--- perl
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a') for 1 .. 4;
is(ask('GET /tls/')->{status}, 502);
