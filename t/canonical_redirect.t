# urlproxy_canonical: tools with a redirect key are redirected to their own host, with path and query preserved.
use lib 't/lib';
use UrlproxyTest 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(location => ($block->location // '') . "\nurlproxy_canonical https://toolforge.org;")
        unless ($block->location // '') =~ /urlproxy_canonical/;
});

run_tests;

__DATA__

=== path and query are preserved
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:stays .* http://$TEST_NGINX_TOOL_B
HSET redirect:hello .* hello.toolforge.org
--- requests
/hello                       307  -  location=https://hello.toolforge.org/  result=redirect  tool=hello
/hello/                      307  -  location=https://hello.toolforge.org/
/hello/a/b                   307  -  location=https://hello.toolforge.org/a/b
/hello/a%20b                 307  -  location=https://hello.toolforge.org/a%20b
/hello/a%2Fb                 307  -  location=https://hello.toolforge.org/a%2Fb
/hello/%C3%A9                307  -  location=https://hello.toolforge.org/%C3%A9
/hello/a%25b%3Fc%23d         307  -  location=https://hello.toolforge.org/a%25b%3Fc%23d
/hello/a+b;c=d,e             307  -  location=https://hello.toolforge.org/a+b;c=d,e
/hello?x=1                   307  -  location=https://hello.toolforge.org/?x=1
/hello/?x=a%20b&y[]=+&x=/?   307  -  location=https://hello.toolforge.org/?x=a%20b&y[]=+&x=/?
/hel%6Co/a                   307  -  location=https://hello.toolforge.org/a
/stays/                      200  b  result=route
/unknown/                    503  -  result=miss



=== dots, slashes and encoded slashes are resolved first
--- redis
HSET redirect:hello .* x
--- requests
/hello//a             307  -  location=https://hello.toolforge.org/a
//hello/a%20b         307  -  location=https://hello.toolforge.org/a%20b
/x/../hello/a%20b%3f  307  -  location=https://hello.toolforge.org/a%20b%3F
/hello/./a/../b?c     307  -  location=https://hello.toolforge.org/b?c
/hello%2Fx            307  -  location=https://hello.toolforge.org/x
/hello%2F%2Fevil.org  307  -  location=https://hello.toolforge.org/evil.org



=== unusual bytes cannot change the target host
--- redis
HSET redirect:hello .* https://evil.example/
HSET redirect:evil.example .* x
HSET redirect:Hello .* x
--- requests
/hello//evil.example                    307  -  location=https://hello.toolforge.org/evil.example
/hello/\evil.example                    307  -  location=https://hello.toolforge.org/%5Cevil.example
/hello/@evil.example/                   307  -  location=https://hello.toolforge.org/@evil.example/
/hello/%0d%0aLocation:%20http:evil/     307  -  location=https://hello.toolforge.org/%0d%0aLocation:%20http:evil/
/hello/%0d%0aLocation:%20http://evil/   307  -  location=https://hello.toolforge.org/%0D%0ALocation:%20http:/evil/
/hello?//evil.example                   307  -  location=https://hello.toolforge.org/?//evil.example
/hello/"<x>                             307  -  location=https://hello.toolforge.org/%22%3Cx%3E
/hello@evil.example/                    503  -
/hello.evil.example/                    503  -
/evil.example/                          503  -
/Hello/                                 503  -
/%2frhello/                             503  -
--- error_log
urlproxy: route rejected: tool "evil.example" cannot have its own host, expected a name of 1 to 63 of a-z, 0-9, - and _, redirect="evil.example"



=== the key alone decides: for any pattern, with or without routes, for every method
--- redis
HSET redirect:hello ( x /only y
--- perl
for my $method (qw(GET HEAD POST PUT DELETE OPTIONS)) {
    my $answer = ask("$method /hello/a?b", $method eq 'POST' ? (body => 'x' x 100) : ());
    is("$answer->{status} $answer->{headers}{location}", '307 https://hello.toolforge.org/a?b', $method);
}



=== redirects follow changes of the key
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $status = sub { ask('GET /hello/')->{status} };
is($status->(), 200);
redis(qw(HSET redirect:hello .* hello.toolforge.org));
eventually { $status->() eq '307' };
is($status->(), 307);
redis(qw(HDEL redirect:hello .*));
eventually { $status->() eq '200' };
is($status->(), 200);



=== the redirect of the default tool does not apply to its fallback requests
--- redis
HSET prefix:admin .* http://$TEST_NGINX_TOOL_B
HSET redirect:admin .* admin.toolforge.org
--- location
urlproxy_default admin;
--- requests
/unknown/  200  b  result=default
/admin/x  307  -  location=https://admin.toolforge.org/x



=== off overrides inheritance
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET redirect:hello .* hello.toolforge.org
--- server
urlproxy_canonical https://example.org:8443;
location /hello/here { urlproxy tools path; urlproxy_canonical off; proxy_pass http://tools; }
location /hello/there { urlproxy tools path; proxy_pass http://tools; }
--- requests
/hello/here   200  a
/hello/there  307  -  location=https://hello.example.org:8443/there
/hello/       307  -  location=https://hello.toolforge.org/



=== other modes do not redirect
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET redirect:hello .* hello.toolforge.org
--- server
server_name hello.toolforge.org;
location /sub { urlproxy tools subdomain toolforge.org; urlproxy_canonical https://toolforge.org; proxy_pass http://tools; }
--- requests
http://hello.toolforge.org/sub  200  a



=== the target is the rewritten path
--- redis
HSET redirect:hello .* x
--- server
rewrite ^/old/(.*)$ /hello/new/$1;
--- requests
/old/a%20b?c  307  -  location=https://hello.toolforge.org/new/a%20b?c



=== an error page of a redirected tool has one Location header
--- redis
HSET redirect:hello .* x
HSET redirect:other .* x
--- location
urlproxy_canonical https://toolforge.org;
error_page 307 /other/x;
--- perl
my $answer = ask('GET /hello/q');
my @locations = $answer->{head} =~ /^Location: (\S+)/mg;
is_deeply([$answer->{status}, @locations], [307, 'https://other.toolforge.org/x']);



=== subrequests are routed, not redirected
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:auth .* http://$TEST_NGINX_TOOL_B
HSET redirect:auth .* x
--- server
location = /check { internal; urlproxy tools path; urlproxy_canonical https://toolforge.org; rewrite ^ /auth/check?status=204? break; proxy_pass http://tools; }
--- location
urlproxy_canonical https://toolforge.org;
auth_request /check;
--- requests
/hello/  200  a
/auth/   307  -  location=https://auth.toolforge.org/
