# No pattern and no path that is searched with it keeps the worker from other requests.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== patterns that other engines choke on
--- redis eval
[ ['HSET', 'prefix:hello', (map { ($_ => "http://$ENV{TEST_NGINX_TOOL_A}") }
    '^/(a+)+$', '^/(a|a)*$', '^/(a|aa)+$', '(.*a){12}b', '[ab]*a[ab]{13}c')] ]
--- perl
use Time::HiRes;
my $begin = Time::HiRes::time();
is(ask('GET /hello/' . 'a' x 8000 . '!')->{status}, 503);
cmp_ok(Time::HiRes::time() - $begin, '<', 1, 'seconds');



=== patterns that make the most of the limits
--- redis eval
# An eighth of what a tool may have.
[ ['HSET', 'prefix:hello', (map { ("(?:a{0,60}){40}[0-9]$_" => "http://$ENV{TEST_NGINX_TOOL_A}") } 1 .. 4)] ]
--- perl
use Time::HiRes;
my $begin = Time::HiRes::time();
my $slow  = start_ask('GET /hello/' . 'a' x 8000);
is(ask('GET /up')->{status}, 204);
cmp_ok(Time::HiRes::time() - $begin, '<', 1, 'seconds until the worker has time for others');
answer($slow);
