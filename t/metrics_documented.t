# /metrics of urlproxy_admin: docs/monitoring.md lists exactly these metrics and labels.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Labels by metric, from the rows of the page's table.
sub documented {
    open my $file, '<', 'docs/monitoring.md' or die "docs/monitoring.md: $!\n";
    my ($section) = join('', <$file>) =~ /^## Metrics of nginx\n(.*?)^## /ms or die "no section\n";
    my %found;
    while ($section =~ /^\| `(urlproxy_\w+)` \|([^|]*)\|/mg) {
        my ($name, $labels) = ($1, $2);
        $found{$name} = { table => 1, map { $_ => 1 } $labels =~ /`(\w+)`/g };
    }
    return \%found;
}

# The families of a text, with the labels of their samples.
sub families {
    my ($text) = @_;
    my (%found, $name, $kind);
    for (split /\n/, $text) {
        if (/^# TYPE (\w+) (\w+)$/) {
            ($name, $kind) = ($1, $2);
            $found{$name} = {};
        } elsif (my ($sample, $labels) = /^(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} \S+$/) {
            my $suffix = $kind eq 'histogram' ? qr/_(?:bucket|sum|count)/ : '';
            fail("sample $sample in family $name") unless $sample =~ /^\Q$name\E$suffix$/;
            $found{$name}{$1} = 1 while $labels =~ /(\w+)="(?:[^"\\]|\\.)*"/g;
        } elsif (!/^# HELP /) {
            fail("line: $_");
        }
    }
    delete $_->{le} for values %found;
    return \%found;
}

sub metrics { return ask('GET /admin/metrics')->{body} }

run_tests;

__DATA__

=== the page lists the metrics
--- table
snapshot $TEST_NGINX_SERVROOT/logs/tools.snapshot;
--- server
location /admin/ { urlproxy_admin tools; }
location /domain/ { urlproxy tools domain; proxy_pass http://tools; }
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
SADD frontend:www.example.org http://$TEST_NGINX_TOOL_A
--- perl
# A tool or a domain becomes one of the busiest within seconds.
ok(eventually {
    ask('GET /hello/');
    ask('GET /domain/', headers => ['Host: www.example.org']);
    my $text = metrics();
    $text =~ /,tool="hello"/ && $text =~ /,domain="www\.example\.org"/;
}, 'both have metrics');
my ($documented, $exported) = (documented(), families(metrics()));
is_deeply([sort keys %$exported], [sort keys %$documented], 'names');
is_deeply($exported, $documented, 'labels');
