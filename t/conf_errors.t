# Configuration errors: nginx does not start, and names the directive, the wrong value and an example. A row is
# `part: configuration => error message`. A row with <> is one case per indented line below it, which replaces <> on both
# sides.
use lib 't/lib';
use UrlproxyTest 'no_plan';

$ENV{TEST_NGINX_LONG_NAME} = 'x' x 256;
$ENV{TEST_NGINX_FILES}     = server_root() . '/html';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(user_files => ">>> empty\n>>> blank_line\n\nsecret\n>>> password\nsecret\n");
});

# Since 1.29.7 nginx keeps connections by default: `keepalive` may come before the balancer, and a second one is a duplicate, as
# which it counts the `keepalive 0` of urlproxy_keepalive.
my $keeps = nginx_version() ge '001.029.007';
refuse_rows(do { local $/; <DATA> } . ($keeps ? <<'SINCE' : <<'BEFORE'));
http: upstream others { urlproxy_peers; urlproxy_keepalive 8; keepalive 8; } => "keepalive" directive is duplicate
SINCE
http: upstream others { keepalive 8; urlproxy_peers; } => "urlproxy_peers" must come first in its upstream, before "keepalive", without another balancing method
http: upstream others { urlproxy_peers; urlproxy_keepalive 8; keepalive 8; } => "keepalive" and "urlproxy_keepalive" are mutually exclusive, expected "urlproxy_peers" followed by one of them
BEFORE
run_tests;

__DATA__
# urlproxy_table
table: <> 1m; => unknown directive "<>" in "urlproxy_table", expected one of zone, redis, password_file, wait_for_routes, resync_interval, allow_backend, snapshot, withdrawal_guard, metrics_tools, ready_max_age, drain_file
    zones
    include
table: "zoneé" 1m; => unknown directive "zone\xc3\xa9" in "urlproxy_table", expected one of zone, redis, password_file, wait_for_routes, resync_interval, allow_backend, snapshot, withdrawal_guard, metrics_tools, ready_max_age, drain_file
http: urlproxy_table to/ols { } => "urlproxy_table" invalid name "to/ols", expected e.g. "urlproxy_table tools { ... }"
http: urlproxy_table "" { } => "urlproxy_table" invalid name "", expected e.g. "urlproxy_table tools { ... }"
http: urlproxy_table tools { } => "urlproxy_table tools" is duplicate
http: urlproxy_table { } => invalid number of arguments in "urlproxy_table" directive
http: urlproxy_table a b { } => invalid number of arguments in "urlproxy_table" directive
http: urlproxy_table other; => directive "urlproxy_table" has no opening "{"
server: urlproxy_table other { } => "urlproxy_table" directive is not allowed here

# zone
table: zone <>; => "zone" invalid size (at least 256k) "<>", expected e.g. "16m"
    8k
    262143
    16mb
    -1m
    99999999999999999999g
table: zone; => "zone" takes one value, e.g. "zone 16m;"
table: zone 1m 2m; => "zone" takes one value, e.g. "zone 16m;"
table: zone 1m; zone 2m; => "zone" is duplicate
table: zone 1m { } => unexpected "{"

# redis
table: redis <>; => "redis" invalid URL "<>", expected e.g. "redis://127.0.0.1:6379/0"
    htp://x
    127.0.0.1:6379
