# Tools do not learn the addresses of their visitors, except for hosts of the list, and never from a header of the client.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
my $tool = tool('10.0.0.2');
route($_ => $tool) for qw(hello other one.example.net two.example.net);
my $sees = sub {
    my ($url, $from) = @_;
    my $answer = fetch($url, from => $from // '192.0.2.7', headers => ['X-Forwarded-For: 198.51.100.1', 'User-Agent: x']);
    return join '|', $answer->{body} =~ /^X-Forwarded-For: (.*)\r$/mig;
};
my @urls = map { "https://$_/" } 'tools.example.org/hello', 'hello.toolforge.org', 'other.toolforge.org', 'one.example.net', 'two.example.net';
is($sees->($_), '', "$_: not by default") for @urls;
is(fetch($_, from => '192.0.2.7')->{body} =~ /192\.0\.2\.7/ ? 'named' : '', '', "$_: in no header") for @urls;
add_to('lists/forwarded-for.conf', "hello.toolforge.org \$remote_addr;\n*.example.net \$remote_addr;");
reload();
is($sees->($urls[1]), '192.0.2.7', 'a host of the list');
is($sees->('https://HELLO.toolforge.org./'), '192.0.2.7', 'in another spelling');
is($sees->($urls[3]), '192.0.2.7', 'a wildcard of the list');
is($sees->($urls[1], '2001:db8::7'), '2001:db8::7', 'IPv6');
is($sees->($urls[0]), '', 'not in path mode');
is($sees->($urls[2]), '', 'not another tool');
done_testing();
