# Every way to write a directive wrong: nginx does not start, and says which directive, which value, and what a right one
# would be.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== zone: too small
--- table
zone 8k;
--- refused
"zone" invalid size (at least 256k) "8k", expected e.g. "16m"



=== zone: just too small
--- table
zone 262143;
--- refused
"zone" invalid size (at least 256k) "262143", expected e.g. "16m"



=== zone: no size
--- table
zone 16mb;
--- refused
"zone" invalid size (at least 256k) "16mb", expected e.g. "16m"



=== zone: negative
--- table
zone -1m;
--- refused
"zone" invalid size (at least 256k) "-1m", expected e.g. "16m"



=== zone: larger than any number
--- table
zone 99999999999999999999g;
--- refused
"zone" invalid size (at least 256k) "99999999999999999999g", expected e.g. "16m"



=== zone: nothing
--- table
zone;
--- refused
"zone" takes one value, e.g. "zone 16m;"



=== zone: two values
--- table
zone 1m 2m;
--- refused
"zone" takes one value, e.g. "zone 16m;"



=== zone: twice
--- table
zone 1m; zone 2m;
--- refused
"zone" is duplicate



=== zone: a block
--- table
zone 1m { }
--- refused
unexpected "{"



=== redis: another scheme
--- table
redis htp://x;
--- refused
"redis" invalid URL "htp://x", expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no scheme
--- table
redis 127.0.0.1:6379;
--- refused
"redis" invalid URL "127.0.0.1:6379", expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no host
--- table
redis redis://;
--- refused
"redis" invalid URL "redis://": missing hostname, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no such port
--- table
redis redis://127.0.0.1:0;
--- refused
"redis" invalid URL "redis://127.0.0.1:0": port 0, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no number as database
--- table
redis redis://127.0.0.1/x;
--- refused
"redis" invalid URL "redis://127.0.0.1/x": invalid database number, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no such database
--- table
redis redis://127.0.0.1/70000;
--- refused
"redis" invalid URL "redis://127.0.0.1/70000": no database has number 70000, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: unknown parameter
--- table
redis redis://127.0.0.1/0?protocol=resp3;
--- refused
"redis" invalid URL "redis://127.0.0.1/0?protocol=***": unknown parameter "protocol", expected e.g. "redis://127.0.0.1:6379/0"



=== redis: a fragment
--- table
redis redis://127.0.0.1/0#x;
--- refused
"redis" invalid URL "redis://127.0.0.1/0#x": nothing may follow a "#", expected e.g. "redis://127.0.0.1:6379/0"



=== redis: no path
--- table
redis unix:;
--- refused
"redis" invalid URL "unix:": missing path, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: Sentinels without a master's name
--- table
redis sentinel://a,b;
--- refused
"redis" invalid URL "sentinel://a,b": the name of the master is missing, expected e.g. "sentinel://10.0.0.1,10.0.0.2/mymaster/0"



=== redis: a password is not shown
--- table
redis redis://user:secret@127.0.0.1/x;
--- refused
"redis" invalid URL "redis://user:***@127.0.0.1/x": invalid database number, expected e.g. "redis://127.0.0.1:6379/0"



=== redis: nothing
--- table
redis;
--- refused
"redis" takes one value, e.g. "redis redis://127.0.0.1:6379/0;"



=== redis: two values
--- table
redis redis://a redis://b;
--- refused
"redis" takes one value, e.g. "redis redis://127.0.0.1:6379/0;"



=== redis: twice
--- table
redis redis://127.0.0.1; redis redis://127.0.0.2;
--- refused
"redis" is duplicate



=== password_file: not there
--- table
password_file /nonexistent/pass;
--- refused
"password_file" cannot be read from "/nonexistent/pass": No such file or directory (os error 2)



=== password_file: a directory
--- table
password_file /;
--- refused
"password_file" cannot be read from "/": Is a directory (os error 21)



=== password_file: empty
--- table
password_file $TEST_NGINX_SERVER_ROOT/html/pass;
--- user_files
>>> pass
--- refused
"password_file" "$TEST_NGINX_SERVER_ROOT/html/pass" is empty, expected the password on its first line



=== password_file: an empty first line
--- table
password_file $TEST_NGINX_SERVER_ROOT/html/pass;
--- user_files
>>> pass

secret
--- refused
"password_file" "$TEST_NGINX_SERVER_ROOT/html/pass" is empty, expected the password on its first line



=== password_file: nothing
--- table
password_file;
--- refused
"password_file" takes one value, e.g. "password_file /etc/urlproxy/redis.pass;"



