# HTTP/3 by uncommenting the lines of the shipped files, if nginx has it: it listens on UDP, and other protocols say so.
use lib 't/lib';
use Production;

has_http3() or plan(skip_all => 'this nginx has no HTTP/3');
site('urlproxy', 'domainproxy');
route(hello => tool('10.0.0.2'));
for my $main ('urlproxy', 'domainproxy') {
    my $text = slurp(conf_path($main));
    $text =~ s/^    #(include \S+listen-http3)/    $1/mg or die "no HTTP/3 in $main";
    $text =~ s/listen-http3-first/listen-http3/ if $main eq 'domainproxy';
    write_file(conf_path($main), $text);
}
is(warnings(), '', 'no warning');
reload();
ok(eventually(sub { `ss -Hlun` =~ /\*:443|\[::\]:443/ }), 'UDP port 443');
for my $url ('https://tools.example.org/hello/', 'https://hello.toolforge.org/', 'https://none.example.net/') {
    is(fetch($url)->{headers}{'alt-svc'}, 'h3=":443"; ma=86400', "$url says so") unless $url =~ /none/;
}
my $curl = `curl -V`;
SKIP: {
    skip 'this curl has no HTTP/3', 1 unless $curl =~ /\bHTTP3\b/;
    is(fetch('https://hello.toolforge.org/', http => '--http3-only')->{status}, 200, 'a request over HTTP/3');
}
done_testing();
