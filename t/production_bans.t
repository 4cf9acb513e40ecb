# Banned addresses, agents and referers get 403 from the next reload on, in every mode and with every method; others do not.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2');
route(hello => $tool);
route('one.example.net' => $tool);
my @urls = ('https://tools.example.org/hello/', 'https://hello.toolforge.org/', 'https://one.example.net/', 'https://hello.toolforge.org/robots.txt');

# Each banned request beside one that differs a little and is not.
my @cases = (
    ['address',          [from => '192.0.2.7'],                               [from => '192.0.2.8']],
    ['network',          [from => '198.51.100.1'],                            [from => '198.51.100.9']],
    ['IPv6',             [from => '2001:db8:bad::1'],                         [from => '2001:db8:good::1' =~ s/good/900d/r]],
    ['whole agent',      [headers => ['User-Agent: Wget']],                   [headers => ['User-Agent: Wget/1.2']]],
    ['agent',            [headers => ['User-Agent: a BADCRAWLER/1.0 (x)']],   [headers => ['User-Agent: good crawler']]],
    ['referer',          [headers => ['Referer: https://www.hotlinks.example/page']], [headers => ['Referer: https://nohotlinks.example/']]],
    ['referer of an agent', [headers => ['Referer: http://hotlinks.example', 'User-Agent: x']], [headers => ['User-Agent: x']]],
);
for my $case (@cases) {
    my ($what, $banned) = @$case;
    is(fetch($_, @$banned)->{status}, 200, "$what: not yet, $_") for $urls[0];
}
add_to('lists/banned-addresses.conf', "192.0.2.7 address;\n198.51.100.0/24 address;\n198.51.100.9 \"\";\n2001:db8:bad::/48 address;");
add_to('lists/banned-agents.conf', "\"Wget\" agent;\n\"~*badcrawler\" agent;");
add_to('lists/banned-referers.conf', '"~*^https?://([^/]+\.)?hotlinks\.example(/|$)" referer;');
reload();
for my $case (@cases) {
    my ($what, $banned, $other) = @$case;
    for my $url (@urls) {
        for my $method (qw(GET HEAD POST PUT OPTIONS)) {
            my @with = (method => $method, $method =~ /^P/ ? (body => 'x' x 200_000) : ());
            is(fetch($url, @with, @$banned)->{status}, 403, "$what: $method $url") if $method eq 'GET' || $url eq $urls[0];
        }
        is(fetch($url, @$other)->{status}, 200, "$what: another client, $url") unless $url =~ /robots/;
    }
}
my $answer = fetch($urls[0], from => '192.0.2.7');
like($answer->{body}, qr/Access denied/, 'a page says so');
is(fetch_h2($urls[0], from => '192.0.2.7')->{status}, 403, 'HTTP/2');
is(fetch('https://tools.example.org/.well-known/healthz', from => '192.0.2.7')->{status}, 200, 'healthz is for everybody');
is(fetch('https://tools.example.org/hello/', from => '192.0.2.7', headers => ['X-Forwarded-For: 192.0.2.8', 'X-Real-IP: 192.0.2.8'])->{status}, 403,
    'a header does not change the address');
done_testing();