table: redis redis://; => "redis" invalid URL "redis://": missing hostname, expected e.g. "redis://127.0.0.1:6379/0"
table: redis redis://127.0.0.1:0; => "redis" invalid URL "redis://127.0.0.1:0": port 0, expected e.g. "redis://127.0.0.1:6379/0"
table: redis redis://127.0.0.1/x; => "redis" invalid URL "redis://127.0.0.1/x": invalid database number, expected e.g. "redis://127.0.0.1:6379/0"
table: redis redis://127.0.0.1/70000; => "redis" invalid URL "redis://127.0.0.1/70000": no database has number 70000, expected e.g. "redis://127.0.0.1:6379/0"
table: redis redis://127.0.0.1/0?protocol=resp3; => "redis" invalid URL "redis://127.0.0.1/0?protocol=***": unknown parameter "protocol", expected e.g. "redis://127.0.0.1:6379/0"
table: redis redis://127.0.0.1/0#x; => "redis" invalid URL "redis://127.0.0.1/0#x": nothing may follow a "#", expected e.g. "redis://127.0.0.1:6379/0"
table: redis unix:; => "redis" invalid URL "unix:": missing path, expected e.g. "redis://127.0.0.1:6379/0"
table: redis sentinel://a,b; => "redis" invalid URL "sentinel://a,b": the name of the master is missing, expected e.g. "sentinel://10.0.0.1,10.0.0.2/mymaster/0"
table: redis rediss://127.0.0.1?cert=/c; => "redis" invalid URL "rediss://127.0.0.1?cert=/c": the key for cert=/c is missing, expected e.g. "redis://127.0.0.1:6379/0"
table: redis rediss://127.0.0.1?ca=/dev/zero; => "redis" invalid URL "rediss://127.0.0.1?ca=/dev/zero": CA file "/dev/zero": not a regular file, expected e.g. "rediss://redis.example.org/0?ca=/etc/ssl/redis-ca.pem&cert=/etc/ssl/redis-client.pem&key=/etc/ssl/redis-client.key"
table: redis sentinels://h/m?sentinel_password_file=/dev/null; => "redis" invalid URL "sentinels://h/m?sentinel_password_file=/dev/null": Sentinel password file "/dev/null": not a regular file, expected e.g. "sentinels://10.0.0.1,10.0.0.2/mymaster/0?ca=/etc/ssl/redis-ca.pem&sentinel_password_file=/etc/urlproxy/sentinel.pass"
table: redis redis://user:secret@127.0.0.1/x; => "redis" invalid URL "redis://user:***@127.0.0.1/x": invalid database number, expected e.g. "redis://127.0.0.1:6379/0"
table: redis; => "redis" takes one value, e.g. "redis redis://127.0.0.1:6379/0;"
table: redis redis://a redis://b; => "redis" takes one value, e.g. "redis redis://127.0.0.1:6379/0;"
table: redis redis://127.0.0.1; redis redis://127.0.0.2; => "redis" is duplicate

# password_file
table: password_file /nonexistent/pass; => "password_file" "/nonexistent/pass" cannot be read: No such file or directory (os error 2)
table: password_file /; => "password_file" "/" cannot be read: Is a directory (os error 21)
table: password_file $TEST_NGINX_FILES/<>; => "password_file" "$TEST_NGINX_FILES/<>" is empty, expected the password on its first line
    empty
    blank_line
table: password_file; => "password_file" takes one value, e.g. "password_file /etc/urlproxy/redis.pass;"
table: password_file $TEST_NGINX_FILES/password; password_file $TEST_NGINX_FILES/password; => "password_file" is duplicate

# metrics_tools
table: metrics_tools 1001; => "metrics_tools" invalid number (0 to 1000) "1001", expected e.g. "100"
table: metrics_tools few; => "metrics_tools" invalid number (0 to 1000) "few", expected e.g. "100"
table: metrics_tools 1 2; => "metrics_tools" takes one value, e.g. "metrics_tools 100;"
table: metrics_tools 1; metrics_tools 2; => "metrics_tools" is duplicate

# wait_for_routes, resync_interval
table: wait_for_routes <>; => "wait_for_routes" invalid duration "<>", expected e.g. "2s"
    soon
    1y
    -1s
table: wait_for_routes; => "wait_for_routes" takes one value, e.g. "2s"
table: wait_for_routes 1m 30s; => "wait_for_routes" takes one value, e.g. "2s"
table: wait_for_routes 2s; wait_for_routes 3s; => "wait_for_routes" is duplicate
table: resync_interval <>; => "resync_interval" invalid duration "<>", expected e.g. "60s"
    soon
    1y
    -1s
table: resync_interval <>; => "resync_interval" invalid duration (at least 1s) "<>", expected e.g. "60s"
    999ms
    0
table: resync_interval; => "resync_interval" takes one value, e.g. "60s"
table: resync_interval 1m 30s; => "resync_interval" takes one value, e.g. "60s"
table: resync_interval 2s; resync_interval 3s; => "resync_interval" is duplicate

# ready_max_age, drain_file
table: ready_max_age <>; => "ready_max_age" invalid duration "<>", expected e.g. "10m"
    soon
    off
    1y
    -1s
table: ready_max_age <>; => "ready_max_age" invalid duration (at least 1s) "<>", expected e.g. "10m"
    999ms
    0
