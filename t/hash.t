# urlproxy_hash: requests with the same key go to the same one of several backends.
use lib 't/lib';
use UrlproxyTest 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(location => 'urlproxy_hash $http_x_session;') unless defined $block->location;
});

run_tests;

__DATA__

=== keys stay with their backend and spread over all
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- perl
my %count;
for my $session (1 .. 30) {
    my %asked = map { ask('GET /hello/', headers => ["X-Session: $session"])->{headers}{'x-tool'} => 1 } 1 .. 3;
    is(join('', keys %asked) =~ /^[abc]$/, 1, "session $session");
    $count{$_}++ for keys %asked;
}
is(scalar(keys %count), 3);



=== backends take turns without a key
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
like(join('', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 4), qr/^(ab){2}$|^(ba){2}$/);



=== a removed backend's keys spread over the others; other keys stay
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- perl
my $of  = sub { ask('GET /hello/', headers => ["X-Session: $_[0]"])->{headers}{'x-tool'} // '-' };
my $all = sub { join '', map { $of->($_) } 1 .. 90 };
my $before = $all->();
redis('SREM', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { $all->() !~ /c/ }, 'the third backend is removed');
my $after = $all->();
my @moved = grep { substr($before, $_, 1) ne substr $after, $_, 1 } 0 .. 89;
is(join('', map { substr $before, $_, 1 } @moved), $before =~ tr/c//cdr, 'only its keys have moved');
my %taker = map { substr($after, $_, 1) => 1 } @moved;
is(join('', sort keys %taker), 'ab', 'its keys spread over both others');
redis('SADD', 'prefix:hello', "http://$ENV{TEST_NGINX_TOOL_C}");
ok(eventually { $all->() eq $before }, 'the returning backend gets its keys back');



=== keys of an unavailable backend move as if it were removed, and return
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_DEAD_A
--- http
upstream stubborn { urlproxy_peers max_fails=0; }
upstream cautious { urlproxy_peers max_fails=1 fail_timeout=60s; }
--- server
location /hello/cautious { urlproxy tools path; urlproxy_hash $http_x_session; proxy_pass http://cautious; add_header X-Addr $upstream_addr always; }
--- location
urlproxy_hash $http_x_session;
add_header X-Addr $upstream_addr always;
--- pass: http://stubborn
--- perl
# The backends tried for each key, in order.
my $all = sub { my ($path) = @_; map { ask("GET $path", headers => ["X-Session: $_"])->{headers}{'x-addr'} } 1 .. 90 };
my ($dead, %taker) = ($ENV{TEST_NGINX_DEAD_A});
my @before = $all->('/hello/');
my @own    = grep { $before[$_] =~ /^\Q$dead\E, / } 0 .. 89;
cmp_ok(scalar @own, '>', 5, 'the failing backend is first for some keys');
$taker{ $before[$_] =~ s/.*, //r } = 1 for @own;
is(join(' ', sort keys %taker), join(' ', sort @ENV{qw(TEST_NGINX_TOOL_A TEST_NGINX_TOOL_B)}), 'both others take over its keys');
my @without = map { s/^\Q$dead\E, //r } @before;
is(scalar(grep { /,/ } @without), 0, 'no other key is tried twice');
# The first of its keys detects the failure; the others skip the backend.
ask('GET /hello/cautious', headers => ['X-Session: ' . ($own[0] + 1)]);
is_deeply([$all->('/hello/cautious')], \@without, 'an unavailable backend is skipped');
is_deeply([$all->('/hello/')],         \@before,  'where failures are not counted it is asked as before');
ok(change_routes(['SREM', 'prefix:hello', "http://$dead"]), 'the backend is withdrawn');
is_deeply([$all->('/hello/')], \@without, 'its keys go to the others');



=== proxy_pass with the variable uses the hash too
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- pass: $urlproxy_backend
--- perl
my %all;
for my $session (1 .. 40) {
    my %asked = map { ask('GET /hello/', headers => ["X-Session: $session"])->{headers}{'x-tool'} => 1 } 1 .. 4;
    is(scalar(keys %asked), 1, "session $session");
    $all{$_}++ for keys %asked;
}
is(scalar(keys %all), 3);



=== the key may contain the route's own variables
--- redis eval
[ map { ['SADD', "prefix:tool-$_", map { "http://$_" } @ENV{qw(TEST_NGINX_TOOL_A TEST_NGINX_TOOL_B TEST_NGINX_TOOL_C)}] } 1 .. 40 ]
--- location
urlproxy_hash $urlproxy_tool;
--- perl
# With an empty key they would take turns; with the same key for all tools, one backend would get all requests.
my %all;
for my $tool (map { "tool-$_" } 1 .. 40) {
    my %asked = map { ask("GET /$tool/")->{headers}{'x-tool'} => 1 } 1 .. 4;
    is(scalar(keys %asked), 1, $tool);
    $all{$_}++ for keys %asked;
}
is(scalar(keys %all), 3);
