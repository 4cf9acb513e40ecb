# The error pages of the shipped files: each error of nginx has a page of its kind in HTML and JSON, for every method and protocol;
# the errors of tools pass through.
use lib 't/lib';
use Production;
use IO::Socket::INET ();
use JSON::PP ();

# The status, kind and title that clients see for an error, and what the page must say besides.
my %pages;

# Errors that the shipped files cannot show at once: a table without routes, and nginx's own failures.
write_file('/etc/nginx/conf.d/more.conf', <<'CONF');
urlproxy_table cold {
    redis redis://127.0.0.1:6390/0;
    wait_for_routes 0s;
}
server {
    include urlproxy/snippets/listen-tls.conf;
    server_name cold.wmcloud.org;
    ssl_certificate      /etc/nginx/tls/tools.example.org.pem;
    ssl_certificate_key  /etc/nginx/tls/tools.example.org.key;
    include urlproxy/snippets/server.conf;
    location / { client_max_body_size 1k; urlproxy cold path; proxy_pass https://tools; include urlproxy/snippets/proxy.conf; }
    location = /500 { return 500; }
    location = /503 { return 503; }
    location = /508 { return 508; }
    location /nowhere/ { root /nowhere; }
}
CONF
site('urlproxy', 'domainproxy');

my $dead = IO::Socket::INET->new(LocalAddr => '10.0.0.9', LocalPort => 0, Proto => 'tcp') or die "10.0.0.9: $!\n";
route(down => '10.0.0.9:' . $dead->sockport);
route($_ => '10.0.0.9:' . $dead->sockport) for 'down.wmcloud.org', '*.down.wmcloud.org';

my $json = 'Accept: application/json';
sub object_of { return eval { JSON::PP->new->utf8->decode($_[0]{body}) } // { error => "no JSON: $_[0]{status} " . ($_[0]{body} =~ s/.*<h1>//sr) } }

# curl reads a body of 300 kB from there.
write_file('/run/production/request-body', 'x' x 300_000);
my $large = '@/run/production/request-body';

# What every page of nginx has, in either format.
sub has_page {
    my ($what, $answer, $status, $name, $retry_after) = @_;
    my %headers = %{ $answer->{headers} };
    is($answer->{status}, $status, "$what: status");
    is($headers{'cache-control'}, 'no-store', "$what: not cached");
    like($headers{vary} // '', qr/\bAccept(?:,|$)/, "$what: Vary");
    is($headers{'x-robots-tag'}, 'noindex', "$what: not indexed");
    is($headers{'x-content-type-options'}, 'nosniff', "$what: nosniff");
    is($headers{'content-security-policy'}, "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'", "$what: policy");
    is($headers{'strict-transport-security'}, 'max-age=31536000', "$what: HSTS");
    is($headers{'retry-after'}, $retry_after, "$what: Retry-After");
    unlike($answer->{head}, qr/^(?:Last-Modified|ETag|Accept-Ranges)/mi, "$what: no validators");
}

# Asks in both formats, and returns the HTML.
sub check {
    my ($url, $status, $error, $scope, $name, %with) = @_;
    my $retry_after = delete $with{retry_after};
    my $headers = delete $with{headers} // [];
    my $html = fetch($url, %with, headers => $headers);
    has_page("$error, HTML", $html, $status, $name, $retry_after);
    is($html->{headers}{'content-type'}, 'text/html; charset=utf-8', "$error: HTML");
    my $answer = fetch($url, %with, headers => [@$headers, $json]);
    has_page("$error, JSON", $answer, $status, $name, $retry_after);
    is($answer->{headers}{'content-type'}, 'application/json', "$error: JSON");
    my $object = object_of($answer);
    like(delete $object->{$_}, qr/^[A-Z][^<>&]+$/, "$error: $_") for qw(title message);
    is_deeply($object, { error => $error, status => $status, $scope => $name }, "$error: values") or diag($answer->{body});
    my ($title, $message) = @{ object_of($answer) }{qw(title message)};
    for my $part ("<title>$title</title>", "<h1>$title</h1>", "Error $status", "<p>$message</p>", "<bdi>$name</bdi>", '<html lang="en">',
        '<meta name="robots" content="noindex">', '<meta name="viewport"') {
        ok(index($html->{body}, $part) >= 0, "$error: $part");
    }
    is($pages{$error} // $title, $title, "$error: one title");
    $pages{$error} = $title;
    return $html->{body};
}

# Each kind.
like(check('https://tools.example.org/nix/', 503, 'no_such_tool', tool => 'nix'), qr/webservice start\b/, 'what its maintainer can do');
check('https://nix.toolforge.org/', 503, 'no_such_tool', tool => 'nix');
check('https://tools.example.org/', 503, 'no_such_site', host => 'tools.example.org');
unlike(check('https://nix.wmcloud.org/', 404, 'no_such_site', host => 'nix.wmcloud.org'), qr/webservice/, 'no advice for tools');
like(check('https://tools.example.org/down/x?y', 502, 'tool_down', tool => 'down'),
    qr/webservice status.*webservice logs.*error\.log.*webservice restart/s, 'what its maintainer can do');
check('https://down.toolforge.org/', 502, 'tool_down', tool => 'down');
like(check('https://down.wmcloud.org/', 502, 'site_down', host => 'down.wmcloud.org'), qr/firewall/, 'what its maintainer can do');
check('https://any.down.wmcloud.org/', 502, 'site_down', host => 'any.down.wmcloud.org', curl => ['--insecure']);
check('https://cold.wmcloud.org/hello/', 503, 'not_ready', tool => 'hello', retry_after => 1);
check('https://tools.example.org/nix/', 403, 'no_user_agent', host => 'tools.example.org', headers => ['User-Agent:']);
add_to('lists/banned-agents.conf', '"~*badcrawler" agent;');
reload();
check('https://tools.example.org/down/', 403, 'forbidden', host => 'tools.example.org', headers => ['User-Agent: BadCrawler/1']);
check('https://cold.wmcloud.org/500', 500, 'technical', host => 'cold.wmcloud.org');
check('https://cold.wmcloud.org/503', 503, 'technical', host => 'cold.wmcloud.org');
check('https://cold.wmcloud.org/508', 508, 'loop', host => 'cold.wmcloud.org');
check('https://cold.wmcloud.org/nowhere/x', 404, 'not_found', host => 'cold.wmcloud.org');
check('https://cold.wmcloud.org/hello/', 413, 'too_large', host => 'cold.wmcloud.org', body => 'x' x 2048);
check('https://cold.wmcloud.org/hello/', 405, 'bad_request', host => 'cold.wmcloud.org', method => 'TRACE');

# nginx answers before it has read the headers of these requests, so they get HTML, from the default server.
for (['/%', 400, 'Bad request'], ['/' . 'x' x 40000, 414, 'Address too long']) {
    my ($uri, $status, $title) = @$_;
    my $answer = ask('tools.example.org', "GET $uri HTTP/1.1\r\nHost: tools.example.org\r\n$json\r\n\r\n");
    has_page("$title before the headers", $answer, $status, undef, undef);
    like($answer->{body}, qr/<h1>$title</, $title);
}
for my $line ("\x16\x03\x01", 'GET / HTTP/9.9', "GET / HTTP/1.1\r\nHost: a/b", 'GET / HTTP/1.1', "GET / HTTP/1.1\r\nHost: a\r\nX: " . 'x' x 40000) {
    my $answer = ask('tools.example.org', "$line\r\n\r\n");
    like("$answer->{status} $answer->{body}", qr/^(?:400|431|505) .*<h1>Bad request/s, 'no valid request: ' . substr $line =~ tr/\r\n\x16\x03\x01/ /r, 0, 30);
}
my $plain = fetch('http://tools.example.org:443/', headers => [$json]);
is($plain->{status}, 400, 'HTTP to port 443');
is(object_of($plain)->{error}, 'bad_request', 'HTTP to port 443: page');

# Every method, with bodies that nginx does not read, and the connection stays usable.
for my $method (qw(GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND)) {
    for (['nix', 503], ['down', 502]) {
        my ($tool, $status) = @$_;
        my @body = $method =~ /^P/ ? (body => $large) : ();
        for my $http ('--http1.1', '--http2') {
            my $answer = fetch("https://tools.example.org/$tool/", method => $method, headers => [$json], http => $http, @body);
            is($answer->{status}, $status, "$method $tool $http");
            is($answer->{headers}{'content-type'}, 'application/json', "$method $tool $http: format");
            next if $method eq 'HEAD';
            is(object_of($answer)->{tool}, $tool, "$method $tool $http: page");
        }
    }
}
for my $tool (qw(nix down)) {
    my $post = "POST /$tool/ HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: t\r\n$json\r\nContent-Length: 3\r\n";
    my ($in, $out, $pid) = client_on('tools.example.org');
    syswrite $out, "${post}\r\nabc${post}Expect: 100-continue\r\nConnection: close\r\n\r\nabc";
    my $said = '';
    until ((() = $said =~ /\r\n0\r\n\r\n/g) == 2) { sysread $in, $said, 65536, length $said or last }
    kill 'TERM', $pid;
    is(join(' ', $said =~ /^\{"error":"(\w+)"/mg), $tool eq 'nix' ? 'no_such_tool no_such_tool' : 'tool_down tool_down', "$tool: two answers on one connection");
}
my $ranged = fetch('https://tools.example.org/nix/', headers => ['Range: bytes=0-9', 'If-None-Match: *', 'If-Modified-Since: Sun, 29 Nov 2099 00:00:00 GMT']);
like("$ranged->{status} $ranged->{body}", qr/^503 .*<\/html>\s*$/s, 'neither a part nor 304');

# Accept: the first of HTML and JSON counts.
for (split /\n/, <<'ROWS') {
    application/json                                    json
    application/json, text/plain, */*                   json
    text/plain, APPLICATION/JSON ; charset=utf-8        json
    application/problem+json                            json
    application/vnd.api+json;ext=x, text/html           json
    application/json;q=0.1, text/html                   json
    text/html, application/json                         html
    application/xhtml+xml, application/json             html
    text/html;q=0, application/json                     json
    application/json;q=0                                html
    application/json;q=0.000, text/html                 html
    application/jsonp                                   html
    xapplication/json                                   html
    text/html;x="application/json"                      html
    */*                                                 html
    image/png                                           html
ROWS
    my ($accept, $format) = /^ *(.*\S) +(\S+)$/;
    like(fetch('https://tools.example.org/nix/', headers => ["Accept: $accept"])->{headers}{'content-type'}, qr{/$format\b}, "Accept: $accept");
}
like(fetch('https://tools.example.org/nix/', headers => ['Accept:'])->{headers}{'content-type'}, qr{/html\b}, 'no Accept');
like(fetch('https://tools.example.org/nix/', headers => ['Accept: ' . 'a/b,' x 1900 . $_])->{headers}{'content-type'}, qr{^\Q$_\E\b}, "a long Accept, $_")
    for qw(application/json text/html);

# The errors of a tool, as it sends them.
my $text = '<!--# echo var="urlproxy_tool" --><!--# include virtual="/down/" -->';
for my $status (400, 403, 404, 410, 429, 500, 502, 503, 504, 508) {
    my $tool = tool('10.0.0.2', sub {
        join "\r\n", "HTTP/1.1 $status Mine", 'Content-Type: text/html', 'Content-Length: ' . length $text, 'Cache-Control: max-age=7', 'Retry-After: 77',
            'X-Accel-Redirect: /.well-known/urlproxy/error/page.html', 'Connection: close', '', $text;
    });
    route("own$status" => $tool);
    for my $method (qw(GET POST)) {
        my $answer = fetch("https://tools.example.org/own$status/", method => $method, headers => [$json]);
        is("$answer->{status} $answer->{body}", "$status $text", "$method: the tool's own $status");
        is(join(' ', map { $answer->{headers}{$_} // '-' } qw(cache-control retry-after content-security-policy x-robots-tag vary)),
            'max-age=7 77 - - -', "$method: the headers of its $status");
    }
}
route(jump => tool('10.0.0.3', sub { "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /.well-known/urlproxy/error/robots.txt\r\nContent-Length: 4\r\n\r\nmine" }));
is(fetch('https://tools.example.org/jump/')->{body}, 'mine', 'a tool cannot send a client to the internal location');

# Nor can a client.
for my $path (qw(page.html page.json robots.txt favicon.ico ../error/page.html %2e%2e/error/page.json x/), '') {
    for my $host (qw(tools.example.org hello.toolforge.org nix.wmcloud.org)) {
        for my $method (qw(GET POST)) {
            my $answer = fetch("https://$host/.well-known/urlproxy/error/$path", method => $method, headers => [$json]);
            like(object_of($answer)->{error}, qr/^(?:not_found|no_such_tool|no_such_site|bad_request)$/, "$method $host $path");
            cmp_ok($answer->{status}, '>=', 400, "$method $host $path");
        }
    }
}

# The limits of the shipped files, lowered.
my $conf = slurp(conf_path('urlproxy'));
$conf =~ s/rate=100r\/s/rate=1r\/m/ or die 'no rate';
$conf =~ s/burst=500/burst=1/g or die 'no burst';
$conf =~ s/(limit_conn +tools_open) 200/$1 1/g or die 'no limit_conn';
$conf =~ s/^( *)limit_req .*\n//m or die 'no limit_req';
write_file(conf_path('urlproxy'), $conf);
reload();
fetch('https://nix.toolforge.org/') for 1 .. 3;
check('https://nix.toolforge.org/', 429, 'rate_limited', host => 'nix.toolforge.org', retry_after => 10);
is(fetch('https://nix.toolforge.org/', method => 'POST', body => $large)->{status}, 429, 'POST');
my $listener = serve('10.0.0.4');
route(busy => '10.0.0.4:' . $listener->sockport);
my ($in, $out) = client_on('tools.example.org');
syswrite $out, "GET /busy/ HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: t\r\n\r\n";
my $waiting = $listener->accept or die "the tool got no request\n";
check('https://tools.example.org/busy/', 503, 'too_many_requests', tool => 'busy', retry_after => 1);
is(fetch('https://tools.example.org/busy/', method => 'POST', body => $large)->{status}, 503, 'POST');
close $_ for $waiting, $in, $out;

# No two kinds look alike.
my %kinds = reverse %pages;
is(keys %kinds, keys %pages, 'each kind has a title of its own');

# A design of the operator's own, as in docs/operations.md.
my $snippet = '/etc/nginx/urlproxy/snippets/error-pages.conf';
write_file($snippet, slurp($snippet) =~ s{alias +/usr/share/urlproxy/error/;}{alias /etc/nginx/error/;}r);
mkdir '/etc/nginx/error';
write_file('/etc/nginx/error/page.html', '<h1>Mine: <!--# echo var="urlproxy_error" --></h1>');
reload();
is(fetch('https://cold.wmcloud.org/500')->{body}, '<h1>Mine: technical</h1>', 'the page of another directory');
write_file('/etc/nginx/error/page.html', '<h1>Ours: <!--# echo var="urlproxy_error" --></h1>');
is(fetch('https://cold.wmcloud.org/500')->{body}, '<h1>Ours: technical</h1>', 'changes need no reload');
unlink '/etc/nginx/error/page.html';
for my $path ('/500', '/hello/') {
    my $answer = fetch("https://cold.wmcloud.org$path", method => 'POST', body => $large);
    is("$answer->{status} $answer->{body}", $path eq '/500' ? "500 Technical problem\n" : "503 Starting up\n", "without its file, $path keeps its status");
}

# The other files of the directory.
my $icon = slurp('/usr/share/urlproxy/error/favicon.ico');
is(join(' ', unpack 'vvv', $icon), '0 1 3', 'an icon with three images');
for my $entry (unpack '(a16)3', substr $icon, 6) {
    my ($width, $length, $offset) = (unpack 'CCCCvvVV', $entry)[0, 6, 7];
    is(substr($icon, $offset, 8), "\x89PNG\r\n\x1a\n", "$width pixels: PNG");
    is(join('x', unpack 'x16NN', substr $icon, $offset, $length), "${width}x$width", 'of this size');
    is(substr($icon, $offset + $length - 8, 4), 'IEND', 'complete');
}
done_testing();
