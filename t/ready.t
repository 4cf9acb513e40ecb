# /ready: 503 while the table is too old, or while the drain file exists; requests are served on.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use JSON::PP;
use POSIX ();

$ENV{TEST_NGINX_DRAIN} = server_root() . '/html/out-of-service';

add_block_preprocessor(sub {
    my ($block) = @_;
    unlink $ENV{TEST_NGINX_DRAIN};
    $block->set_value(redis  => 'HSET prefix:hello .* http://$TEST_NGINX_TOOL_A') unless defined $block->redis;
    $block->set_value(server => "location /admin/ { urlproxy_admin tools; }\n" . ($block->server // ''));
});

# Status and body of /ready, which the other pages repeat.
sub ready {
    my $answer = ask('GET /admin/ready');
    my $status = decode_json(ask('GET /admin/api/status')->{body});
    my ($metric) = ask('GET /admin/metrics')->{body} =~ /^urlproxy_ready\{table="tools"\} (\d)$/m;
    my $is_ready = $answer->{status} == 200 ? 1 : 0;
    my $body = $status->{ready} ? "ready\n" : "not ready: $status->{not_ready_because}\n";
    return "pages disagree: $answer->{body}$body$metric" if $body ne $answer->{body} || $metric != $is_ready;
    return "$answer->{status} $answer->{body}";
}

sub draining {
    my ($metric) = ask('GET /admin/metrics')->{body} =~ /^urlproxy_draining\{table="tools"\} (\d)$/m;
    return $metric // 'unknown';
}

# Replaces a part of the configuration, and waits for the workers that have it.
sub reload_with {
    my ($old, $new) = @_;
    my $conf = server_root() . '/conf/nginx.conf';
    my $text = do { local (@ARGV, $/) = $conf; <> };
    $text =~ s/\Q$old\E/$new/ or die "$old is not there\n";
    open my $file, '>', $conf or die "$conf: $!\n";
    print $file $text;
    close $file;
    my %old = map { $_ => 1 } worker_pids();
    kill 'HUP', nginx_pid();
    return eventually { my @now = worker_pids(); @now && !grep { $old{$_} } @now };
}

run_tests;

__DATA__

=== whatever has the name of the drain file drains
--- table
drain_file $TEST_NGINX_DRAIN;
--- perl
my $path = $ENV{TEST_NGINX_DRAIN};
my %make = (
    file              => sub { open my $file, '>', $path or die "$path: $!\n" },
    directory         => sub { mkdir $path or die },
    FIFO              => sub { POSIX::mkfifo($path, 0600) or die },
    'link to nothing' => sub { symlink '/does/not/exist', $path or die },
    'link to itself'  => sub { symlink $path, $path or die },
);
is(ready(), "200 ready\n", 'in service');
for my $what (sort keys %make) {
    $make{$what}->();
    is(ready(), "503 not ready: draining, because $path exists\n", $what);
    is(draining(), 1, "$what: metric");
    is(ask('GET /admin/ready')->{headers}{'retry-after'}, 1, "$what: Retry-After");
    is(ask("GET $_")->{status}, 200, "$what: $_ is served on") for qw(/hello/ /list /admin/live /admin/api/routes);
    $what eq 'directory' ? rmdir $path : unlink $path or die;
    is(ready(), "200 ready\n", "without the $what");
}
is(draining(), 0);
is(ask('HEAD /admin/ready')->{status}, 200);



=== a drain file that nginx cannot look for is not taken for a missing one
--- table
drain_file $TEST_NGINX_DRAIN/file;
--- perl
is(ready(), "200 ready\n", 'a missing directory');
my $path = $ENV{TEST_NGINX_DRAIN};
open my $file, '>', $path or die;
is(ready(), "503 not ready: Not a directory (os error 20) while looking for drain_file $path/file\n");
is(draining(), 'unknown');
unlink $path;
symlink $path, $path or die;
is(ready(), "503 not ready: Too many levels of symbolic links (os error 40) while looking for drain_file $path/file\n");
unlink $path;
is(ready(), "200 ready\n");



=== a reload changes both limits
--- perl
my $path = $ENV{TEST_NGINX_DRAIN};
open my $file, '>', $path or die;
is(ready(), "200 ready\n", 'off by default');
ok(reload_with('urlproxy_table tools {', "urlproxy_table tools { drain_file $path;"), 'a reload');
is(ready(), "503 not ready: draining, because $path exists\n");
ok(reload_with("drain_file $path;", "drain_file $path-2; ready_max_age 1h;"), 'a reload');
is(ready(), "200 ready\n", 'another file');
ok(reload_with('redis redis://127.0.0.1', 'redis redis://127.0.0.9'), 'a reload without Redis');
ok(reload_with('ready_max_age 1h', 'ready_max_age 1s'), 'a reload');
ok(eventually { ready() =~ /^503 not ready: the routes were last verified \d+ s ago, more than ready_max_age 1 s\n\z/ }, 'too old');
is(ask('GET /hello/')->{status}, 200, 'served on');
ok(reload_with('ready_max_age 1s;', ''), 'a reload');
is(ready(), "200 ready\n", 'no limit');
--- no_error_log
[emerg]



=== a table that was never loaded names all reasons
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 0;
ready_max_age 1s;
drain_file $TEST_NGINX_DRAIN;
--- perl
is(ready(), "503 not ready: the table was never loaded\n");
open my $file, '>', $ENV{TEST_NGINX_DRAIN} or die;
is(ready(), "503 not ready: the table was never loaded; draining, because $ENV{TEST_NGINX_DRAIN} exists\n");



=== a request through the proxy neither reaches nor changes /ready
--- table
drain_file $TEST_NGINX_DRAIN;
--- redis eval
[['HSET', 'prefix:hello', '.*', "http://$ENV{TEST_NGINX_TOOL_A}"], ['HSET', 'prefix:admin', '.*', "http://$ENV{TEST_NGINX_TOOL_A}"],
 ['HSET', 'prefix:ready', '.*', "http://$ENV{TEST_NGINX_TOOL_A}"]]
--- http
server { listen $TEST_NGINX_SERVER_PORT; server_name public; location / { urlproxy tools path; proxy_pass http://tools; } }
--- perl
my @public = (headers => ['Host: public']);
is(ask("GET $_", @public)->{headers}{'x-tool'}, 'a', "$_ is the tool's") for qw(/admin/ready /ready /hello/../admin/ready);
for my $request ('POST /admin/ready', 'PUT /admin/ready', 'DELETE /admin/ready') {
    is(ask($request, body => 'x')->{status}, 405, $request);
}
is(ask('GET /admin/ready?drain=1')->{status}, 400);
is(ready(), "200 ready\n");



=== many requests leave no descriptor open
--- table
drain_file $TEST_NGINX_DRAIN;
--- perl
my ($worker) = worker_pids();
my $open = sub { scalar(() = glob "/proc/$worker/fd/*") };
my $many = sub {
    my ($count) = @_;
    my $client = to_nginx();
    my $left = $count;
    my %status;
    while ($left > 0) {
        my $batch = $left > 50 ? 50 : $left;
        send_bytes($client, "GET /admin/ready HTTP/1.1\r\nHost: h\r\n\r\n" x $batch);
        $status{ answer($client)->{status} }++ for 1 .. $batch;
        $left -= $batch;
    }
    return join ' ', map { "$_: $status{$_}" } sort keys %status;
};
is($many->(500), '200: 500');
my $before = $open->();
is($many->(500), '200: 500');
open my $file, '>', $ENV{TEST_NGINX_DRAIN} or die;
is($many->(500), '503: 500');
# The worker may not have closed the last client's connection yet.
ok(eventually { $open->() <= $before }, 'descriptors');