table: ready_max_age; => "ready_max_age" takes one value, e.g. "10m"
table: ready_max_age 1m 30s; => "ready_max_age" takes one value, e.g. "10m"
table: ready_max_age 2s; ready_max_age 3s; => "ready_max_age" is duplicate
table: drain_file <>; => "drain_file" invalid path of a file (absolute) "<>", expected e.g. "/run/urlproxy/out-of-service"
    out-of-service
    /
    /run/urlproxy/
    /run/urlproxy/.
    /run/urlproxy/..
table: drain_file ''; => "drain_file" invalid path of a file (absolute) "", expected e.g. "/run/urlproxy/out-of-service"
table: drain_file; => "drain_file" takes one value, e.g. "drain_file /run/urlproxy/out-of-service;"
table: drain_file /run/a /run/b; => "drain_file" takes one value, e.g. "drain_file /run/urlproxy/out-of-service;"
table: drain_file /run/a; drain_file /run/b; => "drain_file" is duplicate
location: drain_file /run/a; => unknown directive "drain_file"

# allow_backend
table: allow_backend <>; => "allow_backend" invalid network "<>", expected e.g. "10.0.0.0/8"
    local
    10.0.0.0/33
table: allow_backend 10.0.0.0/8 192.168.0.0/x; => "allow_backend" invalid network "192.168.0.0/x", expected e.g. "10.0.0.0/8"
table: allow_backend; => "allow_backend" takes networks, e.g. "10.0.0.0/8"

# snapshot
table: snapshot; => "snapshot" takes a path, e.g. "snapshot /var/lib/urlproxy/tools.snapshot max_age=7d;"
table: snapshot tools.snapshot; => "snapshot" invalid path of a file (absolute) "tools.snapshot", expected e.g. "/var/lib/urlproxy/tools.snapshot"
table: snapshot <>; => "snapshot" invalid path of a file (absolute) "<>", expected e.g. "/var/lib/urlproxy/tools.snapshot"
    /
    /var/lib/urlproxy/
table: snapshot /tmp/x max_age=old; => "snapshot" invalid parameter "max_age=old", expected e.g. "max_age=7d"
table: snapshot /tmp/x; snapshot /tmp/y; => "snapshot" is duplicate
http: urlproxy_table a { snapshot /tmp/x; } urlproxy_table b { snapshot /tmp/x; } => "snapshot" "/tmp/x" is already used by "urlproxy_table a", expected one file per table

# withdrawal_guard
table: withdrawal_guard <>; => "withdrawal_guard" invalid percentage "<>", expected e.g. "50%"
    50
    101%
table: withdrawal_guard 50% for=1h; => "withdrawal_guard" invalid parameter "for=1h", expected e.g. "floor=20 hold=120s accept=/run/urlproxy/tools.accept"
table: withdrawal_guard off hold=1s; => "withdrawal_guard" invalid percentage "off", expected e.g. "50%"

# urlproxy_peers
http: upstream others { <>; urlproxy_peers; } => "urlproxy_peers" must come first in its upstream, before "keepalive", without another balancing method
    least_conn
    urlproxy_peers
http: upstream others { <> } => "urlproxy_peers" takes its servers from the table, remove the "server" lines
    urlproxy_peers; server 127.0.0.1:1;
    server 127.0.0.1:1; urlproxy_peers;
    urlproxy_peers; server 127.0.0.1:1; keepalive 8;
http: upstream others { urlproxy_peers; zone others 64k; } => "urlproxy_peers" keeps its state in the table, remove the "zone" line
http: upstream others { urlproxy_peers; least_conn; } => no servers in upstream "others"
http: upstream others { urlproxy_peers tools; } => "urlproxy_peers" invalid parameter "tools", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8"
http: upstream others { urlproxy_peers max_fails=2 fail_timeout=500ms; } => "urlproxy_peers" invalid parameter "fail_timeout=500ms", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8"
location: urlproxy_peers; => "urlproxy_peers" directive is not allowed here

# urlproxy_keepalive
http: upstream others { <> } => "urlproxy_keepalive" requires "urlproxy_peers" before it
    urlproxy_keepalive 8; urlproxy_peers;
    server 127.0.0.1:1; urlproxy_keepalive 8;
