# Path, subdomain and domain mode on one table: each uses only its own keys.
use lib 't/lib';
use UrlproxyTest 'no_plan';

own_sections(qw(subdomain domain));
add_block_preprocessor(sub {
    my ($block) = @_;
    my $port = '$TEST_NGINX_SERVER_PORT';
    my $answers = <<'CONF';
        proxy_pass http://tools;
        add_header X-Urlproxy-Result "$urlproxy_result" always;
        add_header X-Urlproxy-Tool "$urlproxy_tool" always;
        add_header X-Urlproxy-Pattern "$urlproxy_pattern" always;
        add_header X-Urlproxy-Domain "$urlproxy_domain" always;
CONF
    my $subdomain = $block->subdomain // '';
    my $domain = $block->domain // '';
    my $http = $block->http // '';
    $block->set_value(http => <<"CONF");
$http
server {
    listen $port;
    server_name .toolforge.org;
    location / { urlproxy tools subdomain toolforge.org; $subdomain $answers }
}
server {
    listen $port;
    server_name www.example.org *.wild.org 10.0.0.1 [2001:db8::1] *.[2001:db8::2] ~^domains\\. ~\\.invalid\$ _;
    location / { urlproxy tools domain; $domain $answers }
}
CONF
});

run_tests;

__DATA__

=== each mode finds its own routes
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /b http://$TEST_NGINX_TOOL_B
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_C
--- requests
/hello/x                           200  a  result=route  tool=hello  pattern=.*  sees=/hello/x
/hello/b                           200  b  tool=hello  pattern=/b
http://hello.toolforge.org/x       200  a  result=route  tool=hello  pattern=.*  sees=/x
http://hello.toolforge.org/b       200  b  tool=hello  pattern=/b
http://hello.toolforge.org/hello   200  a  tool=hello
http://www.example.org/hello/x?y   200  c  result=route  tool=  pattern=.*  sees=/hello/x?y
http://unknown.toolforge.org/      503  -  result=miss  tool=unknown
http://unknown.invalid/            404  -  result=miss  tool=



=== no mode uses routes of another
--- redis
HSET prefix:www.example.org .* http://$TEST_NGINX_TOOL_A
SADD frontend:hello.toolforge.org http://$TEST_NGINX_TOOL_B
SADD frontend:hello http://$TEST_NGINX_TOOL_B
HSET redirect:hello .* hello.toolforge.org
--- requests
/www.example.org/              200  a
http://www.example.org/        404  -
http://hello.toolforge.org/    503  -
/hello/                        503  -  result=miss



=== a path with two leading slashes does not reach other modes' keys
--- http
merge_slashes off;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD frontend:hello http://$TEST_NGINX_TOOL_B
HSET redirect:hello .* hello.toolforge.org
--- location
urlproxy_canonical https://toolforge.org;
--- requests
/hello/                            307  -  tool=hello
/%2fdhello/                        503  -  result=miss  tool=
/%2Frhello/                        503  -  result=miss  tool=
//dhello/                          503  -  result=miss  tool=
//rhello/                          503  -  result=miss  tool=
http://hello.toolforge.org//dx/    200  a  tool=hello   sees=//dx/
http://www.example.org//rhello/    404  -  result=miss  tool=



=== hosts are compared in lower case, without port and trailing dot
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_B
SADD frontend:10.0.0.1 http://$TEST_NGINX_TOOL_B
SADD frontend:[2001:db8::1] http://$TEST_NGINX_TOOL_C
--- requests
http://HELLO.Toolforge.ORG/          200  a  tool=hello
http://hello.toolforge.org.:8080/    200  a  tool=hello
http://WWW.example.org:443/          200  b
http://www.example.org./             200  b
http://10.0.0.1:80/                  200  b
http://[2001:db8::1]:8080/           200  c
http://[2001:DB8::1]/                200  c



=== a domain not in normal form is rejected, with the normal form in the log
--- redis
SADD frontend:WWW.Example.org http://$TEST_NGINX_TOOL_A
SADD frontend:a_b..invalid http://$TEST_NGINX_TOOL_A
--- requests
http://www.example.org/  404  -
http://WWW.Example.org/  404  -
--- error_log
urlproxy: route rejected: domain "WWW.Example.org" is not normalized, expected "www.example.org", domain="WWW.Example.org"
urlproxy: route rejected: domain "a_b..invalid" is not a host name



=== a wildcard matches one label, after exact domains
--- redis
SADD frontend:*.wild.org http://$TEST_NGINX_TOOL_A
SADD frontend:own.wild.org http://$TEST_NGINX_TOOL_B
SADD frontend:*.deep.wild.org http://$TEST_NGINX_TOOL_C
--- requests
http://x.wild.org/         200  a
http://own.wild.org/       200  b
http://x.deep.wild.org/    200  c
http://x.y.wild.org/       404  -
http://wild.org.invalid/   404  -
http://*.wild.org/         404  -
http://.wild.org/          404  -



=== only one label below the domain is a tool
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:a.hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:toolforge .* http://$TEST_NGINX_TOOL_A
HSET prefix: .* http://$TEST_NGINX_TOOL_A
--- requests
http://hello.toolforge.org/    200  a  tool=hello
http://a.hello.toolforge.org/  503  -  result=miss  tool=
http://toolforge.org/          503  -  tool=



=== the default answers in each mode
--- redis
HSET prefix:hello /only http://$TEST_NGINX_TOOL_A
HSET prefix:admin .* http://$TEST_NGINX_TOOL_B
--- location
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- subdomain
urlproxy_default admin;
--- domain
urlproxy_default admin; urlproxy_miss 410;
--- requests
/unknown/                          200  c  result=default  tool=unknown
http://unknown.toolforge.org/x     200  b  result=default  tool=admin  sees=/x
http://hello.toolforge.org/x       200  b  result=default  tool=admin
http://hello.toolforge.org/only    200  a  result=route    tool=hello
http://toolforge.org/              200  b  result=default  tool=admin
http://unknown.invalid/            200  b  result=default  tool=admin



=== urlproxy_miss applies in each mode
--- subdomain
urlproxy_miss 404;
--- domain
urlproxy_miss 503;
--- requests
http://unknown.toolforge.org/  404  -  result=miss
http://unknown.invalid/       503  -  result=miss



=== changes are followed in each mode
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
--- perl
my $asked = sub { join '', map { UrlproxyTest::ask('GET /', headers => ["Host: $_"])->{headers}{'x-tool'} // '-' } @_ };
my @hosts = qw(hello.toolforge.org www.example.org x.wild.org);
is($asked->(@hosts), 'aa-');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
redis('DEL', 'frontend:www.example.org');
redis('SADD', 'frontend:*.wild.org', "http://$ENV{TEST_NGINX_TOOL_C}");
eventually { $asked->(@hosts) eq 'b-c' };
is($asked->(@hosts), 'b-c');



=== the list has tools only
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET redirect:moved .* moved.toolforge.org
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
--- perl
is(ask('GET /list')->{body}, '{"hello":{"status":"active"}}');



=== $urlproxy_domain is the matched domain
--- redis
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
SADD frontend:*.wild.org http://$TEST_NGINX_TOOL_B
HSET prefix:hello .* http://$TEST_NGINX_TOOL_C
--- domain
urlproxy_default hello;
--- requests
http://WWW.example.org:80/    200  a  domain=www.example.org
http://a.wild.org/            200  b  domain=*.wild.org
http://unknown.invalid/       200  c  domain=  tool=hello
http://hello.toolforge.org/   200  c  domain=  tool=hello
