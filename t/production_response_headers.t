# Headers by which a tool would reach beyond its own pages do not reach clients; its other headers do.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my %hidden = (
    'Strict-Transport-Security' => 'max-age=0', 'Public-Key-Pins' => 'x', 'Public-Key-Pins-Report-Only' => 'x', 'Expect-CT' => 'max-age=1',
    'Service-Worker-Allowed' => '/', 'Clear-Site-Data' => '"*"', 'Alt-Svc' => 'h2="evil.example:443"', 'NEL' => '{}', 'Report-To' => '{}',
    'Reporting-Endpoints' => 'x="https://evil.example"', 'Content-Security-Policy-Report-Only' => "default-src 'none'", 'Permissions-Policy' => 'camera=*',
    'Feature-Policy' => 'camera *', 'Accept-CH' => 'Device-Memory', 'Critical-CH' => 'Device-Memory', 'Origin-Agent-Cluster' => '?1',
    'Use-As-Dictionary' => 'match="/*"', 'Set-Login' => 'logged-out', 'Upgrade' => 'h2,h2c', 'X-Accel-Redirect' => '/other/', 'X-Accel-Limit-Rate' => '1', 'X-Accel-Expires' => '60',
    'X-Accel-Charset' => 'koi8-r', 'X-Accel-Buffering' => 'no',
);
my %kept = ('Content-Security-Policy' => "default-src 'self'", 'Set-Cookie' => 'a=b; Path=/hello/', 'Cache-Control' => 'private', 'X-Own' => 'yes',
    'Access-Control-Allow-Origin' => '*', 'Referrer-Policy' => 'no-referrer', 'X-Frame-Options' => 'DENY');
my $tool = tool('10.0.0.2', sub {
    my ($status, $case) = $_[0]{uri} =~ m{(\d+)/(\w+)};
    my %all = (%hidden, %kept);
    my @lines = map { ($case eq 'lower' ? lc : $case eq 'upper' ? uc : $_) . ": $all{$_}" } sort keys %all;
    return join "\r\n", "HTTP/1.1 $status Any", @lines, 'Strict-Transport-Security: max-age=1', 'Content-Type: text/html', 'Content-Length: 4', 'Connection: close', '', 'mine';
});
route(hello => $tool);
route(other => tool('10.0.0.3', sub { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nother" }));
route('one.example.net' => $tool);
for my $url ('https://tools.example.org/hello/', 'https://hello.toolforge.org/', 'https://one.example.net/') {
    for my $path ('200/as_is', '200/lower', '200/upper', '404/as_is', '500/lower') {
        for my $http ('--http1.1', '--http2') {
            my $answer = fetch("$url$path", http => $http);
            my ($status) = $path =~ /^(\d+)/;
            is("$answer->{status} $answer->{body}", "$status mine", "$url$path $http: the tool's own answer");
            delete $answer->{headers}{'strict-transport-security'} if $answer->{headers}{'strict-transport-security'} eq 'max-age=31536000';
            is(join(' ', grep { exists $answer->{headers}{ lc $_ } } sort keys %hidden), '', 'none of these');
            is_deeply({ map { $_ => $answer->{headers}{ lc $_ } } keys %kept }, \%kept, 'all of those');
            is($answer->{headers}{'content-type'}, 'text/html', 'no charset');
        }
    }
}
# The default file of a tool's own 404 does not bring them either.
my $answer = fetch('https://hello.toolforge.org/robots.txt?404/as_is');
is($answer->{status}, 200, 'default');
is(join(' ', grep { $_ ne 'Strict-Transport-Security' && exists $answer->{headers}{ lc $_ } } sort keys %hidden), '', 'none with the default');
done_testing();
