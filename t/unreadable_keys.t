# A Redis user that may read only tools, as before redirects and domains existed: tools are followed, and unreadable keys
# are not treated as absent.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== tools are followed, domains are unready, no redirects
--- redis eval
[
    [qw(ACL SETUSER tools_alone reset on >secret ~prefix:* +@all)],
    [qw(HSET prefix:hello .*), "http://$ENV{TEST_NGINX_TOOL_A}"],
    [qw(HSET redirect:hello .* hello.toolforge.org)],
    [qw(SADD frontend:www.example.org), "http://$ENV{TEST_NGINX_TOOL_B}"],
]
--- table
redis redis://tools_alone:secret@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
--- server
location /domain { urlproxy tools domain; proxy_pass http://tools; }
--- location
urlproxy_canonical https://toolforge.org;
urlproxy_default later;
--- perl
is(ask('GET /hello/')->{headers}{'x-tool'}, 'a');
my $answer = ask('GET /domain', headers => ['Host: www.example.org']);
is_deeply([$answer->{status}, $answer->{headers}{'retry-after'}], [503, 1]);
# Later changes are followed too, by pushes.
redis('HSET', 'prefix:later', '.*', "http://$ENV{TEST_NGINX_TOOL_C}");
eventually { ask('GET /later/')->{status} eq '200' };
is(ask('GET /unknown/')->{headers}{'x-tool'}, 'c', 'the default answers');
is(ask('GET /list')->{body} =~ tr/{//, 3);
--- error_log
urlproxy: route rejected: the Redis user may not read the key, domain="www.example.org"
urlproxy: route rejected: the Redis user may not read the key, redirect="hello"
