# docs/admin.md shows each answer with exactly the fields that it has.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use JSON::PP;

# The examples of docs/admin.md, by the path of their section.
sub documented {
    open my $file, '<', 'docs/admin.md' or die "docs/admin.md: $!\n";
    my (%examples, $path, $text);
    while (<$file>) {
        if (m{^## (/api/\S+)})   { $path = $1 =~ s/&lt;tool&gt;/hello/r }
        elsif (/^```json$/)      { $text = '' }
        elsif (/^```$/ && $text) { $examples{$path} = decode_json($text); undef $text }
        elsif (defined $text)    { $text .= $_ }
    }
    return \%examples;
}

# All paths of fields in a value; the names of `by_reason` and `origin` are data.
sub fields {
    my ($value, $at) = @_;
    return map { fields($_, "$at\[]") } @$value if ref $value eq 'ARRAY';
    return () unless ref $value eq 'HASH';
    return map { fields($_, "$at.*") } values %$value if $at =~ /(?:by_reason|\bapi\/routes\/.*origin)$/;
    return map { ("$at.$_", fields($value->{$_}, "$at.$_")) } keys %$value;
}

run_tests;

__DATA__

=== documented fields are those of real answers
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A ( http://$TEST_NGINX_TOOL_A
HSET redirect:hello .* hello.example.org
HSET origin:hello .* {"source":"proxylistener","owner":"tools.hello","host":"127.0.0.1","since":1789999998}
--- server
location /admin/ { urlproxy_admin tools; }
--- perl
my $examples = documented();
is(scalar(keys %$examples), 7, 'examples');
redis('HSET', 'prefix:hello', '/x', "http://$ENV{TEST_NGINX_TOOL_B}");
my $busy = sub { decode_json(ask('GET /admin/api/routes/hello')->{body}) };
ok(eventually { ask('GET /hello/'); my $tool = $busy->(); $tool->{latency} && @{ $tool->{changes} } }, 'figures and changes');
my %query = ('/api/explain' => '?host=localhost&uri=/hello/x');
for my $path (sort keys %$examples) {
    my $answer = ask("GET /admin$path" . ($query{$path} // ''));
    my %shown = map { $_ => 1 } fields($examples->{$path}, $path);
    my %real = map { $_ => 1 } fields(decode_json($answer->{body}), $path);
    is(join("\n", sort keys %real), join("\n", sort keys %shown), $path);
}
