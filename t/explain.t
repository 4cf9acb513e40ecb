# /api/explain: the same result, tool, pattern and backend as a real request, and the reason for it.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use Encode qw(decode);
use File::Temp qw(tempdir);
use JSON::PP qw(decode_json);

my $certificates = $ENV{TEST_NGINX_CERTIFICATES} = tempdir(CLEANUP => 1);
system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=tools -days 2 -keyout $certificates/key.pem -out $certificates/cert.pem 2>$certificates/log") == 0
    or die 'openssl req';

own_sections(qw(subdomain domain));
add_block_preprocessor(sub {
    my ($block) = @_;
    my $port = '$TEST_NGINX_SERVER_PORT';
    my ($http, $subdomain, $domain) = map { $block->$_ // '' } qw(http subdomain domain);
    my $shown = join "\n", map { "add_header X-Urlproxy-\u$_ \"\$urlproxy_$_\" always;" } qw(result tool pattern backend domain);
    $block->set_value(server   => ($block->server // '') . "\nlocation /-/ { urlproxy_admin tools; }");
    $block->set_value(location => ($block->location // '') . "\nadd_header X-Urlproxy-Domain \"\$urlproxy_domain\" always;");
    $block->set_value(http     => <<"CONF");
$http
server {
    listen $port;
    server_name .toolforge.org;
    location / { urlproxy tools subdomain toolforge.org; proxy_pass http://tools; $subdomain $shown }
}
server {
    listen $port;
    server_name www.example.org *.wild.org *.old.org old.org ~\\.invalid\$;
    location / { urlproxy tools domain; proxy_pass http://tools; $domain $shown }
}
CONF
});

# Asks for the explanation of a request, and returns the socket for the answer.
sub start_explain {
    my ($host, $uri) = @_;
    s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge for $host, $uri;
    return start_ask("GET /-/api/explain?host=$host&uri=$uri");
}

# The explanation on a socket: its status and its document.
sub explanation {
    my $answer = answer($_[0]);
    return ($answer->{status}, decode_json($answer->{body}));
}

sub explain { return explanation(start_explain(@_)) }

# The best decision of the answer.
sub decision {
    my ($status, $document) = explain(@_);
    die "$status for @_\n" unless $status == 200;
    return $document->{decisions}[0];
}

# What a text looks like in JSON: invalid UTF-8 is replaced. nginx hides values with control characters.
sub shown { return decode('UTF-8', $_[0] // '') =~ s/\x{fffd}+/?/gr }

sub hidden { return $_[0] =~ /[\x00-\x1f\x7f]/ ? '' : $_[0] }

# The differences between real requests and their explanations, for pairs of host and URI. Asks for many explanations at once: each
# may wait for the companion.
sub differences {
    my (@pairs) = @_;
    my @wrong;
    while (my @now = splice @pairs, 0, 100) {
        my @sockets = map { start_explain(@$_) } @now;
        push @wrong, map { difference(@$_, shift @sockets) } @now;
    }
    return join "\n", @wrong;
}

sub difference {
    my ($host, $uri, $socket) = @_;
    my $real = ask("GET $uri", headers => ["Host: $host"]);
    my ($status, $document) = explanation($socket);
    return $real->{status} eq '400' ? () : "$host$uri: 400, but a request has $real->{status}" if $status == 400;
    my $best = $document->{decisions}[0];
    my ($matched) = grep { $_->{matched} } @{ $best->{patterns} };
    my %explained = (
        result  => $best->{result},
        tool    => hidden($best->{tool} // ''),
        pattern => hidden($matched ? $matched->{pattern} : ''),
        domain  => $best->{mode} eq 'domain' && $best->{result} =~ /^(?:route|redirect)$/ ? $best->{record} : '',
    );
    my @wrong;
    for my $name (sort keys %explained) {
        my ($want, $got) = (shown($real->{headers}{"x-urlproxy-$name"}), $explained{$name} =~ s/\x{fffd}+/?/gr);
        push @wrong, "$host$uri: $name is '$want', explained as '$got'" if $want ne $got;
    }
    my $backend = $real->{headers}{'x-urlproxy-backend'} // '';
    my %backends = map { $_->{url} => 1 } @{ $best->{backends} };
    push @wrong, "$host$uri: backend $backend is not explained" if $backend ne '' && !$backends{$backend};
    push @wrong, "$host$uri: no backend, but @{[keys %backends]} are explained" if $backend eq '' && %backends;
    push @wrong, "$host$uri: status $real->{status}, explained as $best->{status}"
        if defined $best->{status} && $best->{status} != $real->{status};
    push @wrong, "$host$uri: location $real->{headers}{location}, explained as $best->{redirect}"
        if ($real->{headers}{location} // '') ne ($best->{redirect} // '');
    push @wrong, "$host$uri: not matched by its server" unless $best->{server_matches} || $host =~ /invalid/i;
    our %seen;
    $seen{"$best->{mode} $best->{result}"}++;
    return @wrong;
}

# URIs that nginx normalizes, refuses or passes on as they are, for some tools.
sub uris {
    my @tools = ('', 'a"<b>\'', qw(hello only several moved nothing admin w%C3%AEki w%c3%aeki a%22%3Cb%3E%27 HELLO hello%0a %ff%fe hel%6Co hell%C3));
    my @rests = ('', '/x#frag', '/#/api?y', '/' . 'a' x 2000 . '/x', '/%41' . '%42' x 500, qw(/ /api /v12/x /V1/ /x //x/ /%2fapi /./api
        /../hello/api /..%2f..%2fapi /a/../api/ /case /CASE /%c3%a9 /" /%0aapi /%00 /%zz /% /api?x=/y /?../../z /a+b /a%20b /..));
    my @others = ('/', '//', '//hello', '///hello/api', '/..', '/.', '/%2e%2e/hello', '/hello%2fapi', '/hello/..%00', '/*', '/@', "/\xff/", "/hello/\xc3\xa9");
    return (@others, map { my $tool = $_; map { "/$tool$_" } @rests } @tools);
}

run_tests;

__DATA__

=== explanations agree with requests
--- redis eval
my ($a, $b, $c) = map { "http://$ENV{\"TEST_NGINX_TOOL_$_\"}" } qw(A B C);
[ ['HSET', 'prefix:hello', '.*', $a, '/api', $b, '^/v[0-9]+/', $c],
  ['HSET', 'prefix:only', '^/api/', $a, '/x$', $b, '(?i)^/CASE', $c],
  ['SADD', 'prefix:several', $a, $b, $c],
  ['HSET', 'prefix:admin', '^/admin-only', $a, '/[^n]', $b],
  ['HSET', 'prefix:moved', '.*', $a], ['HSET', 'redirect:moved', '.*', 'moved.toolforge.org'],
  ['HSET', "prefix:w\xc3\xaeki", '.*', $c],
  ['HSET', 'prefix:a"<b>\'', "^/\xc3\xa9|\"", $c],
  ['SADD', 'frontend:www.example.org', $a], ['SADD', 'frontend:*.wild.org', $b, $c], ['SADD', 'frontend:own.wild.org', $c],
  ['SADD', 'frontend:stays.old.org', $a], ['SADD', 'frontend:new.wild.org', $b], ['SADD', 'frontend:*.sub.wild.org', $b] ]
--- location
urlproxy_default admin;
urlproxy_canonical https://toolforge.org;
--- subdomain
urlproxy_default http://$TEST_NGINX_TOOL_C;
--- domain
urlproxy_miss 410;
urlproxy_moved old.org https://wild.org:8443;
--- perl
my @hosts = ('localhost', 'LOCALHOST:1984', map { ("$_.toolforge.org", "$_.ToolForge.org.:80") } qw(hello only several a.b moved nothing));
push @hosts, 'toolforge.org', map { ($_, "\U$_.") } qw(www.example.org a.wild.org own.wild.org x.invalid a..wild.org *.wild.org);
push @hosts, map { ("$_.old.org", "\U$_.old.org.") } qw(stays new x.sub x.other *.sub @ -);
push @hosts, 'old.org';
my @uris = uris();
my $at = 0;
# Every URI with localhost, and with one of the other hosts in turn.
my @pairs = map { (['localhost', $_], [$hosts[$at++ % @hosts], $_]) } @uris;
# Every host with some URIs.
for my $host (@hosts) {
    push @pairs, [$host, $_] for qw(/ /x /api/ /hello/api /admin-only);
}
is(differences(@pairs), '', scalar(@uris) . ' URIs, ' . scalar(@hosts) . ' hosts');
is(join(' ', sort grep { $main::seen{$_} > 2 } keys our %seen),
    'domain miss domain redirect domain route path default path miss path redirect path route subdomain default subdomain route', 'all results occur');



=== the document names every step
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /api http://$TEST_NGINX_TOOL_B ^/v[0-9]+ http://$TEST_NGINX_TOOL_C
--- perl
my ($status, $document) = explain('LOCALHOST:80', '/hello/./x%41?y=1');
is($status, 200);
my %document = map { $_ => $document->{$_} } qw(host uri table omitted);
is_deeply(\%document, { host => 'LOCALHOST:80', uri => '/hello/./x%41?y=1', table => 'tools', omitted => 0 });
is(scalar @{ $document->{decisions} }, 3);
is_deeply($document->{decisions}[0], {
    server => ['localhost'], location => '/', server_matches => JSON::PP::true, location_matches => JSON::PP::true,
    mode => 'path', domain => undef, normalized => { host => 'localhost', path => '/hello/xA', tool => 'hello', rest => '/xA' },
    result => 'route', why => 'pattern ".*" of tool "hello" matches "/xA"', status => undef, redirect => undef,
    tool => 'hello', record => 'hello',
    patterns => [map { { record => 'hello', pattern => $_, tested => '/xA', matched => $_ eq '.*' ? JSON::PP::true : JSON::PP::false } } '/api', '^/v[0-9]+', '.*'],
    backends => [{ url => "http://$ENV{TEST_NGINX_TOOL_A}", health => 'untracked', until => undef }], origin => undef,
});
is_deeply([map { [$_->{mode}, $_->{domain}, $_->{server}, $_->{server_matches}, $_->{why}] } @{ $document->{decisions} }[1, 2]], [
    ['domain', undef, ['www.example.org', '*.wild.org', '*.old.org', 'old.org', '~\.invalid$'], undef, 'no domain "localhost", and no urlproxy_default'],
    ['subdomain', 'toolforge.org', ['.toolforge.org'], undef,
        'host "localhost" is not directly below "toolforge.org", and no urlproxy_default'],
]);



=== the origin of the best match is the companion's
--- redis eval
my $url = "http://$ENV{TEST_NGINX_TOOL_A}";
[ ['HSET', 'prefix:hello', '.*', $url, '/api', $url], ['HSET', 'origin:hello', '/api', '{"source":"proxylistener","owner":"p.hello"}'],
  ['HSET', 'prefix:admin', '^/unknown', $url], ['HSET', 'origin:admin', '^/unknown', '{"source":"kube2proxy"}', '.*', '{}'],
  ['SADD', 'frontend:www.example.org', $url], ['HSET', 'origin:www.example.org', '.*', '{}'] ]
--- location
urlproxy_default admin;
--- domain
urlproxy_default admin;
--- perl
my $hello = { source => 'proxylistener', owner => 'p.hello' };
# The companion may be busy.
eventually { defined decision('localhost', '/hello/api')->{origin} };
for my $row (['localhost', '/hello/api', $hello], ['hello.toolforge.org', '/api', $hello], ['localhost', '/hello/', undef], ['localhost', '/admin', undef],
    ['localhost', '/unknown/', { source => 'kube2proxy' }], ['www.example.org', '/', undef],
    ['x.invalid', '/unknown/', { source => 'kube2proxy' }], ['localhost', '/none/', undef]) {
    my ($host, $uri, $want) = @$row;
    is_deeply(decision($host, $uri)->{origin}, $want, "$host$uri");
}



=== each outcome has its reason
--- redis
HSET prefix:hello /api http://$TEST_NGINX_TOOL_A
HSET prefix:admin /admin http://$TEST_NGINX_TOOL_B
HSET redirect:moved .* moved.toolforge.org
SADD frontend:*.wild.org http://$TEST_NGINX_TOOL_C
--- location
urlproxy_default admin;
urlproxy_canonical https://toolforge.org;
--- domain
urlproxy_moved old.org https://wild.org;
--- perl
my @rows = (
    ['localhost', '/hello/api', 'pattern "/api" of tool "hello" matches "/api"', undef],
    ['localhost', '/nothing/admin', 'no tool "nothing"; urlproxy_default: pattern "/admin" of tool "admin" matches "/nothing/admin"', undef],
    ['localhost', '/hello/', 'no pattern of tool "hello" matches "/", and for urlproxy_default no pattern of tool "admin" matches "/hello/"', 503],
    ['localhost', '/moved/x', 'tool "moved" has its own host: canonical redirect', 307],
    ['a.wild.org', '/x', 'pattern ".*" of domain "*.wild.org" matches "/x"', undef],
    ['www.example.org', '/', 'no domain "www.example.org" or "*.example.org", and no urlproxy_default', 404],
    ['a.old.org', '/x', 'no domain "a.old.org" or "*.old.org"; urlproxy_moved: domain "*.wild.org" has a route', 301],
    ['a.b.old.org', '/', 'no domain "a.b.old.org" or "*.b.old.org"; urlproxy_moved: no domain "a.b.wild.org" or "*.b.wild.org", and no urlproxy_default', 404],
    ['*.wild.org', '/', 'host "*.wild.org" cannot be a domain, and no urlproxy_default', 404],
    ['a.b.toolforge.org', '/', 'host "a.b.toolforge.org" is not directly below "toolforge.org", and no urlproxy_default', 503],
    ["localhost", "/%1b%5b2J\xe2\x80\xae\"/", 'no tool "\u{1b}[2J\u{202e}\"", and for urlproxy_default no pattern of tool "admin" matches "/\u{1b}[2J\u{202e}\"/"', 503],
);
for my $row (@rows) {
    my ($host, $uri, @want) = @$row;
    my $decision = decision($host, $uri);
    is_deeply([@$decision{qw(why status)}], \@want, "$host$uri");
}
my ($status, $document) = explain('', '/hello/api');
is_deeply([map { [@$_{qw(mode result why status)}] } @{ $document->{decisions} }], [
    ['domain', 'miss', 'the request has no host, which mode "domain" needs', 400],
    ['subdomain', 'miss', 'the request has no host, which mode "subdomain" needs', 400],
    ['path', 'route', 'pattern "/api" of tool "hello" matches "/api"', undef],
]);
for my $host ('a..b', 'a/b', ':80', '.', "a\x7f") {
    my ($status, $document) = explain($host, '/');
    is($status, 400, $host);
    is($document->{error}, qq{nginx refuses host "$host" with 400, expected e.g. "tools.example.org"});
}
for my $uri ('', 'hello', '*', '/../..', '/a b', "/\n", '/%00', '/%zz', '/%', '/..?x', '/x?a b') {
    my ($status, $document) = explain('localhost', $uri);
    is($status, 400, $uri);
    is($document->{error}, qq{nginx refuses uri "$uri" with 400, expected e.g. "/hello/x?y=1"});
}
my $none = ask('GET /-/api/explain?host=localhost');
is($none->{body}, '{"error":"no parameter \"uri\", expected e.g. uri=/hello/"}');



=== the health of several backends is shown without taking their probe
--- redis
SADD prefix:several http://$TEST_NGINX_DEAD_A http://$TEST_NGINX_TOOL_A
SADD prefix:named http://exec-1.invalid:80 http://$TEST_NGINX_TOOL_A
--- perl
my $health = sub { my $decision = decision('localhost', "/$_[0]/"); return { map { $_->{url} => $_->{health} } @{ $decision->{backends} } } };
my ($dead, $alive) = map { "http://$_" } @ENV{qw(TEST_NGINX_DEAD_A TEST_NGINX_TOOL_A)};
is_deeply($health->('several'), { $dead => 'up', $alive => 'up' });
ask('GET /several/') for 1 .. 4;
is_deeply($health->('several'), { $dead => 'unavailable', $alive => 'up' });
my ($backend) = grep { $_->{health} eq 'unavailable' } @{ decision('localhost', '/several/')->{backends} };
my $left = $backend->{until} - time;
cmp_ok($left, '>', 0);
cmp_ok($left, '<=', 12);
is_deeply($health->('named'), { 'http://exec-1.invalid:80' => 'untracked', $alive => 'up' });



=== locations are listed once, the best match first
--- server
location /api/ { urlproxy tools path; proxy_pass http://tools; urlproxy_miss 404; if ($arg_a) { set $b 1; } if ($arg_b) { urlproxy tools path; proxy_pass http://tools; } }
location = /api/exact { urlproxy tools path; proxy_pass http://tools; }
location ~ ^/re { urlproxy tools path; proxy_pass http://tools; }
location /off/ { urlproxy off; return 204; }
--- http
server { listen $TEST_NGINX_SERVER_PORT; server_name two.example; location / { urlproxy tools path; proxy_pass http://tools; } }
server { listen $TEST_NGINX_RAND_PORT_1; server_name two.example; location / { urlproxy tools path; proxy_pass http://tools; } }
--- redis
HSET prefix:api .* http://$TEST_NGINX_TOOL_A
--- perl
my $listed = sub {
    my ($status, $document) = explain(@_);
    return join ' ', map { "$_->{server}[0]$_->{location}" } grep { $_->{mode} eq 'path' } @{ $document->{decisions} };
};
is($listed->('localhost', '/api/x'), 'localhost/api/ localhost/ localhost~ ^/re localhost= /api/exact two.example/');
is($listed->('localhost', '/api/exact'), 'localhost= /api/exact localhost/api/ localhost/ localhost~ ^/re two.example/');
is($listed->('two.example', '/api/x'), 'two.example/ localhost/api/ localhost/ localhost~ ^/re localhost= /api/exact');
is(decision('localhost', '/api/x')->{tool}, 'api');



=== slashes are merged as the default server of the address says
--- http
server { listen $TEST_NGINX_SERVER_PORT default_server; server_name default; merge_slashes off; }
server { listen 127.0.0.2:$TEST_NGINX_SERVER_PORT; server_name merging.toolforge.org; location / { urlproxy tools path; } }
--- subdomain
urlproxy_default hello;
--- redis
HSET prefix:hello /x http://$TEST_NGINX_TOOL_A .* http://$TEST_NGINX_TOOL_B ^//+x http://$TEST_NGINX_TOOL_C
HSET prefix: .* http://$TEST_NGINX_TOOL_A
--- perl
my @uris = (uris(), qw(/hello//x //hello/x /hello///x /hello/.//x /hello//../x /hello/%2fx //../.. /x//../..//hello/));
is(differences(map { (['localhost', $_], ['hello.toolforge.org', $_]) } @uris), '', scalar(@uris) . ' URIs');
is(decision('localhost', '//x')->{normalized}{path}, '//x');
is(decision('merging.toolforge.org', '//x')->{normalized}{path}, '/x');



=== over TLS, slashes are merged as the server that SNI has chosen says
--- http
ssl_certificate $TEST_NGINX_CERTIFICATES/cert.pem;
ssl_certificate_key $TEST_NGINX_CERTIFICATES/key.pem;
server { listen 127.0.0.2:$TEST_NGINX_SERVER_PORT ssl default_server; server_name default; merge_slashes off; }
server {
    listen 127.0.0.2:$TEST_NGINX_SERVER_PORT ssl;
    server_name tls.example;
    location / { urlproxy tools path; proxy_pass http://tools; add_header X-Pattern $urlproxy_pattern; }
}
--- redis
HSET prefix:hello ^/x http://$TEST_NGINX_TOOL_A ^//x http://$TEST_NGINX_TOOL_B
--- perl
my $s_client = "openssl s_client -quiet -connect 127.0.0.2:$ENV{TEST_NGINX_SERVER_PORT} -servername tls.example 2>/dev/null";
my $answer = `printf 'GET /hello//x HTTP/1.1\r\nHost: tls.example\r\nConnection: close\r\n\r\n' | $s_client`;
my ($pattern) = $answer =~ /^X-Pattern: (.*?)\r$/m;
is($pattern, '^/x');
is(decision('tls.example', '/hello//x')->{patterns}[-1]{pattern}, $pattern);



=== a default server comes before others that match no name
--- http
server {
    listen $TEST_NGINX_SERVER_PORT default_server;
    server_name _;
    location / { urlproxy tools domain; proxy_pass http://tools; add_header X-Urlproxy-Result $urlproxy_result; }
}
--- redis
SADD frontend:www.other.org http://$TEST_NGINX_TOOL_A
--- perl
my ($status, $document) = explain('www.other.org', '/');
my @decisions = @{ $document->{decisions} };
is_deeply([map { [$_->{server}[0], $_->{server_matches}] } @decisions],
    [['www.example.org', undef], ['_', undef], ['.toolforge.org', JSON::PP::false], ['localhost', JSON::PP::false]]);
is_deeply([@{ $decisions[1] }{qw(mode result record)}], ['domain', 'route', 'www.other.org']);
is(ask('GET /', headers => ['Host: www.other.org'])->{headers}{'x-urlproxy-result'}, 'route', 'as for a request');
is(decision('localhost', '/')->{mode}, 'path', 'a server with that name is preferred');



=== before the first load, the reason says so
--- table
redis redis://127.0.0.1:1/0;
wait_for_routes 10ms;
--- location
urlproxy_default http://$TEST_NGINX_TOOL_A;
--- perl
my @hosts = ('localhost', 'hello.toolforge.org', 'www.example.org', 'a.b.toolforge.org');
is(differences(map { [$_, '/hello/'] } @hosts), '');
is_deeply([map { my $decision = decision($_, '/hello/'); [@$decision{qw(result status why)}] } @hosts], [
    ['unready', 503, 'no tool "hello", but the tools are not all loaded yet'],
    ['unready', 503, 'no tool "hello", but the tools are not all loaded yet'],
    ['unready', 503, 'no domain "www.example.org" or "*.example.org", but the domains are not all loaded yet'],
    ['unready', 503, 'host "a.b.toolforge.org" is not directly below "toolforge.org", but the tools are not all loaded yet'],
]);
