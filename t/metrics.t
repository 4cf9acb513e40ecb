# /metrics is valid Prometheus text, whatever tenants call themselves.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use IPC::Open2;
use JSON::PP;

# What promtool says about a text; empty if nothing is wrong.
sub promtool {
    my ($text) = @_;
    my $pid = open2(my $said, my $input, 'promtool check metrics 2>&1') or die "promtool: $!\n";
    print $input $text;
    close $input;
    my $answer = join '', <$said>;
    waitpid $pid, 0;
    return $answer . ($? ? "exit status " . ($? >> 8) : '');
}

run_tests;

__DATA__

=== hostile names
--- redis eval
my $url = "http://$ENV{TEST_NGINX_TOOL_A}";
[ map { ['HSET', "prefix:$_", '.*', $url, '(' . 'x' x 3000, $url, '<script>alert(1)</script>', 'javascript:alert(1)'] }
    'quote"', 'back\\slash', '<script>', 'a{b="c"} 1', "\xe2\x80\xae", 'n' x 255, 'n' x 254 . 'm', '#', ' ' ]
--- table
metrics_tools 1000;
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
my @paths = map { "/$_/" } 'quote%22', 'back%5Cslash', '%3Cscript%3E', 'a%7Bb=%22c%22%7D%201', '%E2%80%AE', 'n' x 255,
    'n' x 254 . 'm', '%23', '%20';
my $text;
ok(eventually {
    ask("GET $_") for @paths;
    $text = ask('GET /admin/metrics')->{body};
    (() = $text =~ /^urlproxy_tool_requests_total\{.*class="2xx"\} [1-9]/mg) >= @paths;
}, 'each tool has metrics');
is(promtool($text), '', 'promtool');
my %seen;
is(join("\n", grep { $seen{ s/ \S+$//r }++ } grep { !/^#/ } split /\n/, $text), '', 'no sample twice');
like($text, qr/tool="quote\\""/);
like($text, qr/tool="back\\\\slash"/);
unlike($text, qr/n{100}/, 'long names are cut');
isnt(promtool("x 1\nx 1\n"), '', 'promtool finds a fault');
my $rejected = decode_json(ask('GET /admin/api/rejected')->{body});
is(scalar(@{ $rejected->{items} }), 2 * @paths, 'all are listed');
is(ask("GET $_")->{status}, 200, $_) for map { "/admin/api/routes$_" =~ s{/$}{}r } @paths;



=== before the first load
--- table
redis redis://$TEST_NGINX_DEAD_A/0;
wait_for_routes 100ms;
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
my $text = ask('GET /admin/metrics')->{body};
like($text, qr/^urlproxy_table_loaded\{table="tools"\} 0$/m);
unlike($text, qr/^urlproxy_table_age_seconds/m, 'no age');
is(promtool($text), '', 'promtool');
my $status = decode_json(ask('GET /admin/api/status')->{body});
is($status->{summary}{state}, 'loading');
like($status->{source}{error}, qr/refused/);
is(ask("GET /admin/$_")->{status}, 503, $_) for 'ready', 'api/tools', 'api/routes', 'api/routes/hello';