http: upstream others { urlproxy_peers; <> } => "keepalive" and "urlproxy_keepalive" are mutually exclusive, expected "urlproxy_peers" followed by one of them
    least_conn; urlproxy_keepalive 8;
    keepalive 8; urlproxy_keepalive 8;
upstream: urlproxy_keepalive 8; urlproxy_keepalive 8; => "urlproxy_keepalive" is duplicate
server: urlproxy_keepalive 8; => "urlproxy_keepalive" directive is not allowed here
location: urlproxy_keepalive 8; => "urlproxy_keepalive" directive is not allowed here
upstream: urlproxy_keepalive; => "urlproxy_keepalive" takes a number of connections, e.g. "urlproxy_keepalive 4096 per_backend=16 timeout=60s;"
upstream: urlproxy_keepalive <>; => "urlproxy_keepalive" invalid number of connections (1 to 1000000) "<>", expected e.g. "4096"
    per_backend=8
    0
    -1
    1000001
    4k
upstream: urlproxy_keepalive 64 <>; => "urlproxy_keepalive" invalid parameter "<>", expected e.g. "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8"
    16
    per_host=16
    per_backend=0
    per_backend=-1
    per_backend=
    per_tool=0
    per_tool=many
    timeout=0
    timeout=soon
    timeout=-1s
    timeout=
    requests=0
    requests=-1
    requests=1k
    time=0
    time=1y
    shared=
    shared=10.0.0.0/33
    shared=10.0.0.1,
    shared=ingress.example

