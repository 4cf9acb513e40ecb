# urlproxy_admin: the pages below the location, their headers, methods and errors.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use JSON::PP;

add_block_preprocessor(sub {
    my ($block) = @_;
    my $server = $block->server // '';
    $block->set_value(server => "location /admin/ { urlproxy_admin tools; }\n$server");
});

# The headers that all pages have.
our %common = (
    'cache-control'           => 'no-store',
    'x-content-type-options'  => 'nosniff',
    'referrer-policy'         => 'no-referrer',
    'x-frame-options'         => 'DENY',
    'content-security-policy' => "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

run_tests;

__DATA__

=== every page has its type and the common headers
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for (
    ['/admin/',                      200, 'text/html; charset=utf-8'],
    ['/admin/live',                  200, 'text/plain; charset=utf-8'],
    ['/admin/ready',                 200, 'text/plain; charset=utf-8'],
    ['/admin/api/routes',            200, 'application/json'],
    ['/admin/api/routes?kind=x',     400, 'application/json'],
    ['/admin/nothing',               404, 'application/json'],
    ['/admin/api',                   404, 'application/json'],
    ['/admin/live/',                 404, 'application/json'],
) {
    my ($path, $status, $type) = @$_;
    my $answer = ask("GET $path");
    is("$answer->{status} $answer->{headers}{'content-type'}", "$status $type", $path);
    is($answer->{headers}{'content-length'}, length $answer->{body}, "$path: length");
    for my $name (sort keys %main::common) {
        my @lines = $answer->{head} =~ /^\Q$name\E: (.*?)\r$/gmi;
        is(scalar @lines, 1, "$path: one $name");
        is($lines[0], $main::common{$name}, "$path: $name") unless $path eq '/admin/' && $name =~ /policy/;
    }
}
is(ask('GET /admin/live')->{body}, "live\n");
is(ask('GET /admin/ready')->{body}, "ready\n");



=== HEAD has the headers of GET and no body
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
for my $path (qw(/admin/ /admin/live /admin/api/routes /admin/nothing)) {
    my ($get, $head) = map { ask("$_ $path") } qw(GET HEAD);
    my $is_same = sub { (my $text = $_[0]{head}) =~ s/^Date: .*\n//m; $text };
    is($is_same->($head), $is_same->($get), $path);
    is($head->{body}, '');
}



=== other methods are refused with Allow
--- perl
for my $method (qw(POST PUT DELETE OPTIONS PATCH PROPFIND)) {
    for my $path (qw(/admin/ /admin/api/routes /admin/nothing)) {
        my $answer = ask("$method $path", body => 'x');
        is("$answer->{status} $answer->{headers}{allow}", '405 GET, HEAD', "$method $path");
        is_deeply(decode_json($answer->{body}), { error => 'the admin API is read-only, expected GET or HEAD' });
    }
}
my $client = to_nginx();
send_bytes($client, "POST /admin/live HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
is(answer($client)->{status} . ' ' . answer($client)->{status}, '405 204', 'the body is not parsed as a request');



=== errors name the value and what was expected
--- perl
for (
    ['/admin/nothing',                 404, 'unknown path "/nothing", expected one of /, /live, '],
    ['/admin/%3Cb%3E%22%1B%E2%80%AE',  404, qq(unknown path "/<b>"\e\x{202e}", expected one of )],
    ['/admin/live?x=1',                400, 'unknown parameter "x", expected no parameters'],
    ['/admin/api/routes?kind=a%00%22', 400, qq(invalid kind "a\0"", expected one of tool, redirect, domain)],
    ['/admin/api/routes?limit=-1',     400, 'invalid limit "-1", expected a number from 1 on'],
    ['/admin/api/routes?tool=%f',      400, 'invalid parameter "tool=%f", expected percent-encoding'],
) {
    my ($path, $status, $error) = @$_;
    my $answer = ask("GET $path");
    is($answer->{status}, $status, $path);
    like(decode_json($answer->{body})->{error}, qr/^\Q$error\E/, $path);
}



=== the location may have any prefix
--- http_config
urlproxy_table tools { redis redis://127.0.0.1:$TEST_NGINX_REDIS_PORT/0; }
--- config
location / { urlproxy_admin tools; }
location /a/b { urlproxy_admin tools; }
location /c/ { allow 127.0.0.1; deny all; urlproxy_admin tools; }
location /closed/ { deny all; urlproxy_admin tools; }
location = /up { return 204; }
--- perl
is(ask("GET $_")->{status}, 200, $_) for qw(/live / /a/b/ /a/b/live /a/b/api/routes /c/ /c/live /c//live /x/../live);
is(ask("GET $_")->{status}, 404, $_) for qw(/a/bc /a/bc/live /liv /live/x /c/x);
is(ask('GET /closed/live')->{status}, 403);
my $moved = ask('GET /a/b');
is($moved->{status}, 301, 'links of the dashboard are relative');
like($moved->{headers}{location}, qr{(?:^|:\d+)/a/b/$});



=== before the initial load only the pages of routes are unavailable
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
--- perl
for (['/admin/', 200], ['/admin/live', 200], ['/admin/ready', 503], ['/admin/api/routes', 503], ['/admin/nothing', 404]) {
    my ($path, $status) = @$_;
    my $answer = ask("GET $path");
    is($answer->{status}, $status, $path);
    is($answer->{headers}{'retry-after'}, $status == 503 ? '1' : undef, "$path: Retry-After");
}
is(ask('GET /admin/ready')->{body}, "not ready: the table was never loaded\n");
is_deeply(decode_json(ask('GET /admin/api/routes')->{body}), { error => 'the table was never loaded' });
