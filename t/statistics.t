# Request statistics: counted by result, status and tool, in all workers together, and kept across a reload.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use JSON::PP;

workers(2);

sub get { decode_json(ask("GET $_[0]")->{body}) }

# The value of a metric; dies without it.
sub metric {
    my ($name) = @_;
    my $text = ask('GET /admin/metrics')->{body};
    $text =~ /^\Q$name\E (\S+)$/m or die "no $name in $text";
    return $1;
}

run_tests;

__DATA__

=== requests are counted by result and status class
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
HSET prefix:admin ^/admin-only http://$TEST_NGINX_TOOL_B
HSET prefix:dead .* http://$TEST_NGINX_DEAD_A
HSET redirect:moved .* moved.toolforge.org
--- location
urlproxy_default admin;
urlproxy_canonical https://toolforge.org;
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
my $before = get('/admin/api/status')->{requests};
ask("GET $_") for ('/hello/') x 3, '/admin-only/', ('/dead/') x 2, '/moved/', '/none/';
my $requests;
my $count = sub { my ($result, $class) = @_; $requests->{$result}[$class] - $before->{$result}[$class] };
my $all   = sub { my $sum = 0; $sum += $_ for map { @$_ } values %{ $_[0] }; $sum };
ok(eventually { $requests = get('/admin/api/status')->{requests}; $all->($requests) - $all->($before) >= 8 }, 'all are counted');
is($count->('miss', 4), 1, 'a miss');
is($count->('route', 1), 3, 'routes');
is($count->('route', 4), 2, 'failed backends');
is($count->('default', 1), 1, 'the default');
is($count->('redirect', 2), 1, 'a redirect');
is(metric('urlproxy_requests_total{table="tools",result="redirect",class="3xx"}'), $requests->{redirect}[2]);



=== a busy tool has metrics of its own, also after a reload
--- redis
HSET prefix:busy .* http://$TEST_NGINX_TOOL_A
HSET prefix:quiet .* http://$TEST_NGINX_TOOL_A
--- table
metrics_tools 1;
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
my $name = 'urlproxy_tool_requests_total{table="tools",tool="busy",class="2xx"}';
ok(eventually { ask('GET /busy/') for 1 .. 5; ask('GET /admin/metrics')->{body} =~ /^\Q$name\E [1-9]/m }, 'metrics');
ask('GET /quiet/');
unlike(ask('GET /admin/metrics')->{body}, qr/tool="quiet"/);
my $tool = get('/admin/api/routes/busy');
cmp_ok($tool->{rate}, '>', 0, 'a rate');
is(scalar(@{ $tool->{latency}{counts} }), @{ $tool->{latency}{le} } + 1, 'a bucket without a bound');
my $first = get('/admin/api/tools')->{items}[0];
is($first->{name}, 'busy', 'the busiest tool');
my $before = metric($name);
my %old = map { $_ => 1 } worker_pids();
kill HUP => nginx_pid();
ok(eventually { !grep { $old{$_} } worker_pids() }, 'new workers');
cmp_ok(metric($name), '>=', $before, 'kept');
my $bucket = 'urlproxy_tool_request_duration_seconds_bucket{table="tools",tool="busy",le="+Inf"}';
is(metric($bucket), metric($name), 'each request is in a bucket');



=== kept connections are counted
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- upstream
urlproxy_keepalive 64;
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
ask('GET /hello/') for 1 .. 20;
my $kept;
ok(eventually { $kept = get('/admin/api/status')->{keepalive}; $kept->{reused_total} + $kept->{opened_total} >= 20 }, 'counted');
cmp_ok($kept->{reused_total}, '>=', 16, 'reused');
ok(eventually { my $idle = get('/admin/api/status')->{keepalive}{idle}; $idle >= 1 && $idle <= 2 }, 'one per worker');
my $idle = sub { get('/admin/api/status')->{keepalive}{idle} };
ok(eventually { ask('GET /hello/'); $idle->() == 2 }, 'both workers keep one');
my $conf = server_root() . '/conf/nginx.conf';
my $text = do { local (@ARGV, $/) = $conf; <> };
$text =~ s/^(\s*worker_processes\s+)2;/${1}1;/m or die "no worker_processes in $text";
open my $file, '>', $conf or die "$conf: $!\n";
print $file $text;
close $file;
my %old = map { $_ => 1 } worker_pids();
kill HUP => nginx_pid();
ok(eventually { my @now = worker_pids(); @now == 1 && !$old{ $now[0] } }, 'one new worker');
ok(eventually { $idle->() == 0 }, 'connections of a worker that is gone are not counted');
