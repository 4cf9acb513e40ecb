# A request that the limit of its tool refuses is logged with the tool and without a backend, unlike a 503 of the tool itself.
use lib 't/lib';
use Production;

site('logformat', 'urlproxy');
my $tool = serve('10.0.0.3', 8000);
route(hello => '10.0.0.3:8000');
my $text = slurp(conf_path('urlproxy'));
$text =~ s/limit_conn  +tools_open 200;/limit_conn tools_open 1;/g or die 'no limit';
$text =~ s/^    #access_log/    access_log/mg or die 'no log';
write_file(conf_path('urlproxy'), $text);
reload();

# The log is written once a second.
sub logged {
    my ($path) = @_;
    my $line;
    eventually(sub { ($line) = (-e '/var/log/nginx/urlproxy.json' ? slurp('/var/log/nginx/urlproxy.json') : '') =~ m{^(.*"uri":"\Q$path\E".*)$}m }) or return {};
    return JSON::PP::decode_json($line);
}
my ($in, $out, $pid) = client_on('tools.example.org');
syswrite $out, "GET /hello/held HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: x\r\nConnection: close\r\n\r\n";
my $backend = $tool->accept;
sysread $backend, my $request, 4096;
is(fetch('https://tools.example.org/hello/refused')->{status}, 503, 'refused');
my $line = logged('/hello/refused');
is(join(' ', map { "$_=$line->{$_}" } qw(status result tool tries upstream_status)), 'status=503 result=route tool=hello tries= upstream_status=', 'logged');
print $backend "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
$line = logged('/hello/held');
is(join(' ', map { "$_=$line->{$_}" } qw(status result tool tries upstream_status)), 'status=503 result=route tool=hello tries=10.0.0.3:8000 upstream_status=503',
    "the tool's own");
hang_up($pid);
done_testing();
