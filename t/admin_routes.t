# /api/routes: all records, selected or page by page, with an ETag.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use JSON::PP;

add_block_preprocessor(sub { $_[0]->set_value(server => 'location /admin/ { urlproxy_admin tools; }') });

# The answer to a request with these parameters, decoded, with the items sorted.
sub routes {
    my ($parameters, %with) = @_;
    my $answer = ask("GET /admin/api/routes$parameters", %with);
    $answer->{status} == 200 or die "$parameters: $answer->{status} $answer->{body}\n";
    my $json = decode_json($answer->{body});
    $json->{items} = [sort { "$a->{kind} $a->{name}" cmp "$b->{kind} $b->{name}" } @{ $json->{items} }];
    return $json;
}

run_tests;

__DATA__

=== each kind of record
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /api http://$TEST_NGINX_TOOL_B
SADD prefix:several http://10.0.0.1:80 HTTPS://10.0.0.2/
HSET redirect:hello .* toolforge.org
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
--- perl
my ($a, $b) = map { "http://$ENV{$_}" } qw(TEST_NGINX_TOOL_A TEST_NGINX_TOOL_B);
my $routes = routes('');
is_deeply($routes->{items}, [
    { kind => 'domain', name => 'www.example.org', routes => [{ pattern => '.*', backends => [$a] }] },
    { kind => 'redirect', name => 'hello' },
    { kind => 'tool', name => 'hello', routes => [{ pattern => '/api', backends => [$b] }, { pattern => '.*', backends => [$a] }] },
    { kind => 'tool', name => 'several', routes => [{ pattern => '.*', backends => ['http://10.0.0.1:80', 'https://10.0.0.2:443'] }] },
]);
is_deeply([@$routes{qw(table generation next)}], ['tools', 4, undef]);
is_deeply([map { $_->{kind} } @{ routes('?tool=hello')->{items} }], ['redirect', 'tool'], 'one tool');
is_deeply([map { $_->{name} } @{ routes('?kind=domain')->{items} }], ['www.example.org'], 'one kind');



=== no records
--- perl
is_deeply(routes('')->{items}, []);
is_deeply(routes('?limit=1')->{next}, undef);



=== pages together have each record once
--- redis eval
[ map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 500 ]
--- perl
for my $limit (1, 7, 499, 500, 501) {
    my ($parameters, @names, $pages) = "?limit=$limit";
    while (1) {
        my $page = routes($parameters);
        push @names, map { $_->{name} } @{ $page->{items} };
        $pages++;
        $parameters = "?limit=$limit&cursor=" . ($page->{next} // last);
    }
    is_deeply([sort @names], [sort map { "tool-$_" } 1 .. 500], "limit=$limit");
    is($pages, POSIX::ceil(500 / $limit), "pages of $limit");
}



=== an unchanged table is 304
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $conditional = sub { ask("GET /admin/api/routes$_[0]", headers => ["If-None-Match: $_[1]"]) };
my $first = ask('GET /admin/api/routes');
my $etag  = $first->{headers}{etag};
like($etag, qr{^W/"[^"]+"$});
my $again = $conditional->('', $etag);
is("$again->{status} $again->{body} $again->{headers}{etag} $again->{headers}{'cache-control'}", "304  $etag no-store");
is($conditional->('', qq("other", $etag))->{status}, 304, 'one of several');
is($conditional->('', '"other"')->{status}, 200, 'another ETag');
is($conditional->('?kind=tool', $etag)->{status}, 200, 'another query');
is(ask('GET /admin/api/routes')->{headers}{etag}, $etag, 'the ETag stays');
redis('HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_B}");
ok(eventually { $conditional->('', $etag)->{status} == 200 }, 'a change');
my ($worker) = worker_pids();
kill 'HUP', nginx_pid();
ok(eventually { my @now = worker_pids(); @now == 1 && $now[0] != $worker }, 'reloaded');
$etag = ask('GET /admin/api/routes')->{headers}{etag};
is($conditional->('', $etag)->{status}, 304, 'after a reload');



=== a cursor is valid for its table only
--- redis eval
[ map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 10 ]
--- perl
my $next = routes('?limit=3')->{next};
is(scalar @{ routes("?cursor=$next")->{items} }, 7);
for my $cursor ('0', '', '1-deadbeef', "x$next", $next =~ s/^/9/r) {
    my $answer = ask("GET /admin/api/routes?cursor=$cursor");
    is($answer->{status}, 400, "cursor=$cursor");
    like(decode_json($answer->{body})->{error}, qr/^invalid cursor "\Q$cursor\E", expected "next" of an earlier answer/);
}



=== hostile names and patterns are escaped
--- redis eval
[
    (map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] }
        '<img src=x onerror=alert(1)>', q('"\\), "\xe2\x80\xaegnp", ']},"x":{', 'x' x 255, "\xf0\x9f\x98\x80", '%00', 'a&b=c', ''),
    ['HSET', 'prefix:patterns', map { ($_ => "http://$ENV{TEST_NGINX_TOOL_A}") } '/"<script>', '/\\\\"', '/]},', "/\xe2\x80\xaegnp"],
]
--- perl
my @names = ('<img src=x onerror=alert(1)>', q('"\\), "\x{202e}gnp", ']},"x":{', 'x' x 255, "\x{1f600}", '%00', 'a&b=c', '');
my %found = map { $_->{name} => $_ } @{ routes('')->{items} };
is_deeply([map { $_->{pattern} } @{ $found{patterns}{routes} }], ['/"<script>', "/\x{202e}gnp", '/]},', '/\\\\"']);
is_deeply([sort keys %found], [sort @names, 'patterns']);
for my $name (@names) {
    (my $encoded = $name) =~ s/([^A-Za-z0-9])/join '', map { sprintf '%%%02x', ord } split m{}, Encode::encode('UTF-8', $1)/ge;
    my $items = routes("?tool=$encoded")->{items};
    is(scalar @$items, 1, $encoded);
    is($items->[0]{name}, $name);
}