# urlproxy
server: location /x { urlproxy tols path; } => "urlproxy" names table "tols", but there is no "urlproxy_table tols"
server: location /x { urlproxy tools paht; } => "urlproxy" invalid mode "paht", expected e.g. "urlproxy tools path;"
server: location /x { urlproxy tools; } => "urlproxy" takes a table and a mode, e.g. "urlproxy tools path;"
server: location /x { urlproxy tools path x; } => "urlproxy" takes a table and a mode, e.g. "urlproxy tools path;"
server: location /x { urlproxy tools subdomain; } => "urlproxy" takes a table, "subdomain" and a domain, e.g. "urlproxy tools subdomain toolforge.org;"
server: location /x { urlproxy tools subdomain https://toolforge.org; } => "urlproxy" invalid domain "https://toolforge.org", expected e.g. "urlproxy tools subdomain toolforge.org;"
server: location /x { urlproxy; } => invalid number of arguments in "urlproxy" directive
server: location /x { urlproxy tools path; urlproxy tools path; } => "urlproxy" is duplicate
http: urlproxy tools path; => "urlproxy" is allowed only in a location or an "if" inside one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"
server: <> => "urlproxy" is allowed only in a location or an "if" inside one, e.g. "location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }"
    urlproxy tools path;
    if ($arg_x) { urlproxy tools path; }
    location /x { limit_except GET { urlproxy tools path; } }

# urlproxy_default
location: urlproxy_default a/b; => "urlproxy_default" tool name "a/b" contains '/', expected no slash and no control character, expected e.g. "admin"
location: urlproxy_default $TEST_NGINX_LONG_NAME; => "urlproxy_default" tool name has 256 bytes, expected at most 255, expected e.g. "admin"
location: urlproxy_default http://10.0.0.1:; => "urlproxy_default" backend "http://10.0.0.1:" has no port between 1 and 65535, expected scheme://host:port, expected e.g. "admin"
location: urlproxy_default http://10.0.0.1:80/x; => "urlproxy_default" backend "http://10.0.0.1:80/x" has more than a host and a port, expected scheme://host:port, expected e.g. "admin"
location: urlproxy_default ftp://10.0.0.1:21; => "urlproxy_default" backend "ftp://10.0.0.1:21" has no scheme, expected http://host:port or https://host:port, expected e.g. "admin"
location: urlproxy_default "<>"; => "urlproxy_default" invalid tool, URL or "off" "<>", expected e.g. "admin"
    $tool
    @admin
    10.0.0.1:80
location: urlproxy_default ''; => "urlproxy_default" invalid tool, URL or "off" "", expected e.g. "admin"
location: urlproxy_default a b; => "urlproxy_default" takes a tool, a URL or off, e.g. "admin"
location: urlproxy_default; => invalid number of arguments in "urlproxy_default" directive
location: urlproxy_default a; urlproxy_default off; => "urlproxy_default" is duplicate

# urlproxy_miss
location: urlproxy_miss <>; => "urlproxy_miss" invalid status (400 to 493, 500 to 599) "<>", expected e.g. "503"
    200
    399
    494
    499
    600
    never
    5e2
location: urlproxy_miss 404 503; => "urlproxy_miss" takes one status, e.g. "503"
location: urlproxy_miss; => invalid number of arguments in "urlproxy_miss" directive
location: urlproxy_miss 404; urlproxy_miss 503; => "urlproxy_miss" is duplicate

# urlproxy_hash, urlproxy_loop_mark
location: urlproxy_hash; => invalid number of arguments in "urlproxy_hash" directive
location: urlproxy_hash $remote_addr; urlproxy_hash $remote_addr; => "urlproxy_hash" is duplicate
location: urlproxy_loop_mark yes; => "urlproxy_loop_mark" takes "named", "on" or "off", e.g. "urlproxy_loop_mark named;"

# urlproxy_canonical
location: urlproxy_canonical <>; => "urlproxy_canonical" invalid site "<>", expected e.g. "https://toolforge.org"
    toolforge.org
    https://toolforge.org/
location: urlproxy_canonical https://a.org https://b.org; => "urlproxy_canonical" takes a site or off, e.g. "https://toolforge.org"
location: urlproxy_canonical https://toolforge.org; urlproxy_canonical off; => "urlproxy_canonical" is duplicate

# urlproxy_moved
location: urlproxy_moved <> https://b.org; => "urlproxy_moved" invalid domain "<>", expected e.g. "urlproxy_moved wmflabs.org https://wmcloud.org;"
    *.a.org
    10.0.0.1
    https://a.org
location: urlproxy_moved a.org <>; => "urlproxy_moved" invalid new site "<>", expected e.g. "urlproxy_moved wmflabs.org https://wmcloud.org;"
    b.org
    https://b.org/
    https://b.org:0
    https://a.org
    $host
location: urlproxy_moved <>; => "urlproxy_moved" takes a domain and the site that replaced it, or off, e.g. "urlproxy_moved wmflabs.org https://wmcloud.org;"
    a.org
    a.org https://b.org 301
location: urlproxy_moved a.org https://b.org; urlproxy_moved A.org. https://c.org; => "urlproxy_moved" names the domain "a.org" twice, expected one site for each domain
location: urlproxy_moved a.org https://b.org; urlproxy_moved off; => "urlproxy_moved" has "off" beside another value, expected one of them
location: urlproxy_moved off; urlproxy_moved off; => "urlproxy_moved" is duplicate

# urlproxy_list
server: location /x { urlproxy_list tols; } => "urlproxy_list" names table "tols", but there is no "urlproxy_table tols"
server: location /x { urlproxy_list tools others; } => "urlproxy_list" takes a table, e.g. "urlproxy_list tools;"
server: location /x { urlproxy_list; } => invalid number of arguments in "urlproxy_list" directive
server: location /x { urlproxy_list tools; urlproxy_list tools; } => "urlproxy_list" is duplicate
server: urlproxy_list tools; => "urlproxy_list" directive is not allowed here

# urlproxy_admin
server: location /x { urlproxy_admin tols; } => "urlproxy_admin" names table "tols", but there is no "urlproxy_table tols"
server: location /x { urlproxy_admin tools others; } => "urlproxy_admin" takes a table, e.g. "urlproxy_admin tools;"
server: location /x { urlproxy_admin; } => invalid number of arguments in "urlproxy_admin" directive
server: location /x { urlproxy_admin tools; urlproxy_admin tools; } => "urlproxy_admin" is duplicate
server: location /x { urlproxy_admin tools; urlproxy_list tools; } => "urlproxy_admin" and "urlproxy_list" in one location, expected one of them
server: location = /x { urlproxy_admin tools; } => "urlproxy_admin" in location "/x", which has no paths below it, expected e.g. "location / { urlproxy_admin tools; }"
server: location ~ ^/x { urlproxy_admin tools; } => "urlproxy_admin" in location "^/x", which has no paths below it, expected e.g. "location / { urlproxy_admin tools; }"
server: urlproxy_admin tools; => "urlproxy_admin" directive is not allowed here
