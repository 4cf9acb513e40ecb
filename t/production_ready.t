# /ready of the shipped files, for keepalived: 503 while the proxy drains, on both admin ports, and with `ready_max_age` while Redis is
# away. Requests are served on.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
route(hello => tool('10.0.0.2'));
my $ready = sub {
    my ($port) = @_;
    return `curl -s --max-time 20 -w '%{http_code}' http://127.0.0.1:$port/ready` =~ s/\n/ /gr;
};
my $both = sub {
    my ($want, $when) = @_;
    is($ready->($_), $want, "port $_, $when") for 8081, 8082;
    is(fetch('https://hello.toolforge.org/')->{headers}{'x-tool'}, '10.0.0.2', "served, $when");
};
my $file = '/run/urlproxy/out-of-service';
$both->('ready 200', 'without the directory');
mkdir '/run/urlproxy', 0755 or die $!;
$both->('ready 200', 'in service');
write_file($file, '');
$both->("not ready: draining, because $file exists 503", 'draining');
is(fetch('https://tools.example.org/.well-known/healthz')->{status}, 503, 'load balancers see it, too');
SKIP: {
    skip('workers are root in this namespace', 6) if $Production::is_mapped;
    chmod 0700, '/run/urlproxy' or die $!;
    $both->("not ready: Permission denied (os error 13) while looking for drain_file $file 503", 'with a closed directory');
    unlink $file or die $!;
    $both->("not ready: Permission denied (os error 13) while looking for drain_file $file 503", 'with a closed directory and no file');
    chmod 0755, '/run/urlproxy' or die $!;
}
unlink $file;
$both->('ready 200', 'in service again');

# Redis is away: ready without a limit, not ready with one, as the comments describe it.
for my $main ('urlproxy', 'domainproxy') {
    my $text = slurp(conf_path($main));
    $text =~ s/^    #ready_max_age   10m;/    ready_max_age 1s;/m or die "$main has no ready_max_age";
    write_file(conf_path($main), $text);
}
stop_redis();
ok(eventually(sub { `curl -s http://127.0.0.1:8081/metrics` =~ /^urlproxy_table_age_seconds\{table="tools"\} [2-9]/m }), 'the table ages');
$both->('ready 200', 'while Redis is away');
reload();
my $old = qr/^not ready: the routes were last verified \d+ s ago, more than ready_max_age 1 s 503\z/;
like($ready->($_), $old, "port $_, too old") for 8081, 8082;
is(fetch('https://hello.toolforge.org/')->{headers}{'x-tool'}, '10.0.0.2', 'served, too old');
is(fetch('https://tools.example.org/.well-known/healthz')->{status}, 200, 'load balancers keep the proxy');
Production::start_redis();
ok(eventually(sub { $ready->($_) eq 'ready 200' }), "port $_, once Redis is back") for 8081, 8082;
done_testing();
