# A request's route is found once, and its turn among several backends is taken once: whatever reads a variable meanwhile,
# rewrites the path or leads to another location.
use lib 't/lib';
use UrlproxyTest 'no_plan';

our $takes_turns = sub {
    my (@uris) = @_;
    my $asked = join '', map { main::ask("GET $uris[$_ % @uris]")->{headers}{'x-tool'} // '-' } 0 .. 7;
    main::like($asked, qr/^(ab){4}$|^(ba){4}$/, "@uris");
};

run_tests;

__DATA__

=== set and if
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



=== what was read early is what is asked
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



=== a rewrite after a variable was read
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



=== a location for an error, routed alike
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



=== the page of an error comes from a tool of several backends
--- location
error_page 502 = /page/;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_DEAD_A
SADD prefix:page http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/');



=== by the variable
--- pass: $urlproxy_backend
--- location
set $backend $urlproxy_backend;
if ($arg_x) { set $y 1; }
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
$main::takes_turns->('/hello/?x=1', '/hello/');



=== another default, or another mode, is another decision
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
