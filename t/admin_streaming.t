# Long answers are sent while they are made: slow clients, filters, subrequests and reloads.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use IO::Select ();
use IO::Socket::UNIX ();
use Time::HiRes ();

our $tools = 20_000;

# A request that nginx sends to itself, once for each x. Each of these takes at least one iteration of nginx's loop.
my $hops = <<'CONF';
location ~ ^/hop/x(x*)$ { proxy_pass http://unix:$TEST_NGINX_SERVER_ROOT/slow.sock:/hop/$1; }
location = /hop/ { return 204; }
CONF

add_block_preprocessor(sub {
    my ($block) = @_;
    my $server = $block->server // '';
    $block->set_value(server => "listen unix:\$TEST_NGINX_SERVER_ROOT/slow.sock;\nlocation /admin/ { urlproxy_admin tools; }\n$hops\n$server");
    $block->set_value(table  => "zone 32m;\n" . ($block->table // ''));
    # Loaded by Redis itself, which is faster.
    my $script = 'for i = 1, ARGV[1] do redis.call("HSET", "prefix:tool-number-" .. i, "^/" .. i, ARGV[2]) end';
    my ($count) = ($block->count // $tools) =~ /(\d+)/;
    $block->set_value(redis => [['EVAL', $script, 0, $count, "http://$ENV{TEST_NGINX_TOOL_A}"]]);
});

# AddressSanitizer keeps freed memory out of use, so that a late access is found. Memory that is measured is freed at once.
add_block_preprocessor(sub {
    my ($block) = @_;
    $ENV{ASAN_OPTIONS} = defined $block->measured ? 'quarantine_size_mb=0:thread_local_quarantine_size_kb=0' : '';
});

own_sections('count', 'measured');

# A client through a Unix socket: the kernel holds 200 KiB for it, not megabytes as for TCP.
sub slow_client {
    my $path = UrlproxyTest::server_root() . '/slow.sock';
    return IO::Socket::UNIX->new(Peer => $path) // die "connect to $path: $!\n";
}

sub slow_ask {
    my ($path, $version) = @_;
    my $socket = slow_client();
    send_bytes($socket, "GET $path HTTP/" . ($version // '1.1') . "\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    return $socket;
}

# Checks a long answer, which JSON::PP would take seconds to decode: it has each tool once, in any order, and nothing else.
sub is_complete {
    my ($body, $name, $count) = @_;
    my ($want, @names);
    if (my ($head) = $body =~ /\A(\{"table":"tools","generation":\d+,"items":\[)/) {
        @names = $body =~ /"name":"(tool-number-\d+)"/g;
        my $backend = "http://$ENV{TEST_NGINX_TOOL_A}";
        my $item    = sub {
            my ($number) = $_[0] =~ /(\d+)/;
            qq({"kind":"tool","name":"$_[0]","routes":[{"pattern":"^/$number","backends":["$backend"]}]});
        };
        $want = $head . join(',', map { $item->($_) } @names) . '],"next":null}';
    } else {
        @names = $body =~ /"(tool-number-\d+)":/g;
        $want  = '{' . join(',', map { qq("$_":{"status":"active"}) } @names) . '}';
    }
    my %seen = map { $_ => 1 } @names;
    $count //= $tools;
    is(@names . ' ' . keys %seen, "$count $count", "$name: each tool once");
    ok($body eq $want, "$name: nothing else");
}

# The number of long answers that end before a request of some hops, all begun at once, in nginx's own order: how often this
# process gets its turn does not matter.
sub long_answers_before_hops {
    my ($count, @paths) = @_;
    my $log = UrlproxyTest::server_root() . '/logs/access.log';
    my $old = -s $log;
    my ($worker) = worker_pids();
    kill 'STOP', $worker or die "stop $worker: $!\n";
    my $clients = IO::Select->new(map { start_ask("GET $_") } @paths);
    my $hop     = start_ask('GET /hop/' . 'x' x $count);
    kill 'CONT', $worker or die "continue $worker: $!\n";
    while ($clients->count) {
        my @ready = $clients->can_read($timeout) or die "no data for $timeout s\n";
        for my $client (@ready) { sysread($client, my $bytes, 1 << 20) or $clients->remove($client) }
    }
    is(answer($hop)->{status}, 204, "$count hops");
    my @ended;
    eventually {
        open my $file, '<', $log or die "$log: $!\n";
        seek $file, $old, 0;
        @ended = map { m{"GET (\S+)} } <$file>;
        @ended == $count + 1 + @paths;
    } or die "@{[scalar @ended]} requests in the log\n";
    my ($at) = grep { $ended[$_] eq '/hop/' . 'x' x $count } 0 .. $#ended;
    return scalar grep { !m{^/hop/} } @ended[0 .. $at];
}

# Anonymous memory of the only worker in KiB.
sub worker_memory {
    my ($worker) = worker_pids();
    open my $file, '<', "/proc/$worker/status" or die "status: $!\n";
    my ($kib) = join('', <$file>) =~ /^RssAnon:\s+(\d+) kB/m or die "no RssAnon\n";
    return $kib;
}

run_tests;

__DATA__

=== a slow client delays nothing and gets everything
--- perl
my $slow = slow_ask('/admin/api/routes');
my $text = '';
for my $kibibyte (1 .. 5) {
    UrlproxyTest::read_some($slow, \$text, 1024);
    is(ask("GET $_")->{status}, 200, "$_ beside it") for qw(/admin/live /list?x);
    Time::HiRes::sleep(0.2);
}
$text .= do { local $/; <$slow> };
$text =~ s/^.*?\r\n\r\n//s;
my $body = '';
while ($text =~ s/^([0-9a-f]+)\r\n//) { $body .= substr $text, 0, hex $1; substr($text, 0, 2 + hex $1) = '' }
is_complete($body, 'the slow client');



=== other requests are served while a long answer is made
--- count: 100000
--- perl
for my $path (qw(/list /admin/api/routes)) {
    is(long_answers_before_hops(20, $path), 0, "20 iterations or more before the end of $path");
}



=== many long answers delay other requests no more than one
--- perl
# 60 answers of 20 parts. If each of them made a part in each iteration, all would end after some 20 iterations.
is(long_answers_before_hops(50, ('/list') x 60), 0, '50 iterations or more before the first end of 60 answers');



=== memory does not grow by the body
--- measured
--- perl
is_complete(ask("GET $_")->{body}, $_) for qw(/admin/api/routes /list);
my $before = worker_memory();
my @slow   = map { slow_ask('/admin/api/routes') } 1 .. 20;
my $text   = '';
UrlproxyTest::read_some($_, \$text, 1024) for @slow;
ok(eventually { ask('GET /admin/live')->{status} == 200 });
my $grown = worker_memory() - $before;
cmp_ok($grown, '<', 20 * 150, 'KiB for 20 answers of ' . int(length(ask('GET /admin/api/routes')->{body}) / 1024) . ' KiB each');
UrlproxyTest::diag("memory: $grown KiB for 20 streams");



=== a client that closes in the middle leaves nothing behind
--- perl
for my $path (qw(/admin/api/routes /list)) {
    for (1 .. 20) {
        my $client = slow_ask($path);
        my $text   = '';
        UrlproxyTest::read_some($client, \$text, 100);
        close $client;
    }
}
is_complete(ask('GET /list')->{body}, 'afterwards');



=== a client that stops reading is disconnected after send_timeout
--- server
send_timeout 500ms;
--- perl
my $client = slow_ask('/admin/api/routes');
ok(eventually { error_log() =~ /client timed out.* request: "GET \/admin\/api\/routes / }, 'timed out');
my $text = do { local $/; <$client> };
ok($text !~ /\r\n0\r\n\r\n$/, 'not complete');



=== HTTP/1.0 ends with the connection
--- perl
for my $path (qw(/admin/api/routes /list)) {
    my $client = to_nginx();
    send_bytes($client, "GET $path HTTP/1.0\r\n\r\n");
    my ($head, $body) = split /\r\n\r\n/, do { local $/; <$client> }, 2;
    unlike($head, qr/transfer-encoding|content-length/i, $path);
    is_complete($body, $path);
}



=== a connection is reused after a long answer
--- perl
my $client = to_nginx();
send_bytes($client, "$_ HTTP/1.1\r\nHost: h\r\n\r\n") for 'GET /admin/api/routes', 'HEAD /list', 'GET /list', 'GET /admin/live';
is_complete(answer($client)->{body}, 'routes');
is(answer($client, 1)->{status}, 200, 'HEAD');
is_complete(answer($client)->{body}, 'list');
is(answer($client)->{body}, "live\n");



=== gzip
--- http
gzip on;
gzip_types application/json;
--- perl
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
for my $path (qw(/admin/api/routes /list)) {
    my $answer = ask("GET $path", headers => ['Accept-Encoding: gzip']);
    is($answer->{headers}{'content-encoding'}, 'gzip', $path);
    gunzip(\$answer->{body} => \my $body) or die $GunzipError;
    is_complete($body, $path);
}
my $slow = slow_ask('/list');
is(ask('GET /up')->{status}, 204);



=== limit_rate
--- count: 20000
--- server
location /limited/ { limit_rate 400k; urlproxy_admin tools; }
--- perl
is_complete(ask('GET /limited/api/routes')->{body}, 'limited', 20000);



=== postpone_output does not stop the stream
--- server
postpone_output 1m;
--- perl
is_complete(ask('GET /list')->{body}, 'list');



=== subrequests of SSI
--- http
ssi on;
--- user_files
>>> page
one <!--# include virtual="/list" --> two <!--# include virtual="/admin/api/routes" --> three <!--# include virtual="/list" --> four <!--# include virtual="/admin/live" -->
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
--- perl
for my $client (to_nginx(), slow_client()) {
    send_bytes($client, "GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    my $body = answer($client)->{body};
    $body =~ /^one (\{.*?\}\}) two (\{.*?\}) three (\{.*\}\}) four live\n$/s or die substr $body, 0, 200;
    my @parts = ($1, $2, $3);
    is_complete($_, 'part') for @parts;
}



=== subrequests in memory, of auth_request and of mirror
--- count: 20
--- http
ssi on;
--- user_files
>>> page
<!--# include virtual="/list" set="list" wait="yes" --><!--# echo var="list" encoding="none" -->
--- server
location = /page { default_type text/html; alias $TEST_NGINX_SERVER_ROOT/html/page; }
location = /ready { internal; rewrite ^ /admin/ready break; urlproxy_list tools; }
location = /guarded { auth_request /ready; mirror /list; mirror /admin/api/routes; alias $TEST_NGINX_SERVER_ROOT/html/page; }
--- perl
my $body = ask('GET /page')->{body};
chomp $body;
is_complete($body, 'in memory', 20);
is(ask('GET /guarded')->{status}, 200);



=== a reload while a client reads
--- perl
my @slow = map { slow_ask($_) } qw(/admin/api/routes /list);
my @text = ('', '');
UrlproxyTest::read_some($slow[$_], \$text[$_], 1000) for 0, 1;
my ($old) = worker_pids();
kill 'HUP', nginx_pid();
ok(eventually { grep { $_ != $old } worker_pids() }, 'a new worker');
is(ask('GET /admin/ready')->{status}, 200);
for my $at (0, 1) {
    my $client = $slow[$at];
    $text[$at] .= do { local $/; <$client> };
    ok($text[$at] =~ /\}\r\n0\r\n\r\n$/, 'complete');
}
ok(eventually { "@{[worker_pids()]}" !~ /\b$old\b/ }, 'the old worker exits');
