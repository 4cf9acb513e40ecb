# A tool gets a larger limit of open requests by the lines in docs/operations.md; other tools keep the shipped one, lowered here.
use lib 't/lib';
use Production;

site('urlproxy');
my %listener = (busy => serve('10.0.0.3', 8000), calm => serve('10.0.0.4', 8000));
route($_->[0] => "$_->[1]:8000") for ['busy', '10.0.0.3'], ['calm', '10.0.0.4'];

my ($maps, $limit) = slurp('docs/operations.md') =~ /^```nginx\n(map [^`]*?)^ *(limit_conn [^`]*?)^```$/m or die "docs/operations.md has no such lines\n";
my $text = slurp(conf_path('urlproxy'));
$text =~ s/^( *)(route|\\default)( +)\$urlproxy_tool;/$1$2$3\$tools_usual;/mg == 2 or die 'no map of counted tools';
$text =~ s/(limit_conn +tools_open) 200;/$1 1;\n$limit/g == 2 or die 'no limit';
$text =~ s/(limit_conn +tools_large) 1000;/$1 3;/g == 2 or die 'no larger limit';
$text =~ s/^(?=map )/$maps/m or die 'no map';
write_file(conf_path('urlproxy'), $text);
is(warnings(), '', 'no warning');
reload();

for (['busy', 3], ['calm', 1]) {
    my ($tool, $most) = @$_;
    my @held;
    for my $count (1 .. $most) {
        my ($in, $out, $pid) = client_on("$tool.toolforge.org");
        syswrite $out, "GET / HTTP/1.1\r\nHost: $tool.toolforge.org\r\nUser-Agent: x\r\n\r\n";
        IO::Select->new($listener{$tool})->can_read(60) or die "$tool: open request $count does not reach it\n";
        push @held, [$in, $out, $pid, scalar $listener{$tool}->accept];
    }
    is(scalar @held, $most, "$tool: $most open requests reach it");
    for my $url ("https://$tool.toolforge.org/", "https://tools.example.org/$tool/") {
        my $answer = fetch($url);
        is($answer->{status}, 503, "$url: one more does not");
        like($answer->{body}, qr/Too busy/, 'and a page says so');
    }
    hang_up($_->[2]) for @held;
}
done_testing();
