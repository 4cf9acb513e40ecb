# /.well-known/healthz answers 200 on every server of the shipped files, also while Redis is down, and is not logged. A file takes
# the proxy out of service: 503 there, while all other requests are served.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my @urls = ((map { ("http://$_", "https://$_") } 'tools.example.org', 'hello.toolforge.org', 'project.wmcloud.org'), 'http://127.0.0.1', 'http://[::1]');
my $answers = sub {
    my ($when) = @_;
    for my $url (@urls) {
        my $answer = fetch("$url/.well-known/healthz", headers => ['User-Agent:']);
        is("$answer->{status} $answer->{headers}{'content-type'} $answer->{body}", "200 text/plain ok\n", "$url $when");
    }
};
$answers->('without a User-Agent');
route(hello => tool('10.0.0.2'));
stop_redis();
$answers->('while Redis is down');
for (['HEAD', ''], ['POST', "ok\n"]) {
    my ($method, $body) = @$_;
    my $answer = fetch('https://tools.example.org/.well-known/healthz', method => $method);
    is("$answer->{status} $answer->{body}", "200 $body", $method);
}
mkdir '/run/urlproxy' or die $!;
write_file('/run/urlproxy/out-of-service', '');
for my $url (@urls) {
    my $answer = fetch("$url/.well-known/healthz");
    is("$answer->{status} $answer->{body}", "503 out of service\n", "$url, out of service");
}
is(fetch('https://hello.toolforge.org/')->{headers}{'x-tool'}, '10.0.0.2', 'which serves on');
unlink '/run/urlproxy/out-of-service' or die $!;
$answers->('in service again');
# A request that is logged, after all others.
fetch('https://tools.example.org/logged');
eventually(sub { access_log() =~ m{/logged} }) or fail('a request is logged');
unlike(access_log(), qr/healthz/, 'these requests are not logged');
done_testing();
