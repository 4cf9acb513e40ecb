# urlproxy_hash: requests with the same key go to the same of several backends.
use lib 't/lib';
use UrlproxyTest 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(location => 'urlproxy_hash $http_x_session;') unless defined $block->location;
});

run_tests;

__DATA__

=== a key stays with its backend, and keys are spread
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



=== without a key they take turns
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B
--- perl
like(join('', map { ask('GET /hello/')->{headers}{'x-tool'} } 1 .. 4), qr/^(ab){2}$|^(ba){2}$/);



=== the others keep theirs when one goes, and a failed one's keys move
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_DEAD_A
--- perl
my $of = sub { ask('GET /hello/', headers => ["X-Session: $_[0]"])->{headers}{'x-tool'} // '-' };
# Whose the failed one is shows in the log: each of these was tried there first, once its failure was forgotten.
my $all = sub { join '', map { $of->($_) } 1 .. 30 };
my $before = $all->();
unlike($before, qr/-/);
like(error_log(), qr/connect\(\) failed .* upstream: "http:\/\/\Q$ENV{TEST_NGINX_DEAD_A}\E/, 'some keys were of the failed one');
redis('SREM', 'prefix:hello', "http://$ENV{TEST_NGINX_DEAD_A}");
eventually { $all->() eq $before };
is($all->(), $before, 'they stay where they went, and all others where they were');



=== it holds for the variable too, and may be made of others
--- redis
SADD prefix:hello http://$TEST_NGINX_TOOL_A http://$TEST_NGINX_TOOL_B http://$TEST_NGINX_TOOL_C
--- location
urlproxy_hash $urlproxy_tool$http_x_session;
--- pass
$urlproxy_backend
--- perl
my %all;
for my $session (1 .. 20) {
    my %asked = map { ask('GET /hello/', headers => ["X-Session: $session"])->{headers}{'x-tool'} => 1 } 1 .. 4;
    is(scalar(keys %asked), 1, "session $session");
    $all{$_}++ for keys %asked;
}
is(scalar(keys %all), 3);
