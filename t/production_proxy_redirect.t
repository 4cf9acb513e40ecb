# A redirect of a tool to http:// of its own host leads to https://; all others stay as the tool sent them.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2', sub {
    my ($to) = $_[0]{uri} =~ /\?(.*)/;
    return "HTTP/1.1 302 Found\r\nLocation: $to\r\nRefresh: 1; url=$to\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
});
route(hello => $tool);
route('one.example.net' => $tool);
for (['https://tools.example.org/hello/', 'tools.example.org'], ['https://hello.toolforge.org/', 'hello.toolforge.org'], ['https://one.example.net/', 'one.example.net']) {
    my ($url, $host) = @$_;
    for my $row (
        ["http://$host/x?y",                       "https://$host/x?y",    'its own host'],
        ["https://$host/x",                        "https://$host/x",      'https'],
        ['/x',                                     '/x',                   'a path'],
        ['http://other.toolforge.org/x',           'http://other.toolforge.org/x', 'another tool'],
        ["http://elsewhere.example/http://$host/", "http://elsewhere.example/http://$host/", 'elsewhere'],
        ["http://$host.elsewhere.example/",        "http://$host.elsewhere.example/", 'a longer host'],
        ["http://$host\@elsewhere.example/",       "http://$host\@elsewhere.example/", 'a user'],
        ["http://$host:8080/",                     "http://$host:8080/",   'another port'],
        ['http://10.0.0.2/',                       'http://10.0.0.2/',     'an address'],
        ['http://tools/',                          'http://tools/',        'the name of the upstream'],
    ) {
        my ($sent, $got, $what) = @$row;
        my $answer = fetch("$url?$sent");
        is($answer->{headers}{location}, $got, "$host: $what");
        is($answer->{headers}{refresh}, "1; url=$got", 'Refresh') if $what eq 'its own host' || $what eq 'another tool';
    }
}
done_testing();
