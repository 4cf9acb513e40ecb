# Which backends are left out for a while: as many failures as the operator says, for as long, whatever becomes of the
# route meanwhile.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Asks until the test's own backend A was asked, and failed, so many times; the other one answers in its place.
sub fail_on_a {
    my ($times) = @_;
    my $failed = 0;
    for (1 .. 4 * $times) {
        last if $failed == $times;
        my $client = start_ask('GET /hello/');
        if (asked_next($client) eq 'A') {
            close accept_on('A');
            $failed++;
        }
        answer($client);
    }
    return $failed;
}

run_tests;

__DATA__

=== an edited route changes nothing about a backend that has failed
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- perl
is(fail_on_a(1), 1);
redis('SADD', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_B}");
eventually { ask('GET /hello/')->{headers}{'x-tool'} eq 'b' };
redis('SREM', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_A}");
eventually { (grep { ask('GET /hello/')->{headers}{'x-tool'} eq 'a' } 1 .. 4) == 0 };
is(ask('GET /hello/')->{headers}{'x-tool'}, 'b') for 1 .. 4;
ok(is_left_alone('A'));



=== it takes as many failures as max_fails says
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream patient { urlproxy_peers max_fails=3 fail_timeout=60s; }
--- pass: http://patient
--- perl
is(fail_on_a(3), 3, 'asked again after the first and the second');
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a') for 1 .. 4;
ok(is_left_alone('A'), 'and no more after the third');



=== after fail_timeout it is asked again
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream quick { urlproxy_peers fail_timeout=3s; }
--- pass: http://quick
--- perl
is(fail_on_a(1), 1);
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a');
ok(is_left_alone('A'), 'out');
my $again = 0;
eventually { $again = fail_on_a(1) };
is($again, 1, 'and back');



=== with max_fails=0 none is ever left out
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_OWN_A
--- http
upstream stubborn { urlproxy_peers max_fails=0; }
--- pass: http://stubborn
--- perl
is(fail_on_a(5), 5);


=== a tenant's failures with another's backends are its own
--- pass: $urlproxy_scheme://tools
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
SADD prefix:evil http://$TEST_NGINX_TOOL_C https://$TEST_NGINX_TOOL_A
SADD prefix:likewise http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_DEAD_B
HSET prefix:one .* http://$TEST_NGINX_TOOL_A
--- perl
# Two whose set begins with TLS at the address of a tool that speaks none, and a second time over.
ask('GET /evil/') for 1 .. 6;
like(error_log(), qr/backend failed; not used for 10 s, backend=https:\/\/\Q$ENV{TEST_NGINX_TOOL_A}\E tool="evil"/, 'it has failed there');
my $asked = join '', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 6;
like($asked, qr/^(ab){3}$|^(ba){3}$/, 'the tool whose backend it is takes turns as before');
is(ask('GET /likewise/')->{headers}{'x-tool'}, 'a', 'and so does any other');



=== a backend that fails with TLS may be well without
--- server
location /hello/tls { urlproxy tools path; proxy_pass https://tools; }
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B https://$TEST_NGINX_TOOL_A https://$TEST_NGINX_DEAD_A
--- perl
# Each answers, in the end by one without TLS.
is(ask('GET /hello/tls')->{status}, 200) for 1 .. 4;
my $asked = join '', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 8;
cmp_ok(($asked =~ tr/a//), '>=', 2, $asked);
