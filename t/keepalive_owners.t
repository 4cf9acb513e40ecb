# A kept connection serves one tool or domain, one scheme and one set of TLS settings. Only plain connections in shared
# networks serve all tools.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;
use NginxBackend;

our $passed = 'proxy_http_version 1.1; proxy_set_header Connection "";';

# The second nginx returns the TLS name and the number of the connection.
our $says = 'ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; error_page 497 =200 /plain; '
    . 'location = /plain { internal; return 200 "plain $connection"; } location / { return 200 "tls $connection $ssl_server_name"; }';

run_tests;

__DATA__

=== tools at the same address share no connections
--- upstream
urlproxy_keepalive 64;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_1
HSET prefix:late .* http://$TEST_NGINX_PEER_1
--- perl
is("@{[serve_together(('GET /one/') x 3, ('GET /two/') x 2)]}", '1.1 1.2 1.3 1.4 1.5');
is("@{[serve_together('GET /two/', 'GET /one/', 'GET /two/', 'GET /one/')]}", '1.5 1.3 1.4 1.2', 'each tool reuses its own connections');
is(serve('GET /late/'), '1.6', 'a tool without a connection gets a new one');
is("@{[serve_together(('GET /two/') x 3)]}", '1.4 1.5 1.7', 'so does a tool that needs more');
--- no_error_log
[error]
[alert]



=== tools with a common backend share no connections
--- upstream
urlproxy_keepalive 64;
--- redis
SADD prefix:one http://$TEST_NGINX_PEER_1 http://$TEST_NGINX_PEER_2
SADD prefix:two http://$TEST_NGINX_PEER_1 http://$TEST_NGINX_PEER_2
--- perl
my %asked;
for (1 .. 6) {
    $asked{one}{ serve('GET /one/') }++;
    $asked{two}{ serve('GET /two/') }++;
}
is_deeply([map { sort values %{ $asked{$_} } } qw(one two)], [3, 3, 3, 3], 'two connections each');
is(scalar(grep { $asked{two}{$_} } keys %{ $asked{one} }), 0, 'no shared connection');



=== a tool and a domain of the same name share no connections
--- upstream
urlproxy_keepalive 64;
--- server
location /domain/ { urlproxy tools domain; proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ""; }
--- redis
HSET prefix:same .* http://$TEST_NGINX_PEER_1
SADD frontend:same http://$TEST_NGINX_PEER_1
SADD frontend:*.same http://$TEST_NGINX_PEER_1
--- perl
my $ask = sub { serve("GET $_[0]", headers => ["Host: $_[1]"]) };
my @requests = (['/same/', 'x'], ['/domain/', 'same'], ['/domain/', 'a.same']);
is(join(' ', map { $ask->(@$_) } @requests), '1.1 1.2 1.3');
is(join(' ', map { $ask->(@$_) } reverse @requests), '1.3 1.2 1.1');
is($ask->('/domain/', 'b.same'), '1.3', 'the hosts of a wildcard share connections');



=== the default tool reuses its connections for any URI
--- upstream
urlproxy_keepalive 64;
--- location
urlproxy_default admin;
--- redis
HSET prefix:admin .* http://$TEST_NGINX_PEER_1
HSET prefix:one .* http://$TEST_NGINX_PEER_1
--- perl
is(join(' ', map { serve("GET $_") } qw(/admin/ /unknown/ /one/ / /one/ /admin/)), '1.1 1.1 1.2 1.1 1.2 1.1');



=== tools share connections in shared networks
--- upstream
urlproxy_keepalive 64 shared=192.0.2.0/24,127.0.0.0/8;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_1
HSET prefix:three .* http://$TEST_NGINX_PEER_2
--- perl
is(join(' ', map { serve("GET /$_/") } qw(one two three one three two)), '1.1 1.1 2.1 1.1 2.1 1.1', 'all tools share one connection');



=== shared of urlproxy_peers applies
--- http
upstream common { urlproxy_peers shared=127.0.0.0/8; urlproxy_keepalive 64 shared=192.0.2.0/24; }
--- pass: http://common
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_1
--- perl
is(join(' ', map { serve("GET /$_/") } qw(one two one)), '1.1 1.1 1.1');



