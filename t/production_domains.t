# Whole domains: a mapped host, a wildcard, and 404 for others, without urlproxy.conf in the same nginx.
use lib 't/lib';
use Production;

site('domainproxy');
route('one.example.net' => tool('10.0.0.2'));
route('*.wmcloud.org' => tool('10.0.0.3'));
my $by = sub { my $answer = fetch(@_); return "$answer->{status} " . ($answer->{headers}{'x-tool'} // '-') };
is($by->('https://one.example.net/'), '200 10.0.0.2', 'a domain');
is($by->('https://any.wmcloud.org/'), '200 10.0.0.3', 'a wildcard');
is($by->('https://none.example.net/'), '404 -', 'another');
is($by->('http://one.example.net/'), '301 -', 'http leads to https');

# A host that moved to another parent, if only the new name has a route.
route('new.wmcloud.org' => '10.0.0.3:9');
my $answer = fetch('https://new.wmflabs.org/a%2Fb?x');
is("$answer->{status} $answer->{headers}{location}", '301 https://new.wmcloud.org/a%2Fb?x', 'moved');
route('old.wmflabs.org' => tool('10.0.0.4'));
is($by->('https://old.wmflabs.org/'), '200 10.0.0.4', 'not one that has a route');
is(fetch('https://new.wmflabs.org/', method => 'POST', body => 'x' x 100_000)->{status}, 301, 'POST');
is($by->('https://new.wmflabs.org/', headers => ['User-Agent:']), '403 -', 'bans come first');

my $page = sub { return `curl -s -o /dev/null -w '%{http_code}' --max-time 10 http://127.0.0.1:8082$_[0]` };
is($page->($_), 200, "8082$_") for qw(/ /metrics /ready /api/status);
done_testing();
