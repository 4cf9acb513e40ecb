# Every way to write a directive of the urlproxy_table block wrong: nginx does not start, and says which directive, which
# value, and what a right one would be.
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
