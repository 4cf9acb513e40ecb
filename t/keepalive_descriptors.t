# Kept connections use at most half of a worker's file descriptors.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use KeptConnections;

our $routes = [map { ['HSET', "prefix:tool$_", '.*', "http://$ENV{qq(TEST_NGINX_PEER_$_)}"] } 1 .. 8];

run_tests;

__DATA__

=== eight pools share half of 64 descriptors
--- main_config
worker_rlimit_nofile 64;
--- http eval
CORE::join '', map { "upstream pool$_ { urlproxy_peers; urlproxy_keepalive 48; }\n" } 1 .. 7
--- upstream
urlproxy_keepalive 48;
--- redis eval: $::routes
--- perl
my @ids = map { serve("GET /tool$_/") } 1 .. 8;
connections_are("@ids[4 .. 7]");
