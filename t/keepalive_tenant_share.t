# A tool keeps at most per_tool connections, by default a sixteenth of the pool or per_backend if that is more, however many
# backends it has.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

# Requests all eight backends of /greedy/ once, in turn. Returns their connections.
sub ask_all {
    my @ids = map { serve('GET /greedy/') } 1 .. 8;
    is(join(' ', sort map { s/\..*//r } @ids), '1 2 3 4 5 6 7 8', 'each backend gets a request');
    return @ids;
}

# Checks that this number of these connections is open, and these others.
sub keeps {
    my ($number, $ids, @others) = @_;
    my %is_greedy = map { $_ => 1 } @$ids;
    my $kept = sub { scalar grep { $is_greedy{$_} } split / /, open_connections() };
    eventually { $kept->() <= $number };
    is($kept->(), $number, "$number of the tool's are kept");
    is(join(' ', grep { !$is_greedy{$_} } split / /, open_connections()), in_order(@others), 'and those of others');
}

sub in_order {
    return join ' ', map { "$_->[0].$_->[1]" } sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } map { [split /\./] } @_;
}

our $greedy = [['SADD', 'prefix:greedy', map { "http://$ENV{qq(TEST_NGINX_PEER_$_)}" } 1 .. 8]];
our $routes = [@$greedy, ['HSET', 'prefix:modest', '.*', "http://$ENV{TEST_NGINX_PEER_1}"]];

run_tests;

__DATA__

=== the default is a sixteenth of the pool
--- upstream
urlproxy_keepalive 48 per_backend=2;
--- redis eval: $::routes
--- perl
my $modest = serve('GET /modest/');
my @ids = ask_all();
keeps(3, \@ids, $modest);
@ids = (@ids, ask_all());
keeps(3, \@ids, $modest);
is(serve('GET /modest/'), $modest, 'the earlier tool keeps its connection');



=== per_backend is the minimum
--- upstream
urlproxy_keepalive 48 per_backend=5;
--- redis eval: $::routes
--- perl
my $modest = serve('GET /modest/');
my @ids = ask_all();
keeps(5, \@ids, $modest);
is(serve('GET /modest/'), $modest);



=== the pool size is the maximum
--- upstream
urlproxy_keepalive 3 per_backend=2;
--- redis eval: $::routes
--- perl
my $modest = serve('GET /modest/');
my @ids = ask_all();
keeps(2, \@ids, $modest);
is(serve('GET /modest/'), $modest);



=== shared networks do not count
--- upstream
urlproxy_keepalive 48 per_backend=2 shared=127.0.0.0/8;
--- redis eval: $::greedy
--- perl
my @ids = ask_all();
connections_are(in_order(@ids), 'all are kept');
my @again = ask_all();
is(in_order(@again), in_order(@ids), 'and used again');



=== backends from the configuration do not count
--- upstream
urlproxy_keepalive 48 per_backend=2;
--- server eval
CORE::join '', map { "location /default-$_/ { urlproxy tools path; urlproxy_default http://\$TEST_NGINX_PEER_$_; proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ''; }\n" } 1 .. 8
--- perl
my @ids = map { serve("GET /default-$_/") } 1 .. 8;
connections_are(in_order(@ids), 'all are kept');
is(in_order(map { serve("GET /default-$_/") } 1 .. 8), in_order(@ids), 'and used again');



=== closed connections do not count
--- upstream
urlproxy_keepalive 64 per_backend=4;
--- redis eval: $::greedy
--- perl
for my $round (1 .. 3) {
    my @ids = ask_all();
    keeps(4, \@ids);
    close_as_backend('half', split / /, open_connections());
    connections_are('');
}
my $former = serve('GET /greedy/');
redis('DEL', 'prefix:greedy');
ok(eventually { ask('GET /list')->{body} !~ /greedy/ }, 'the tool is withdrawn');
redis('SADD', 'prefix:greedy', map { "http://$ENV{qq(TEST_NGINX_PEER_$_)}" } 1 .. 8);
ok(eventually { ask('GET /list')->{body} =~ /greedy/ }, 'and returns');
my @ids = ask_all();
keeps(4, [$former, @ids]);



=== per_tool overrides the default
--- upstream
urlproxy_keepalive 48 per_backend=2 per_tool=6;
--- redis eval: $::routes
--- perl
my $modest = serve('GET /modest/');
my @ids = ask_all();
keeps(6, \@ids, $modest);



=== many tools can fill the pool
--- upstream
urlproxy_keepalive 20 per_backend=2;
--- redis eval
[ map { ['HSET', "prefix:tool-$_", '.*', "http://$ENV{'TEST_NGINX_PEER_' . (1 + $_ % 8)}"] } 1 .. 30 ]
--- perl
my @ids = map { serve("GET /tool-$_/") } 1 .. 30;
connections_are(in_order(@ids[10 .. 29]), 'the twenty most recently used');
