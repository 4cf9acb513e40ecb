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



=== urlproxy: no such table
--- server
location /x { urlproxy tols path; }
--- refused
"urlproxy" names table "tols", but there is no "urlproxy_table tols"



=== urlproxy: no such mode
--- server
location /x { urlproxy tools paht; }
--- refused
"urlproxy" invalid mode "paht", expected e.g. "urlproxy tools path;"



=== urlproxy: no mode
--- server
location /x { urlproxy tools; }
--- refused
"urlproxy" takes a table and a mode, e.g. "urlproxy tools path;"



=== urlproxy: too much
--- server
location /x { urlproxy tools path x; }
--- refused
"urlproxy" takes a table and a mode, e.g. "urlproxy tools path;"



=== urlproxy: nothing
--- server
location /x { urlproxy; }
--- refused
invalid number of arguments in "urlproxy" directive



=== urlproxy: twice
--- server
location /x { urlproxy tools path; urlproxy tools path; }
--- refused
"urlproxy" is duplicate



=== urlproxy_default: a slash
--- server
location /x { urlproxy_default a/b; }
--- refused
"urlproxy_default" tool name "a/b" contains '/', expected no slash and no control character, expected e.g. "admin"



=== urlproxy_default: too long
--- location eval: 'urlproxy_default ' . 'x' x 256 . ';'
--- refused
"urlproxy_default" tool name has 256 bytes, expected at most 255, expected e.g. "admin"



