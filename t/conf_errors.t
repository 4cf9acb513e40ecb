# Every way to write a directive wrong: nginx does not start, and says which directive, which value, and what a right one
# would be.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== urlproxy_table: an unknown directive inside
--- table
zones 1m;
--- refused
unknown directive "zones" in "urlproxy_table", expected one of zone, redis, password_file, wait_for_routes, resync_interval, allow_backend, snapshot, withdrawal_guard



=== urlproxy_table: nginx's own directives inside
--- table
include x.conf;
--- refused
unknown directive "include" in "urlproxy_table", expected one of zone, redis, password_file, wait_for_routes, resync_interval, allow_backend, snapshot, withdrawal_guard



=== urlproxy_table: what is no text
--- table
"zoneé" 1m;
--- refused
unknown directive "zone\xc3\xa9" in "urlproxy_table", expected one of zone, redis, password_file, wait_for_routes, resync_interval, allow_backend, snapshot, withdrawal_guard



=== urlproxy_table: a name that is none
--- http
urlproxy_table to/ols { }
--- refused
"urlproxy_table" invalid name "to/ols", expected e.g. "urlproxy_table tools { ... }"



=== urlproxy_table: an empty name
--- http
urlproxy_table "" { }
--- refused
"urlproxy_table" invalid name "", expected e.g. "urlproxy_table tools { ... }"



=== urlproxy_table: twice the same name
--- http
urlproxy_table tools { }
--- refused
"urlproxy_table tools" is duplicate



=== urlproxy_table: no name
--- http
urlproxy_table { }
--- refused
invalid number of arguments in "urlproxy_table" directive



=== urlproxy_table: two names
--- http
urlproxy_table a b { }
--- refused
invalid number of arguments in "urlproxy_table" directive



=== urlproxy_table: no block
--- http
urlproxy_table other;
--- refused
directive "urlproxy_table" has no opening "{"



=== urlproxy_table: in a server
--- server
urlproxy_table other { }
--- refused
"urlproxy_table" directive is not allowed here



=== urlproxy_peers: after keepalive
--- http
upstream others { keepalive 8; urlproxy_peers; }
--- refused
"urlproxy_peers" must be the first in its upstream, before "keepalive" and instead of other methods



=== urlproxy_peers: after another method
--- http
upstream others { least_conn; urlproxy_peers; }
--- refused
"urlproxy_peers" must be the first in its upstream, before "keepalive" and instead of other methods



=== urlproxy_peers: twice
--- http
upstream others { urlproxy_peers; urlproxy_peers; }
--- refused
"urlproxy_peers" must be the first in its upstream, before "keepalive" and instead of other methods



=== urlproxy_peers: with a server
--- http
upstream others { urlproxy_peers; server 127.0.0.1:1; }
--- refused
"urlproxy_peers" takes its servers from the table, remove the "server" lines



=== urlproxy_peers: after a server
--- http
upstream others { server 127.0.0.1:1; urlproxy_peers; }
--- refused
"urlproxy_peers" takes its servers from the table, remove the "server" lines



=== urlproxy_peers: with a server and keepalive
--- http
upstream others { urlproxy_peers; server 127.0.0.1:1; keepalive 8; }
--- refused
"urlproxy_peers" takes its servers from the table, remove the "server" lines



=== urlproxy_peers: with a zone
--- http
upstream others { urlproxy_peers; zone others 64k; }
--- refused
"urlproxy_peers" keeps its state in the table, remove the "zone" line



=== urlproxy_peers: another method after it
--- http
upstream others { urlproxy_peers; least_conn; }
--- refused
no servers in upstream "others"



=== urlproxy_peers: with a value
--- http
upstream others { urlproxy_peers tools; }
--- refused
"urlproxy_peers" invalid parameter "tools", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8"



=== urlproxy_peers: a timeout that is no whole number of seconds
--- http
upstream others { urlproxy_peers max_fails=2 fail_timeout=500ms; }
--- refused
"urlproxy_peers" invalid parameter "fail_timeout=500ms", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8"



=== urlproxy_peers: outside an upstream
--- location
urlproxy_peers;
--- refused
"urlproxy_peers" directive is not allowed here
