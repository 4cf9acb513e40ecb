# A site without favicon.ico or robots.txt has the platform's. Its own files, its own errors and a site that is down have none.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my %default = map { $_ => slurp("nginx-conf/error/$_") } qw(favicon.ico robots.txt);
my %type    = ('favicon.ico' => 'image/x-icon', 'robots.txt' => 'text/plain');
my $bare    = tool('10.0.0.2', sub { "HTTP/1.1 404 Not Found\r\nX-Tool: bare\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone" });
my $own     = tool('10.0.0.3', sub { "HTTP/1.1 200 OK\r\nX-Tool: own\r\nContent-Length: 3\r\nConnection: close\r\n\r\nown" });
my $failing = tool('10.0.0.4', sub { "HTTP/1.1 503 Busy\r\nX-Tool: failing\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy" });
route(bare => $bare);
route(own => $own);
route(failing => $failing);
redis('HSET', 'prefix:down', '.*', 'http://10.0.0.9:9');
route("$_->[0].example.net" => $_->[1]) for ['bare', $bare], ['own', $own];

for my $file (sort keys %default) {
    for my $host ('tools.example.org', 'toolforge.org', 'bare.toolforge.org', 'none.toolforge.org', 'bare.example.net', 'none.example.net') {
        my $answer = fetch("https://$host/$file?x");
        is($answer->{status}, 200, "https://$host/$file");
        ok($answer->{body} eq $default{$file}, 'the default');
        is($answer->{headers}{'content-type'}, $type{$file}, 'its type');
        like($answer->{headers}{'cache-control'}, qr/max-age=86400/, 'for a day');
        is(fetch("https://$host/$file", headers => ["If-Modified-Since: $answer->{headers}{'last-modified'}"])->{status}, 304, 'if modified');
        my $head = fetch("https://$host/$file", method => 'HEAD');
        is("$head->{status} $head->{body}", '200 ', 'HEAD');
        is(fetch("https://$host/$file", method => $_, body => 'x')->{status}, 404, $_) for qw(POST PUT OPTIONS DELETE);
    }
    for my $host ('own.toolforge.org', 'own.example.net') {
        my $answer = fetch("https://$host/$file");
        is("$answer->{status} $answer->{body}", '200 own', "https://$host/$file is its own");
    }
    # Such a tool may have a robots.txt that forbids what the default allows.
    is(fetch("https://failing.toolforge.org/$file")->{body}, 'busy', "a tool's own 503");
    like(fetch("https://down.toolforge.org/$file")->{status}, qr/^50[24]$/, 'a tool that is down');
    # In path mode only the file of the host has a default.
    my $answer = fetch("https://tools.example.org/bare/$file");
    is("$answer->{status} $answer->{body}", '404 none', 'below a tool');
}
is(fetch('https://bare.toolforge.org/other.txt')->{body}, 'none', 'another file');
is(fetch('https://bare.toolforge.org/page.html')->{body}, 'none', 'no other file of the platform');
route(admin => $own);
ok(eventually(sub { fetch('https://tools.example.org/robots.txt')->{body} eq 'own' }), "the default tool's own");
done_testing();
