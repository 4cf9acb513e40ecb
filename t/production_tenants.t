# Tools are kept apart: no response header makes nginx serve another page, a shared cache has an entry for each tool and host, and
# TLS to a tool names its host. A tool may stream.
use lib 't/lib';
use Production;

# What an operator may add.
mkdir '/tmp/production/cache' or die $!;
write_file('/etc/nginx/conf.d/cache.conf', <<'CONF');
proxy_cache_path /tmp/production/cache keys_zone=pages:1m;
proxy_cache pages;
proxy_cache_valid 1m;
CONF
site('urlproxy', 'domainproxy');

# Names the cache's answer: each tool counts its requests.
my $counting = sub {
    my ($name, $address) = @_;
    my $file = "/tmp/production/count-$name";
    return tool($address, sub {
        my $count = -e $file ? slurp($file) + 1 : 1;
        write_file($file, $count);
        my $body = "$name $count";
        return "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    });
};
my %at = map { $_->[0] => $counting->(@$_) } ['a', '10.0.0.2'], ['b', '10.0.0.3'], ['c', '10.0.0.4'];
route(hello => $at{a});
route(other => $at{b});
route('one.example.net' => $at{a});
route('two.example.net' => $at{b});
route('*.wmcloud.org' => $at{c});
my $page = sub { return fetch($_[0])->{body} };
is($page->('https://tools.example.org/hello/x'), 'a 1', 'a page');
is($page->('https://tools.example.org/hello/x'), 'a 1', 'from the cache');
is($page->('https://tools.example.org/other/x'), 'b 1', "another tool's");
is($page->('https://hello.toolforge.org/x'), 'a 2', 'the tool at another host');
is($page->('https://other.toolforge.org/x'), 'b 2', 'the same path at another host');
is($page->('https://one.example.net/x'), 'a 3', 'a domain');
is($page->('https://two.example.net/x'), 'b 3', 'another domain');
is($page->('https://any.wmcloud.org/x'), 'c 1', 'a host of a wildcard');
is($page->('https://more.wmcloud.org/x'), 'c 2', 'another host of the wildcard');
is($page->('https://one.example.net/x'), 'a 3', 'each from the cache');
redis('HSET', 'prefix:hello', '.*', "http://$at{c}");
route(hello => $at{c});
is($page->('https://tools.example.org/hello/x'), 'a 1', 'a cached page outlives its backend');
redis('HSET', 'prefix:admin', '.*', "http://$at{b}");
redis('DEL', 'prefix:hello');
ok(eventually(sub { $page->('https://tools.example.org/hello/x') =~ /^b / }), 'but not its tool');

my $sends;
for my $to ('/other/x', '/robots.txt', '/.well-known/urlproxy/error/page.html', '@urlproxy_default_file', '/.well-known/healthz') {
    my $name = 'sends' . ++$sends;
    route($name => tool('10.0.0.5', sub { "HTTP/1.1 200 OK\r\nX-Accel-Redirect: $to\r\nCache-Control: no-store\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmine" }));
    route("$name.example.net" => redis_backend($name));
    for my $url ("https://tools.example.org/$name/", "https://$name.toolforge.org/", "https://$name.example.net/", "https://$name.toolforge.org/robots.txt") {
        my $answer = fetch($url);
        is("$answer->{status} $answer->{body}", '200 mine', "$url is not sent to $to");
    }
}
sub redis_backend {
    my ($name) = @_;
    my ($backend) = `curl -s http://127.0.0.1:8081/api/routes/$name` =~ m{http://([\d.:]+)};
    return $backend;
}

# The client gets the first part before the tool has sent the second.
my $streaming = serve('10.0.0.6', 8000);
route(stream => '10.0.0.6:8000');
my ($in, $out, $pid) = client_on('stream.toolforge.org');
syswrite $out, "GET /s HTTP/1.1\r\nHost: stream.toolforge.org\r\nUser-Agent: x\r\n\r\n";
my $backend = $streaming->accept;
sysread $backend, my $request, 4096;
syswrite $backend, "HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nCache-Control: no-store\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\ndata: 1\n\n";
my $text = '';
while ($text !~ /data: 1/ && IO::Select->new($in)->can_read(60)) { sysread($in, $text, 4096, length $text) or last }
like($text, qr/\r\n\r\ndata: 1/, 'streaming');
unlike($text, qr/X-Accel/i, 'the client does not see how');
close $backend;
hang_up($pid);

# The first bytes of TLS name the server.
my $tls = serve('10.0.0.7', 8443);
route(tls => 'https://10.0.0.7:8443');
route('tls.example.net' => 'https://10.0.0.7:8443');
for my $url ('https://tools.example.org/tls/', 'https://tls.toolforge.org/', 'https://tls.example.net/') {
    my ($host) = $url =~ m{//([^/]+)};
    my $asking = fork // die "fork: $!\n";
    if (!$asking) { fetch($url); POSIX::_exit(0) }
    my $connection = $tls->accept;
    sysread $connection, my $hello, 4096;
    like($hello, qr/\Q$host\E/, "$url: the name in TLS");
    close $connection;
    kill 'TERM', $asking;
    waitpid $asking, 0;
}
done_testing();
