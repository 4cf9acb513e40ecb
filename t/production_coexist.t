# The shipped files load without a warning, alone and together, in any order; together each host reaches its own site.
use lib 't/lib';
use Production;

# site() checks the warnings of nginx -t.
site('logformat', 'urlproxy', 'domainproxy');
route(hello => tool('10.0.0.2'));
route('one.example.net' => tool('10.0.0.3'));
redis('SADD', 'frontend:*.toolforge.org', 'http://10.0.0.3:9');
my $by = sub { my $answer = fetch(@_); return "$answer->{status} " . ($answer->{headers}{'x-tool'} // '-') };
is($by->('https://tools.example.org/hello/'), '200 10.0.0.2', 'path');
is($by->('https://hello.toolforge.org/'), '200 10.0.0.2', 'subdomain, although a domain has that wildcard');
is($by->('https://one.example.net/'), '200 10.0.0.3', 'domain');
is($by->('https://one.example.net/hello/'), '200 10.0.0.3', 'no tool of a domain');
is(`curl -s -k -o /dev/null -w '%{http_code}' --max-time 20 https://127.0.0.1/`, 404, 'an address is a domain without a route');

# The same files in the other order.
rename conf_path('domainproxy'), conf_path('zz-domainproxy') or die $!;
is(warnings(), '', 'no warning in another order');
reload();
is($by->('https://one.example.net/'), '200 10.0.0.3', 'domain');
is($by->('https://hello.toolforge.org/'), '200 10.0.0.2', 'subdomain');

# Each alone, with what it needs.
for my $mains (['urlproxy'], ['urlproxy', 'proxymanager'], ['zz-domainproxy'], ['00-urlproxy-logformat', 'urlproxy']) {
    mkdir '/etc/nginx/away' or die $! unless -d '/etc/nginx/away';
    my %stays = map { conf_path($_) => 1 } @$mains;
    my @others = grep { !$stays{$_} } glob '/etc/nginx/conf.d/*.conf';
    rename $_, '/etc/nginx/away/' . s{.*/}{}r or die $! for @others;
    is(warnings(), '', "alone: @$mains");
    rename '/etc/nginx/away/' . s{.*/}{}r, $_ or die $! for @others;
}

# Each comment that an operator may uncomment is right.
my $text = join '', map { s/^#(?=map \$|limit_conn_zone|    default|    ""|\})//r } map { "$_\n" } split /\n/, slurp(conf_path('urlproxy'));
$text =~ s/^    #(limit_conn |access_log|urlproxy_canonical|urlproxy_loop_mark|snapshot|withdrawal_guard)/    $1/mg;
write_file(conf_path('urlproxy'), $text);
is(warnings(), '', 'with all comments of urlproxy.conf');
reload();
is($by->('https://hello.toolforge.org/'), '200 10.0.0.2', 'which still serves');
ok(eventually(sub { -e '/var/log/nginx/urlproxy.json' }), 'and logs');
done_testing();
