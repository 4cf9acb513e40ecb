# Backends become unavailable after max_fails failures for fail_timeout, whatever happens to the route.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Sends requests until the test's own backend A has failed this many; the other backend answers them.
sub fail_on_a {
    my ($times) = @_;
    my $failed = 0;
    for (1 .. 4 * $times) {
        last if $failed == $times;
        my $client = start_ask('GET /hello/');
        if (next_backend($client) eq 'A') {
            close accept_on('A');
            $failed++;
        }
        answer($client);
    }
    return $failed;
}

run_tests;

__DATA__

=== a changed route does not reset an unavailable backend
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- perl
is(fail_on_a(1), 1);
redis('SADD', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_B}");
eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' };
redis('SREM', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_A}");
eventually { (grep { ask('GET /hello/')->{headers}{'x-tool'} eq 'a' } 1 .. 4) == 0 };
is(ask('GET /hello/')->{headers}{'x-tool'}, 'b') for 1 .. 4;
ok(has_no_connection('A'));



=== max_fails failures make a backend unavailable
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream patient { urlproxy_peers max_fails=3 fail_timeout=60s; }
--- pass: http://patient
--- perl
is(fail_on_a(3), 3, 'used again after two failures');
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a') for 1 .. 4;
ok(has_no_connection('A'), 'unavailable after the third');



=== a backend is used again after fail_timeout
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream quick { urlproxy_peers fail_timeout=3s; }
--- pass: http://quick
--- perl
is(fail_on_a(1), 1);
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a');
ok(has_no_connection('A'), 'unavailable');
my $again = 0;
eventually { $again = fail_on_a(1) };
is($again, 1, 'restored');



=== max_fails=0 disables the check
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream stubborn { urlproxy_peers max_fails=0; }
--- pass: http://stubborn
--- perl
is(fail_on_a(5), 5);


=== failures of one tenant do not affect another's backends
--- pass: $urlproxy_scheme://tools
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
SADD prefix:evil http://$TEST_NGINX_TOOL_C https://$TEST_NGINX_TOOL_A
SADD prefix:likewise http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_B
HSET prefix:one .* http://$TEST_NGINX_TOOL_A
--- perl
# `evil` reaches the backend of `hello` over TLS, which that backend does not speak; enough requests to fail twice.
ask('GET /evil/') for 1 .. 6;
like(error_log(), qr/backend failed; unavailable for 10 s, backend=https:\/\/\Q$ENV{TEST_NGINX_TOOL_A}\E tool="evil"/, 'the backend is unavailable for evil');
my $asked = join '', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 6;
like($asked, qr/^(ab){3}$|^(ba){3}$/, 'the other tool still uses the backend');
is(ask('GET /likewise/')->{headers}{'x-tool'}, 'a', 'and so do others');



=== failures with TLS do not affect plain HTTP
--- server
location /hello/tls { urlproxy tools path; proxy_pass https://tools; }
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B https://$TEST_NGINX_TOOL_A https://$TEST_NGINX_DEAD_A
--- perl
# Each request is answered, in the end by a backend without TLS.
is(ask('GET /hello/tls')->{status}, 200) for 1 .. 4;
my $asked = join '', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 8;
cmp_ok(($asked =~ tr/a//), '>=', 2, $asked);
