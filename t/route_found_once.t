# A request's route is looked up once and takes one turn among several backends, whatever reads a variable, rewrites the
# path or changes the location in between.
use lib 't/lib';
use UrlproxyTest 'no_plan';

our $takes_turns = sub {
    my (@uris) = @_;
    my $asked = join '', map { main::ask("GET $uris[$_ % @uris]")->{headers}{'x-tool'} // '-' } 0 .. 7;
    main::like($asked, qr/^(ab){4}$|^(ba){4}$/, "@uris");
};

run_tests;

__DATA__

=== set and if share the decision
--- location
set $backend $urlproxy_backend;
if ($urlproxy_result = miss) { return 410; }
if ($arg_x) { set $y $urlproxy_backend; }
add_header X-Early "$backend";
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/');
$main::takes_turns->('/hello/?x=1');



=== a variable read early names the backend that is used
--- location
set $backend $urlproxy_backend;
add_header X-Early "$backend";
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
for (1 .. 6) {
    my $headers = ask('GET /hello/')->{headers};
    is($headers->{'x-early'}, "http://$ENV{'TEST_NGINX_TOOL_' . uc $headers->{'x-tool'}}");
    is($headers->{'x-early'}, $headers->{'x-urlproxy-backend'});
}



=== a rewrite after a variable changes the route
--- location
set $tool $urlproxy_tool;
rewrite ^/old/(.*)$ /hello/$1 break;
rewrite ^(/hello/.*)$ $1 break;
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
SADD prefix:old http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/');
$main::takes_turns->('/old/x');



=== an error location with the same settings keeps the decision
--- location
error_page 418 = @again;
if ($arg_x) { return 418; }
--- server
location @again { urlproxy tools path; proxy_pass http://tools; }
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/?x=1');
$main::takes_turns->('/hello/?x=1', '/hello/');



=== an error page may come from a tool with several backends
--- location
error_page 502 = /page/;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
SADD prefix:page http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/');



=== proxy_pass with the variable keeps the decision
--- pass: $urlproxy_backend
--- location
set $backend $urlproxy_backend;
if ($arg_x) { set $y 1; }
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/?x=1', '/hello/');



=== another default or mode needs a new decision
--- location
error_page 503 = @default;
--- server
location @default { urlproxy tools path; urlproxy_default admin; proxy_pass http://tools; error_page 503 = @domain; }
location @domain { urlproxy tools domain; proxy_pass http://tools; }
--- redis
HSET prefix:admin ^/known http://$TEST_NGINX_TOOL_B
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_C
--- perl
is(ask('GET /known')->{headers}{'x-tool'}, 'b');
