# Clients choose the names in error pages: whatever bytes they send, HTML shows text, and JSON is valid.
use lib 't/lib';
use Production;
use Encode ();
use IO::Socket::INET ();
use JSON::PP ();

# Many requests follow.
add_to('lists/unlimited-clients.conf', '127.0.0.1 test;');
site('urlproxy');
my $dead = IO::Socket::INET->new(LocalAddr => '10.0.0.9', LocalPort => 0, Proto => 'tcp') or die "10.0.0.9: $!\n";

sub encoded { return $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }
sub is_utf8 { return defined eval { Encode::decode('UTF-8', $_[0], Encode::FB_CROAK | Encode::LEAVE_SRC) } }
sub escaped { return $_[0] =~ s/([<>&"])/'&' . { '<' => 'lt', '>' => 'gt', '&' => 'amp', '"' => 'quot' }->{$1} . ';'/ger }

# The names of tools, as they are in the page; '' for one that is left out.
my $html_only = sub { return ($_[0], $_[0], '') };
my $nowhere   = sub { return ($_[0], '', '') };
my $both      = sub { return ($_[0], $_[0], $_[0]) };
my @names = (
    $both->('<script>alert(1)'),
    $html_only->(q{<img src="x" onerror='alert(1)'>}),
    $both->('<!--# echo var="http_cookie" -->' =~ tr/"/'/r),
    $html_only->('<!--# include virtual="down" -->'),
    $both->('<!--# include virtual=down -->'),
    $both->('&lt;&amp;&#60;'),
    $html_only->('<bdi><h1>"'),
    $html_only->('\\'),
    $html_only->('","error":"none'),
    $html_only->('\\u0022'),
    $both->(q(';alert(1);')),
    $both->('${jndi:x}{{7*7}}$urlproxy_tool'),
    $both->("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
    $both->('w' x 255),
    $nowhere->('w' x 256),
    $nowhere->('w' x 3000),
    $nowhere->("\xe2\x80\xaegnp.exe"),
    $nowhere->("a\xe2\x81\xa6b"),
    $nowhere->("a\xe2\x80\x8bb"),
    $nowhere->("a\xd8\x9cb"),
    $nowhere->("a\xef\xbb\xbfb"),
    $nowhere->("\xff\xfe"),
    $nowhere->("\xc0\xbc"),
    $nowhere->("\xe0\x80\xbc"),
    $nowhere->("\xf0\x80\x80\xbc"),
    $nowhere->("\xed\xa0\x80"),
    $nowhere->("\xf4\x90\x80\x80"),
    $nowhere->("a\xe2\x82"),
    $nowhere->("\xc2\x85"),
);

# The tags of the page are those of its file.
my %tags = map { $_ => 1 } slurp('/usr/share/urlproxy/error/page.html') =~ s/<!--.*?-->//gsr =~ /<[^>]*>/g;
sub is_text {
    my ($what, $answer, $shown) = @_;
    my $body = $answer->{body};
    is(join(' ', grep { !$tags{$_} } $body =~ /<[^>]*>/g), '', "$what: no tag but the page's own");
    ok(is_utf8($body), "$what: UTF-8");
    is(join('|', $body =~ m{<bdi>(.*?)</bdi>}gs), escaped($shown), "$what: as text");
}

while (my ($name, $in_html, $in_json) = splice @names, 0, 3) {
    my $what = substr encoded($name), 0, 40;
    my %urls = (no_such_tool => 'https://tools.example.org/' . encoded($name) . '/x');
    # Redis has only names that a tool can have.
    if (length $name <= 255 && is_utf8($name) && $name !~ /\xc2[\x80-\x9f]/) {
        my $tool = "!$name";
        $tool = $name if length $name > 254;
        redis('HSET', "prefix:$tool", '.*', 'http://10.0.0.9:' . $dead->sockport);
        $urls{tool_down} = 'https://tools.example.org/' . encoded($tool) . '/x';
        eventually(sub { fetch($urls{tool_down})->{status} == 502 }) or fail("$what: no route");
        delete $urls{no_such_tool} if $tool eq $name;
    }
    for my $error (sort keys %urls) {
        my $mark = $error eq 'tool_down' && length $name <= 254 ? '!' : '';
        my $shown = sub { length $_[0] ? "$mark$_[0]" : '' };
        is_text("$error, $what", fetch($urls{$error}), $shown->($in_html));
        my $object = eval { JSON::PP->new->utf8->decode(fetch($urls{$error}, headers => ['Accept: application/json'])->{body}) } // {};
        is($object->{error}, $error, "$error, $what: JSON");
        is(Encode::encode('UTF-8', $object->{tool}), $shown->($in_json), "$error, $what: its name in JSON");
    }
}

# Names in the host; nginx refuses these since 1.29.4.
my $refuses = nginx_version() ge '001.029.004';
for my $host (q{a"b\\<img>'&.example}, "a\xff.example", '<script>alert(1).toolforge.org') {
    my $request = "GET / HTTP/1.1\r\nHost: $host\r\nUser-Agent: t\r\nConnection: close\r\n";
    my $answer = ask('tools.example.org', "$request\r\n");
    is($answer->{status}, $refuses ? 400 : 503, "$host: status");
    is(join(' ', grep { !$tags{$_} } $answer->{body} =~ /<[^>]*>/g), '', "$host: no tag but the page's own");
    ok(is_utf8($answer->{body}), "$host: UTF-8");
    next if $refuses;
    my ($line) = ask('tools.example.org', "${request}Accept: application/json\r\n\r\n")->{body} =~ /^(\{.*\})\r?$/m;
    ok(eval { JSON::PP->new->utf8->decode($line) }, "$host: JSON") or diag($line);
}

# Every byte, alone and among others, and random names; all in one run of curl, whose output has one object per line.
srand 20;
my @random = map { my $length = 1 + int rand 40; join '', map { chr 1 + int rand 255 } 1 .. $length } 1 .. 300;
my @all = grep { !m{^\.*$} } (map { (chr, 'a' . chr() . 'b') } grep { $_ != ord '/' } 1 .. 255), @random;
$_ =~ tr{/}{|} for @all;
for my $format ('json', 'html') {
    open my $list, '>', '/run/production/urls' or die "/run/production/urls: $!\n";
    print $list 'url = "https://tools.example.org/', encoded($_), "/\"\n" for @all;
    close $list or die "/run/production/urls: $!\n";
    my $said = fetch('https://tools.example.org/last', headers => ["Accept: application/$format", 'User-Agent: t'], curl => ['-K', '/run/production/urls']);
    my @answers = split /^HTTP\/.*?\r\n\r\n/ms, $said->{body};
    is(@answers, 1 + @all, "$format: an answer for every name");
    my (@wrong, $named);
    pop @answers;
    for my $index (0 .. $#all) {
        my ($name, $answer) = ($all[$index], $answers[$index] // '');
        if ($format eq 'json') {
            my $object = eval { JSON::PP->new->utf8->decode($answer) };
            my $shown = $object && Encode::encode('UTF-8', $object->{tool} // '');
            push @wrong, encoded($name) unless $object && ($shown eq '' || $shown eq $name);
            $named++ if length $shown;
        } else {
            my ($shown) = $answer =~ m{<code><bdi>(.*?)</bdi>}s;
            my @foreign = grep { !$tags{$_} } $answer =~ /<[^>]*>/g;
            push @wrong, encoded($name)
                if @foreign || !is_utf8($answer) || ($shown // escaped($name)) ne escaped($name) && $shown ne 'tools.example.org';
            $named++ if defined $shown;
        }
    }
    is("@wrong", '', "$format: right for every name");
    cmp_ok($named, '>', 180, "$format: usual names are shown");
}
done_testing();
