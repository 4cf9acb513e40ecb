# HTTP/2: each stream is routed by itself, and :authority is the host.
use lib 't/lib';
use UrlproxyTest 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;
    my $passes = 'proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'
        . ' add_header X-Urlproxy-Tool "$urlproxy_tool" always; add_header X-Urlproxy-Result "$urlproxy_result" always;';
    $block->set_value(upstream => 'keepalive 8;');
    $block->set_value(http => <<"CONF");
server {
    listen unix:\$TEST_NGINX_SERVER_ROOT/h2.sock http2;
    server_name .toolforge.org;
    location / { urlproxy tools subdomain toolforge.org; $passes }
}
server {
    listen unix:\$TEST_NGINX_SERVER_ROOT/h2.sock http2;
    server_name www.example.org other.example.org *.wmflabs.org;
    location / { urlproxy tools domain; urlproxy_moved wmflabs.org https://wmcloud.org; $passes }
}
server {
    listen unix:\$TEST_NGINX_SERVER_ROOT/h2.sock http2 default_server;
    server_name _;
    location / { urlproxy tools path; $passes }
    location = /list { urlproxy_list tools; }
    location /admin/ { urlproxy_admin tools; }
}
CONF
});

# Builds one request. `more` are additional headers; an undefined authority is omitted.
sub h2_request {
    my ($path, %with) = @_;
    my $authority = exists $with{authority} ? $with{authority} : 'tools.example.org';
    return {
        headers => [
            [':method', $with{method} // 'GET'], [':scheme', 'http'], [':path', $path],
            (defined $authority ? [':authority', $authority] : ()), @{ $with{more} // [] },
        ],
        body  => $with{body},
        reset => $with{reset} ? JSON::PP::true() : JSON::PP::false(),
    };
}

# Sends all requests at once, on one connection.
sub h2_ask {
    my (@requests) = @_;
    # Debian's Python, which has the library.
    my $pid = IPC::Open2::open2(my $out, my $in, '/usr/bin/python3', 't/lib/h2_client.py', server_root() . '/h2.sock');
    print $in JSON::PP::encode_json($_), "\n" for @requests;
    close $in;
    my @answers = map { JSON::PP::decode_json($_) } <$out>;
    waitpid $pid, 0;
    die "h2_client.py ended with $?\n" if $? || @answers != @requests;
    return wantarray ? @answers : $answers[0];
}

# Summarizes each response: the status and the demo tool that answered, or how the stream ended.
sub h2_words {
    return join ', ', map { $_->{status} ? "$_->{status} " . ($_->{headers}{'x-tool'} // '-') : join ' ', %$_ } @_;
}

use IPC::Open2 ();
use JSON::PP   ();
run_tests;

__DATA__

=== streams are routed like HTTP/1.1 requests
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A /api http://$TEST_NGINX_TOOL_B
--- perl
my ($get, $api, $none, $head, $post) = h2_ask(h2_request('/hello/a%2Fb?x=1'), h2_request('/hello/api'), h2_request('/unknown/'),
    h2_request('/hello/', method => 'HEAD'), h2_request('/hello/', method => 'POST', body => 'x' x 5000));
is(h2_words($get, $api, $none, $head, $post), '200 a, 200 b, 503 -, 200 a, 200 a');
like($get->{body}, qr{^uri: /hello/a%2Fb\?x=1\nhost: tools\.example\.org$}m, 'the backend gets the URI as sent');
is("$none->{headers}{'x-urlproxy-tool'} $none->{headers}{'x-urlproxy-result'}", 'unknown miss');
is($head->{body}, '', 'a HEAD has no body');
like($post->{body}, qr/^body: 5000 bytes/m);



=== a hundred concurrent streams get their own responses
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:other .* http://$TEST_NGINX_TOOL_B
HSET prefix:dead .* http://$TEST_NGINX_DEAD_A
--- perl
my @kinds = (['hello', '200 a'], ['other', '200 b'], ['unknown', '503 -'], ['dead', '502 -']);
my @asked = map { [$_, @{ $kinds[$_ % 4] }] } 0 .. 99;
my @got   = h2_ask(map { h2_request("/$_->[1]/$_->[0]") } @asked);
is(h2_words(@got), join(', ', map { $_->[2] } @asked));
my @wrong = grep { $got[$_]{status} == 200 && $got[$_]{body} !~ m{^uri: /$asked[$_][1]/$_$}m } 0 .. 99;
is("@wrong", '', 'each stream gets its own response');
is(join(' ', map { $_->{headers}{'x-urlproxy-tool'} } @got), join(' ', map { $_->[1] } @asked));



=== long lists share a connection with other streams
--- redis eval
[ map { ['HSET', "prefix:tool-number-$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } 1 .. 3000 ]
--- perl
my @got = h2_ask(map { h2_request($_) } (qw(/list /admin/api/routes /admin/live)) x 3);
my $want = join ' ', sort map { "tool-number-$_" } 1 .. 3000;
for my $at (0 .. $#got) {
    is($got[$at]{status}, 200);
    next if $got[$at]{body} eq "live\n";
    my $json = JSON::PP::decode_json($got[$at]{body});
    my @names = $json->{items} ? map { $_->{name} } @{ $json->{items} } : keys %$json;
    ok(join(' ', sort @names) eq $want, "stream $at is complete");
}
is(h2_ask(h2_request('/list', method => 'HEAD'))->{status}, 200);
like(h2_words(h2_ask(h2_request('/list', reset => 1), h2_request('/hello/'))), qr/^reset by the client, 503 -$/);



=== :authority is the host
--- redis
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
SADD frontend:other.example.org http://$TEST_NGINX_TOOL_B
HSET prefix:hello .* http://$TEST_NGINX_TOOL_C
--- perl
my $of = sub { h2_request('/', authority => shift, more => [@_]) };
is(h2_words(h2_ask(map { $of->($_) } 'www.example.org', 'WWW.Example.ORG:8080', 'hello.toolforge.org', 'other.example.org.')),
    '200 a, 200 a, 200 c, 200 b');
is(h2_words(h2_ask($of->(undef, ['host', 'www.example.org']))), '200 a', 'Host instead of :authority');
is(h2_words(h2_ask($of->(undef))), '400 -', 'no authority and no Host');
is(h2_words(h2_ask($of->(''))), '400 -', 'an empty authority');
like(h2_words(h2_ask($of->('www.example.org/x'))), qr/^400|^reset/, 'an invalid host');



=== a moved domain is redirected
--- redis
SADD frontend:new.wmcloud.org http://$TEST_NGINX_TOOL_A
--- perl
my @requests = map { h2_request('/a%20b?x', authority => shift @$_, @$_) } ['new.wmflabs.org'], ['NEW.wmflabs.org.:8080'],
    ['new.wmflabs.org', method => 'POST', body => 'x' x 5000], ['other.wmflabs.org'];
my @got = h2_ask(@requests);
is(h2_words(@got), '301 -, 301 -, 301 -, 404 -');
is(join(' ', map { $_->{headers}{location} // '-' } @got), 'https://new.wmcloud.org/a%20b?x ' x 3 . '-');



=== a conflicting Host does not route the request elsewhere
--- redis
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
SADD frontend:other.example.org http://$TEST_NGINX_TOOL_B
HSET prefix:hello .* http://$TEST_NGINX_TOOL_C
--- perl
for (['www.example.org', 'other.example.org', 'a'], ['other.example.org', 'www.example.org', 'b'],
    ['hello.toolforge.org', 'www.example.org', 'c'], ['www.example.org', 'hello.toolforge.org', 'a'])
{
    my ($authority, $host, $tool) = @$_;
    is(h2_words(h2_ask(h2_request('/', authority => $authority))), "200 $tool", "$authority alone");
    my $got = h2_ask(h2_request('/', authority => $authority, more => [['host', $host]]));
    # nginx refuses the request, or uses :authority and passes only that on: RFC 9113, 8.3.1.
    like(h2_words($got), qr/^(400 -|200 $tool)$/, "$authority, but Host: $host");
    like($got->{body}, qr/^host: \Q$authority\E$/m, 'which the tool sees too') if $got->{status} == 200;
}



=== reset streams do not affect others
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD prefix:several http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
my ($worker) = worker_pids();
for my $round (1 .. 5) {
    my @reset = map { h2_request('/several/?delay_ms=2000', reset => 1) } 1 .. 40;
    my @got   = h2_ask(@reset[0 .. 19], h2_request('/hello/'), @reset[20 .. 39], h2_request('/several/'));
    is(h2_words($got[20]), '200 a', "round $round: one in the midst");
    like(h2_words($got[41]), qr/^200 [ab]$/, "round $round: one after all");
}
# Neither backend counts as failed: they still take turns.
my %asked = map { ask('GET /several/')->{headers}{'x-tool'} => 1 } 1 .. 4;
is(join('', sort keys %asked), 'ab');
is("@{[worker_pids()]}", $worker, 'the worker survives');
--- no_error_log
backend failed; unavailable for
[alert]
[emerg]
panic



=== a backend that closes mid-response ends only its stream
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:broken .* http://$TEST_NGINX_OWN_A
--- perl
my $pid = fork // die;
if (!$pid) {
    my $backend = accept_on('A');
    read_message($backend);
    send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    close $backend;
    POSIX::_exit(0);
}
use POSIX ();
my ($broken, $hello) = h2_ask(h2_request('/broken/'), h2_request('/hello/'));
waitpid $pid, 0;
is(join(' ', sort keys %$broken), 'reset');
is(h2_words($hello), '200 a');



=== an interim response reaches no stream
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:broken .* http://$TEST_NGINX_OWN_A
--- perl
# The upgrade would send the tool's bytes as frames of the whole connection. HTTP/2 has no upgrades.
my $forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
# nginx itself drops early hints since 1.29.0, see t/final_responses.t.
for my $status ('HTTP/1.1 101 X', nginx_version() ge '001.029.000' ? () : 'HTTP/1.1 103 X', 'HTTP/1.1 abc X') {
    my $pid = fork // die;
    if (!$pid) {
        my $backend = accept_on('A');
        read_message($backend);
        send_bytes($backend, "$status\r\n\r\n" . ($status =~ /abc/ ? 'forged' : $forged));
        sysread $backend, my $end, 1;
        POSIX::_exit(0);
    }
    my ($broken, $hello) = h2_ask(h2_request('/broken/', more => [[connection => 'upgrade'], [upgrade => 'websocket']]), h2_request('/hello/'));
    waitpid $pid, 0;
    is(h2_words($broken, $hello), '502 -, 200 a', $status);
    unlike($broken->{body} // '', qr/forged/, "$status: nothing of the tool");
}
