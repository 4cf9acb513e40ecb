# Port 8081 has the list of tools and the admin pages, for this host only; other hosts by an allow-list.
use lib 't/lib';
use Production;

site('urlproxy', 'proxymanager', 'domainproxy');
route(hello => tool('10.0.0.2'));
my $get = sub {
    my ($url, @options) = @_;
    my $command = join ' ', map { quotemeta } 'curl', '-s', '--max-time', 20, '-w', ' %{http_code}', @options, $url;
    return `$command`;
};
is($get->('http://127.0.0.1:8081/list'), '{"hello":{"status":"active"}} 200', 'the list');
like($get->("http://127.0.0.1:8081$_"), qr/ 200\z/, $_) for qw(/ /metrics /ready /live /api/status /api/routes/hello);
is($get->("http://$_/list"), ' 000', "not on $_") for '10.0.0.1:8081', '[::1]:8081', '10.0.0.1:8082';
# The public servers have none of it.
unlike($get->("https://tools.example.org$_", '--cacert', '/run/production/ca.pem', '--connect-to', '::127.0.0.1:'), qr/ 200\z/, "not on port 443: $_")
    for qw(/list /api/status /metrics /ready /live);
ok($get->('http://127.0.0.1:8082/api/status') =~ /domains.* 200\z/s, 'the domains have their own port');

# As its comment describes.
my $text = slurp(conf_path('proxymanager'));
$text =~ s/^    #(listen|allow|deny)/    $1/mg;
write_file(conf_path('proxymanager'), $text =~ s/10\.0\.0\.10:8081/10.0.0.1:8081/r);
reload();
like($get->('http://10.0.0.1:8081/list', '--interface', '10.0.0.7'), qr/hello.* 200\z/, 'from an allowed network');
like($get->('http://10.0.0.1:8081/list', '--interface', '192.0.2.7'), qr/ 403\z/, 'not from elsewhere');
like($get->('http://127.0.0.1:8081/list'), qr/ 200\z/, 'still from this host');
done_testing();