=== urlproxy_default: no port
--- server
location /x { urlproxy_default http://10.0.0.1:; }
--- refused
"urlproxy_default" backend "http://10.0.0.1:" has no port between 1 and 65535, expected scheme://host:port, expected e.g. "admin"



=== urlproxy_default: a path
--- server
location /x { urlproxy_default http://10.0.0.1:80/x; }
--- refused
"urlproxy_default" backend "http://10.0.0.1:80/x" has more than a host and a port, expected scheme://host:port, expected e.g. "admin"



=== urlproxy_default: another scheme
--- server
location /x { urlproxy_default ftp://10.0.0.1:21; }
--- refused
"urlproxy_default" backend "ftp://10.0.0.1:21" has no scheme, expected http://host:port or https://host:port, expected e.g. "admin"



=== urlproxy_default: two
--- server
location /x { urlproxy_default a b; }
--- refused
"urlproxy_default" takes a tool, a URL or off, e.g. "admin"



=== urlproxy_default: nothing
--- server
location /x { urlproxy_default; }
--- refused
invalid number of arguments in "urlproxy_default" directive



=== urlproxy_default: twice
--- server
location /x { urlproxy_default a; urlproxy_default off; }
--- refused
"urlproxy_default" is duplicate



=== urlproxy_miss: no error
--- server
location /x { urlproxy_miss 200; }
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "200", expected e.g. "503"



=== urlproxy_miss: just no error
--- server
location /x { urlproxy_miss 399; }
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "399", expected e.g. "503"



=== urlproxy_miss: too high
--- server
location /x { urlproxy_miss 600; }
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "600", expected e.g. "503"



=== urlproxy_miss: no number
--- server
location /x { urlproxy_miss never; }
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "never", expected e.g. "503"



=== urlproxy_miss: nearly a number
--- server
location /x { urlproxy_miss 5e2; }
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "5e2", expected e.g. "503"



=== urlproxy_miss: two
--- server
location /x { urlproxy_miss 404 503; }
--- refused
"urlproxy_miss" takes one status, e.g. "503"



=== urlproxy_miss: nothing
--- server
location /x { urlproxy_miss; }
--- refused
invalid number of arguments in "urlproxy_miss" directive



=== urlproxy_miss: twice
--- server
location /x { urlproxy_miss 404; urlproxy_miss 503; }
--- refused
"urlproxy_miss" is duplicate



=== urlproxy_list: no such table
--- server
location /x { urlproxy_list tols; }
--- refused
"urlproxy_list" names table "tols", but there is no "urlproxy_table tols"



=== urlproxy_list: two
--- server
location /x { urlproxy_list tools others; }
--- refused
"urlproxy_list" takes a table, e.g. "urlproxy_list tools;"



=== urlproxy_list: nothing
--- server
location /x { urlproxy_list; }
--- refused
invalid number of arguments in "urlproxy_list" directive



=== urlproxy_list: twice
--- server
location /x { urlproxy_list tools; urlproxy_list tools; }
--- refused
"urlproxy_list" is duplicate



=== urlproxy_list: in a server
--- server
urlproxy_list tools;
--- refused
"urlproxy_list" directive is not allowed here



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



=== urlproxy: subdomain without a domain
--- server
location /x { urlproxy tools subdomain; }
--- refused
"urlproxy" takes a table, "subdomain" and a domain, e.g. "urlproxy tools subdomain toolforge.org;"



=== urlproxy: subdomain of what is no domain
--- server
location /x { urlproxy tools subdomain https://toolforge.org; }
--- refused
"urlproxy" invalid domain "https://toolforge.org", expected e.g. "urlproxy tools subdomain toolforge.org;"



=== urlproxy_canonical: no site
--- location
urlproxy_canonical toolforge.org;
--- refused
"urlproxy_canonical" invalid site "toolforge.org", expected e.g. "https://toolforge.org"



=== urlproxy_canonical: a path
--- location
urlproxy_canonical https://toolforge.org/;
--- refused
"urlproxy_canonical" invalid site "https://toolforge.org/", expected e.g. "https://toolforge.org"



=== urlproxy_canonical: two sites
--- location
urlproxy_canonical https://a.org https://b.org;
--- refused
"urlproxy_canonical" takes a site or off, e.g. "https://toolforge.org"



=== urlproxy_canonical: twice
--- location
urlproxy_canonical https://toolforge.org;
urlproxy_canonical off;
--- refused
"urlproxy_canonical" is duplicate



=== urlproxy: at the level of a server
--- server
urlproxy tools path;
--- refused
"urlproxy" is allowed where "proxy_pass" is, in a location or an "if" in one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"



=== urlproxy: at the level of http
--- http
urlproxy tools path;
--- refused
"urlproxy" is allowed where "proxy_pass" is, in a location or an "if" in one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"



=== urlproxy: in an if of a server
--- server
if ($arg_x) { urlproxy tools path; }
--- refused
"urlproxy" is allowed where "proxy_pass" is, in a location or an "if" in one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"



=== urlproxy: in a limit_except
--- location
limit_except GET { urlproxy tools path; }
--- refused
"urlproxy" is allowed where "proxy_pass" is, in a location or an "if" in one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"



=== urlproxy_default: a variable
--- location
urlproxy_default $tool;
--- refused
"urlproxy_default" invalid tool, URL or "off" "$tool", expected e.g. "admin"



=== urlproxy_default: a named location
--- location
urlproxy_default @admin;
--- refused
"urlproxy_default" invalid tool, URL or "off" "@admin", expected e.g. "admin"



=== urlproxy_default: nothing between quotes
--- location
urlproxy_default '';
--- refused
"urlproxy_default" invalid tool, URL or "off" "", expected e.g. "admin"



=== urlproxy_default: an address without a scheme
--- location
urlproxy_default 10.0.0.1:80;
--- refused
"urlproxy_default" invalid tool, URL or "off" "10.0.0.1:80", expected e.g. "admin"



=== urlproxy_miss: the first that nginx keeps for itself
--- location
urlproxy_miss 494;
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "494", expected e.g. "503"



=== urlproxy_miss: the last of them
--- location
urlproxy_miss 499;
--- refused
"urlproxy_miss" invalid status (400 to 493, 500 to 599) "499", expected e.g. "503"