=== tools do not share connections in other networks
--- upstream
urlproxy_keepalive 64 shared=192.0.2.0/24,127.0.0.2/31,::1;
--- redis
HSET prefix:one .* http://$TEST_NGINX_PEER_1
HSET prefix:two .* http://$TEST_NGINX_PEER_1
--- perl
is(join(' ', map { serve("GET /$_/") } qw(one two one two)), '1.1 1.2 1.1 1.2');



=== http and https at the same address share no connections
--- upstream
urlproxy_keepalive 64;
--- pass: https://tools
--- redis
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    redis('HSET', 'prefix:one', '/tls', "https://127.0.0.1:$port", '.*', "http://127.0.0.1:$port");
    ok(eventually { ask('GET /list')->{body} =~ /"one"/ }, 'routed');
    my %kept;
    for my $round (1 .. 3) {
        for my $path (qw(/one/tls /one/)) {
            my ($scheme, $connection) = split ' ', ask("GET $path")->{body};
            is($scheme, $path eq '/one/' ? 'plain' : 'tls', "round $round: $path");
            $kept{$path}{$connection}++;
        }
    }
    is(scalar(keys %{ $kept{'/one/tls'} }), 1, 'one TLS connection');
    # The server closes after each plain request to its port.
    ok(!(grep { $kept{'/one/'}{$_} } keys %{ $kept{'/one/tls'} }), 'no plain request has used it');
});



=== plain connections are not reused for TLS
--- upstream
urlproxy_keepalive 64;
--- pass: https://tools
--- redis
HSET prefix:one /tls https://$TEST_NGINX_PEER_1 .* http://$TEST_NGINX_PEER_1
--- perl
is(serve('GET /one/'), '1.1', 'plain');
my $client = start_ask('GET /one/tls');
my $has_new = eventually { open_connections() eq '1.1 1.2' };
ok($has_new, 'TLS has another connection');
sysread connection('1.2'), my $hello, 1;
is(ord $hello, 22, 'it begins with a TLS handshake');
close_as_backend('close', '1.2');
finish($client, 'GET', 502);
is(serve('GET /one/'), '1.1', 'the plain connection is reused');



=== TLS connections are not shared in shared networks
--- upstream
urlproxy_keepalive 64 shared=127.0.0.0/8;
--- pass: https://tools
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    redis('HSET', "prefix:$_", '.*', "https://127.0.0.1:$port") for qw(one two);
    ok(eventually { ask('GET /list')->{body} =~ /"two"/ && ask('GET /list')->{body} =~ /"one"/ }, 'routed');
    my %kept = map { $_ => ask("GET /$_/")->{body} } qw(one two);
    isnt($kept{one}, $kept{two}, 'tools share no TLS connection');
    is(ask("GET /$_/")->{body}, $kept{$_}, "$_ has its own") for qw(one two one);
});



=== POST reuses TLS connections
--- upstream
urlproxy_keepalive 64;
--- pass: https://tools
--- user_files eval: NginxBackend::certificate_files()
--- perl
with_nginx_backend('ssl', $::says, sub {
    my ($port) = @_;
    redis('HSET', 'prefix:one', '.*', "https://127.0.0.1:$port");
    ok(eventually { ask('GET /list')->{body} =~ /"one"/ }, 'routed');
    my $kept = ask('GET /one/')->{body};
    for my $body ('x', 'x' x 100_000) {
        idle();
        is(ask('POST /one/', body => $body)->{body}, $kept, 'goes over the kept connection');
    }
});



=== connections bound by proxy_bind are reused for the same address only
--- upstream
urlproxy_keepalive 8;
--- server
location /bound/ { urlproxy tools path; proxy_bind $arg_from; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://tools; }
--- redis
HSET prefix:bound .* http://$TEST_NGINX_TOOL_A
--- perl
my @peers = map { ask("GET /bound/?from=$_")->{body} =~ /^peer: (.*)$/m ? $1 : 'none' } qw(127.0.0.1 127.0.0.2 127.0.0.1 127.0.0.2);
like($peers[0], qr/^127\.0\.0\.1:/, 'from the one');
like($peers[1], qr/^127\.0\.0\.2:/, 'from the other');
is_deeply([@peers[2, 3]], [@peers[0, 1]], 'each is reused');
