# urlproxy_moved: a host without a route of its own is redirected to the same labels below the new domain, if these have a route.
use lib 't/lib';
use UrlproxyTest 'no_plan';

own_sections(qw(domain));
add_block_preprocessor(sub {
    my ($block) = @_;
    my ($http, $domain) = map { $block->$_ // '' } qw(http domain);
    $domain = 'urlproxy_moved wmflabs.org https://wmcloud.org;' if $domain eq '';
    my $shown = join "\n", map { "add_header X-Urlproxy-\u$_ \"\$urlproxy_$_\" always;" } qw(result tool pattern backend domain);
    $block->set_value(http => <<"CONF");
$http
server {
    listen \$TEST_NGINX_SERVER_PORT;
    server_name ~(?<!localhost)\$;
    location / { urlproxy tools domain; proxy_pass http://tools; $domain $shown }
}
CONF
});

run_tests;

__DATA__

=== a host is redirected if only its new name has a route
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:*.wild.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:a.b.c.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:old.wmflabs.org http://$TEST_NGINX_TOOL_B
SADD frontend:both.wmflabs.org http://$TEST_NGINX_TOOL_B
SADD frontend:both.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:*.kept.wmflabs.org http://$TEST_NGINX_TOOL_B
SADD frontend:x.kept.wmcloud.org http://$TEST_NGINX_TOOL_A
--- requests
http://new.wmflabs.org/          301  -  location=https://new.wmcloud.org/       result=redirect  domain=new.wmcloud.org  pattern=  backend=  tool=
http://x.wild.wmflabs.org/       301  -  location=https://x.wild.wmcloud.org/    result=redirect  domain=*.wild.wmcloud.org
http://a.b.c.wmflabs.org/        301  -  location=https://a.b.c.wmcloud.org/     result=redirect  domain=a.b.c.wmcloud.org
http://NEW.wmFlabs.org/          301  -  location=https://new.wmcloud.org/
http://new.wmflabs.org./         301  -  location=https://new.wmcloud.org/
http://new.wmflabs.org:8080/     301  -  location=https://new.wmcloud.org/
http://NEW.WMFLABS.ORG.:80/      301  -  location=https://new.wmcloud.org/
http://new.wmcloud.org/          200  a  result=route  domain=new.wmcloud.org
http://old.wmflabs.org/          200  b  result=route  domain=old.wmflabs.org
http://both.wmflabs.org/         200  b  result=route  domain=both.wmflabs.org
http://x.kept.wmflabs.org/       200  b  result=route  domain=*.kept.wmflabs.org
http://neither.wmflabs.org/      404  -  location=  result=miss  domain=
http://x.y.wild.wmflabs.org/     404  -  location=  result=miss  domain=
http://wild.wmflabs.org/         404  -  location=  result=miss
http://b.c.wmflabs.org/          404  -  location=  result=miss
http://wmflabs.org/              404  -  location=  result=miss
http://new.wmflabs.org.invalid/  404  -  location=  result=miss
http://newwmflabs.org/           404  -  location=  result=miss
http://[2001:db8::1]/            404  -  location=  result=miss
http://10.0.0.1/                 404  -  location=  result=miss



=== path and query stay as sent
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
--- requests
http://new.wmflabs.org/a/b?x=1              301  -  location=https://new.wmcloud.org/a/b?x=1
http://new.wmflabs.org/a%20b%2Fc?d=%20&e=/? 301  -  location=https://new.wmcloud.org/a%20b%2Fc?d=%20&e=/?
http://new.wmflabs.org/%C3%A9?%c3%a9        301  -  location=https://new.wmcloud.org/%C3%A9?%c3%a9
http://new.wmflabs.org/a+b;c=d,e[1]|{}      301  -  location=https://new.wmcloud.org/a+b;c=d,e[1]|{}
http://new.wmflabs.org/x/..//a%20b%3f       301  -  location=https://new.wmcloud.org/a%20b%3F
http://new.wmflabs.org/?                    301  -  location=https://new.wmcloud.org/
--- perl
my $absolute = ask('GET http://new.wmflabs.org/a%20b?x', headers => ['Host: other.invalid']);
is("$absolute->{status} $absolute->{headers}{location}", '301 https://new.wmcloud.org/a%20b?x', 'a URL in the request line');
my $no_path = ask('GET http://new.wmflabs.org?x', headers => ['Host: other.invalid']);
is("$no_path->{status} $no_path->{headers}{location}", '301 https://new.wmcloud.org/?x', 'a URL without a path');
my $bytes = ask("GET /\xc3\xa9\"<>?\xff\\", headers => ['Host: new.wmflabs.org']);
is($bytes->{headers}{location}, 'https://new.wmcloud.org/%C3%A9%22%3C%3E?%FF%5C', 'bytes that URIs cannot have');



=== nothing in the request names another host
--- redis
SADD frontend:*.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:evil.example http://$TEST_NGINX_TOOL_A
SADD frontend:*.evil.example http://$TEST_NGINX_TOOL_A
--- requests
http://a.wmflabs.org//evil.example           301  -  location=https://a.wmcloud.org/evil.example
http://a.wmflabs.org/\evil.example           301  -  location=https://a.wmcloud.org/%5Cevil.example
http://a.wmflabs.org/@evil.example           301  -  location=https://a.wmcloud.org/@evil.example
http://a.wmflabs.org/%0d%0aLocation:%20x     301  -  location=https://a.wmcloud.org/%0d%0aLocation:%20x
http://a.wmflabs.org/%0d%0aLocation://x      301  -  location=https://a.wmcloud.org/%0D%0ALocation:/x
http://a.wmflabs.org/?//evil.example#x       301  -  location=https://a.wmcloud.org/?//evil.example
http://a.wmflabs.org.evil.example/           404  -  location=
--- perl
for my $host ('evil-example@', 'evil-example#', 'evil-example?', 'evil-example\\', 'evil-example%2f', 'u:p@evil-example', "evil-example\xff", '*', '-a', 'a-', '') {
    my $answer = ask('GET /', headers => ["Host: $host.wmflabs.org"]);
    like($answer->{status}, qr/^40[04]$/, "host $host.wmflabs.org");
    is($answer->{headers}{location}, undef, "host $host.wmflabs.org is not redirected");
}



=== a path that lost its slash does not extend the host
--- redis
SADD frontend:a.wmcloud.org http://$TEST_NGINX_TOOL_A
--- domain
urlproxy_moved wmflabs.org https://wmcloud.org;
rewrite ^/(.*)$ $1 break;
--- requests
http://a.wmflabs.org/.evil.example/x  301  -  location=https://a.wmcloud.org/.evil.example/x
http://a.wmflabs.org/@evil.example/x  301  -  location=https://a.wmcloud.org/@evil.example/x



=== the moved domain itself
--- redis
SADD frontend:wmcloud.org http://$TEST_NGINX_TOOL_A
--- requests
http://wmflabs.org/a?b    301  -  location=https://wmcloud.org/a?b  result=redirect  domain=wmcloud.org
http://a.wmflabs.org/a?b  404  -



=== every method is redirected with 301
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
--- perl
for my $method (qw(GET HEAD POST PUT DELETE OPTIONS)) {
    my $answer = ask("$method /a?b", headers => ['Host: new.wmflabs.org'], $method eq 'POST' ? (body => 'x' x 100_000) : ());
    is("$answer->{status} $answer->{headers}{location}", '301 https://new.wmcloud.org/a?b', $method);
}
like(ask('GET /', headers => ['Host: new.wmflabs.org', 'Connection: keep-alive'])->{head}, qr/^Connection: keep-alive/m);



=== the default serves what has no new name either
--- redis
HSET prefix:admin .* http://$TEST_NGINX_TOOL_C
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
--- domain
urlproxy_moved wmflabs.org https://wmcloud.org;
urlproxy_default admin;
--- requests
http://new.wmflabs.org/      301  -  location=https://new.wmcloud.org/  result=redirect  tool=
http://neither.wmflabs.org/  200  c  result=default  tool=admin  domain=
http://unknown.invalid/      200  c  result=default  tool=admin



=== several domains: the longest decides, and no domain is followed twice
--- redis
SADD frontend:x.b.org http://$TEST_NGINX_TOOL_A
SADD frontend:y.c.org http://$TEST_NGINX_TOOL_A
SADD frontend:z.deep.b.org http://$TEST_NGINX_TOOL_A
SADD frontend:z.d.org http://$TEST_NGINX_TOOL_A
SADD frontend:only.deep.b.org http://$TEST_NGINX_TOOL_A
--- domain
urlproxy_moved a.org https://b.org;
urlproxy_moved b.org http://c.org:8080;
urlproxy_moved c.org https://a.org;
urlproxy_moved deep.a.org https://d.org;
--- requests
http://x.a.org/          301  -  location=https://x.b.org/
http://y.b.org/a         301  -  location=http://y.c.org:8080/a
http://y.a.org/          404  -
http://z.deep.a.org/     301  -  location=https://z.d.org/
http://only.deep.a.org/  404  -
http://x.c.org/          404  -
http://x.b.org/          200  a
http://y.c.org/          200  a



=== a level with its own domains does not inherit others, and off ends them
--- redis
SADD frontend:x.b.org http://$TEST_NGINX_TOOL_A
SADD frontend:x.c.org http://$TEST_NGINX_TOOL_A
--- http
urlproxy_moved a.org https://b.org;
--- domain
location /own { urlproxy tools domain; urlproxy_moved d.org https://c.org; proxy_pass http://tools; }
location /off { urlproxy tools domain; urlproxy_moved off; proxy_pass http://tools; location /off/below { urlproxy tools domain; proxy_pass http://tools; } }
if ($arg_if) { set $x 1; }
--- requests
http://x.a.org/           301  -  location=https://x.b.org/
http://x.a.org/?if=1      301  -  location=https://x.b.org/?if=1
http://x.d.org/           404  -
http://x.a.org/own        404  -
http://x.d.org/own        301  -  location=https://x.c.org/own
http://x.a.org/off        404  -
http://x.a.org/off/below  404  -



=== path and subdomain mode do not redirect
--- http
urlproxy_moved wmflabs.org https://wmcloud.org;
server {
    listen $TEST_NGINX_SERVER_PORT;
    server_name tool.wmflabs.org;
    location / { urlproxy tools path; proxy_pass http://tools; }
    location /sub { urlproxy tools subdomain wmflabs.org; proxy_pass http://tools; }
}
--- redis
SADD frontend:tool.wmcloud.org http://$TEST_NGINX_TOOL_A
--- requests
http://tool.wmflabs.org/     503  -  location=
http://tool.wmflabs.org/sub  503  -  location=



=== redirects follow changes of either route
--- perl
my $seen = sub { my $answer = ask('GET /', headers => ['Host: x.wmflabs.org']); $answer->{status} . ($answer->{headers}{'x-tool'} // '') };
is($seen->(), '404');
redis('SADD', 'frontend:x.wmcloud.org', "http://$ENV{TEST_NGINX_TOOL_A}");
ok(eventually { $seen->() eq '301' }, 'the new name gets a route');
redis('SADD', 'frontend:*.wmflabs.org', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { $seen->() eq '200b' }, 'the wildcard of the old name gets one');
redis('DEL', 'frontend:*.wmflabs.org');
ok(eventually { $seen->() eq '301' }, 'and loses it');
redis('DEL', 'frontend:x.wmcloud.org');
ok(eventually { $seen->() eq '404' }, 'neither has one');



=== no redirect before the initial load
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- perl
my $answer = ask('GET /', headers => ['Host: new.wmflabs.org']);
is("$answer->{status} $answer->{headers}{'retry-after'} $answer->{headers}{'x-urlproxy-result'}", '503 1 unready');



=== no redirect while the old name may have a route
--- redis eval
[
    [qw(ACL SETUSER new_alone reset on >secret ~frontend:*.wmcloud.org +@all)],
    [qw(SADD frontend:new.wmcloud.org), "http://$ENV{TEST_NGINX_TOOL_A}"],
    [qw(SADD frontend:new.wmflabs.org), "http://$ENV{TEST_NGINX_TOOL_B}"],
]
--- table
redis redis://new_alone:secret@127.0.0.1:$TEST_NGINX_REDIS_PORT/0;
--- requests
http://new.wmcloud.org/  200  a
http://new.wmflabs.org/  503  -  location=  result=unready
--- error_log
urlproxy: route rejected: the Redis user may not read the key, domain="new.wmflabs.org"



=== subrequests are not redirected
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:old.wmflabs.org http://$TEST_NGINX_TOOL_B
HSET prefix:hello .* http://$TEST_NGINX_TOOL_C
--- http
server {
    listen $TEST_NGINX_SERVER_PORT;
    server_name ~^ssi\. new.wmflabs.org old.wmflabs.org;
    location = /domain { urlproxy tools domain; urlproxy_moved wmflabs.org https://wmcloud.org; rewrite ^ /x?status=204? break; proxy_pass http://tools; }
    location / { auth_request /domain; urlproxy tools path; proxy_pass http://tools; }
}
--- requests
http://old.wmflabs.org/hello/  200  c
http://new.wmflabs.org/hello/  500  -  location=
http://new.wmflabs.org/domain  301  -  location=https://new.wmcloud.org/x?status=204
--- error_log
auth request unexpected status: 404



=== a redirect is decided once, and an error page may have another setting
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
--- domain
urlproxy_moved wmflabs.org https://wmcloud.org;
error_page 404 = @other;
--- http
server {
    listen $TEST_NGINX_SERVER_PORT;
    server_name ~\.old\.org$;
    location / { urlproxy tools domain; proxy_pass http://tools; error_page 404 = @moved; }
    location @moved { urlproxy tools domain; urlproxy_moved old.org https://wmcloud.org; proxy_pass http://tools; }
    location /kept { urlproxy tools domain; proxy_pass http://tools; error_page 404 = @same; }
    location @same { urlproxy tools domain; proxy_pass http://tools; }
}
--- requests
http://new.old.org/a     301  -  location=https://new.wmcloud.org/a
http://new.old.org/kept  404  -  location=
http://x.old.org/a       404  -  location=



=== redirects count for the new domain
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
SADD frontend:*.wild.wmcloud.org http://$TEST_NGINX_TOOL_A
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
use JSON::PP ();
my $get = sub { JSON::PP::decode_json(ask("GET /admin/api/$_[0]")->{body}) };
my $before = $get->('status')->{requests}{redirect}[2];
ask('GET /', headers => ["Host: $_"]) for ('new.wmflabs.org') x 2, 'x.wild.wmflabs.org';
ok(eventually { $get->('status')->{requests}{redirect}[2] == $before + 3 }, 'redirects');
is($get->('routes/new.wmcloud.org?kind=domain')->{requests}[2], 2, 'of the domain');
is($get->('routes/*.wild.wmcloud.org?kind=domain')->{requests}[2], 1, 'of the wildcard');