=== password_file: twice
--- table
password_file $TEST_NGINX_SERVER_ROOT/html/pass; password_file $TEST_NGINX_SERVER_ROOT/html/pass;
--- user_files
>>> pass
secret
--- refused
"password_file" is duplicate



=== wait_for_routes: no duration
--- table
wait_for_routes soon;
--- refused
"wait_for_routes" invalid duration "soon", expected e.g. "2s"



=== wait_for_routes: another unit
--- table
wait_for_routes 1y;
--- refused
"wait_for_routes" invalid duration "1y", expected e.g. "2s"



=== wait_for_routes: negative
--- table
wait_for_routes -1s;
--- refused
"wait_for_routes" invalid duration "-1s", expected e.g. "2s"



=== wait_for_routes: nothing
--- table
wait_for_routes;
--- refused
"wait_for_routes" takes one value, e.g. "2s"



=== wait_for_routes: two values
--- table
wait_for_routes 1m 30s;
--- refused
"wait_for_routes" takes one value, e.g. "2s"



=== wait_for_routes: twice
--- table
wait_for_routes 2s; wait_for_routes 3s;
--- refused
"wait_for_routes" is duplicate



=== resync_interval: no duration
--- table
resync_interval soon;
--- refused
"resync_interval" invalid duration "soon", expected e.g. "60s"



=== resync_interval: another unit
--- table
resync_interval 1y;
--- refused
"resync_interval" invalid duration "1y", expected e.g. "60s"



=== resync_interval: negative
--- table
resync_interval -1s;
--- refused
"resync_interval" invalid duration "-1s", expected e.g. "60s"



=== resync_interval: nothing
--- table
resync_interval;
--- refused
"resync_interval" takes one value, e.g. "60s"



=== resync_interval: two values
--- table
resync_interval 1m 30s;
--- refused
"resync_interval" takes one value, e.g. "60s"



=== resync_interval: twice
--- table
resync_interval 2s; resync_interval 3s;
--- refused
"resync_interval" is duplicate



=== resync_interval: too short
--- table
resync_interval 999ms;
--- refused
"resync_interval" invalid duration (at least 1s) "999ms", expected e.g. "60s"



=== resync_interval: off by a zero
--- table
resync_interval 0;
--- refused
"resync_interval" invalid duration (at least 1s) "0", expected e.g. "60s"



=== allow_backend: no network
--- table
allow_backend local;
--- refused
"allow_backend" invalid network "local", expected e.g. "10.0.0.0/8"



=== allow_backend: too many bits
--- table
allow_backend 10.0.0.0/33;
--- refused
"allow_backend" invalid network "10.0.0.0/33", expected e.g. "10.0.0.0/8"



=== allow_backend: one of several
--- table
allow_backend 10.0.0.0/8 192.168.0.0/x;
--- refused
"allow_backend" invalid network "192.168.0.0/x", expected e.g. "10.0.0.0/8"



=== allow_backend: nothing
--- table
allow_backend;
--- refused
"allow_backend" takes networks, e.g. "10.0.0.0/8"



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



=== snapshot: nothing
--- table
snapshot;
--- refused
"snapshot" takes a path, e.g. "snapshot /var/lib/urlproxy/tools.snapshot max_age=7d;"



=== snapshot: relative
--- table
snapshot tools.snapshot;
--- refused
"snapshot" invalid path (absolute) "tools.snapshot", expected e.g. "/var/lib/urlproxy/tools.snapshot"



=== snapshot: an age that is none
--- table
snapshot /tmp/x max_age=old;
--- refused
"snapshot" invalid parameter "max_age=old", expected e.g. "max_age=7d"



=== snapshot: twice
--- table
snapshot /tmp/x; snapshot /tmp/y;
--- refused
"snapshot" is duplicate



=== snapshot: the same file for two tables
--- table
snapshot /tmp/x;
--- http
urlproxy_table others { snapshot /tmp/x; }
--- refused
"snapshot" "/tmp/x" is that of "urlproxy_table tools" already, expected a file for each table



=== withdrawal_guard: no percentage
--- table
withdrawal_guard 50;
--- refused
"withdrawal_guard" invalid percentage "50", expected e.g. "50%"



=== withdrawal_guard: more than all
--- table
withdrawal_guard 101%;
--- refused
"withdrawal_guard" invalid percentage "101%", expected e.g. "50%"



=== withdrawal_guard: an unknown parameter
--- table
withdrawal_guard 50% for=1h;
--- refused
"withdrawal_guard" invalid parameter "for=1h", expected e.g. "floor=20 hold=120s accept=/run/urlproxy/tools.accept"



=== withdrawal_guard: off and more
--- table
withdrawal_guard off hold=1s;
--- refused
"withdrawal_guard" invalid percentage "off", expected e.g. "50%"



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
