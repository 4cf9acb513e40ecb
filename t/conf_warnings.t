# `nginx -t` warns of locations that do not separate tenants.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Returns the warnings of `nginx -t` about locations, without prefix and file. Warnings about worker_connections come from
# the test's own configuration.
sub warnings {
    my $root = server_root();
    my $log  = `$ENV{TEST_NGINX_BINARY} -t -p $root -c $root/conf/nginx.conf -e $root/logs/test.log 2>&1`;
    like($log, qr/test is successful/, 'nginx -t');
    return sort grep { !/worker_connections/ } map { s/ of the server in \S+nginx\.conf:\d+$//r } $log =~ /^nginx: \[warn\] (.*)/mg;
}

our $route = '"proxy_pass" leads to an upstream with "urlproxy_peers", but the location has no "urlproxy": '
    . 'its requests will fail, expected e.g. "urlproxy tools path;"';
our $host = q(backends get the upstream's name as "Host", the same for all tenants, expected e.g. "proxy_set_header Host $host;");
our $key = q("proxy_cache" may send one tenant's pages to another's visitors, )
    . 'expected e.g. "proxy_cache_key $scheme$host$request_uri;"';

run_tests;

__DATA__

=== a location without urlproxy is reported
--- location: proxy_set_header Host $host;
--- upstream
keepalive 8;
--- http
upstream others { server 127.0.0.1:9; }
upstream plain { urlproxy_peers; }
--- server
location /none/ { proxy_pass http://tools; }
location /plain/ { proxy_pass https://plain/x; }
location ~ ^/regex/ { if ($arg_x) { proxy_pass http://tools; } return 204; }
location /outer/ { return 204; location /outer/inner { proxy_pass http://tools; } }
location @named { proxy_pass http://tools; }
location /others/ { proxy_pass http://others; }
location /address/ { proxy_pass http://127.0.0.1:9; }
location /variable/ { proxy_pass http://$host; }
location /fastcgi/ { fastcgi_pass tools; }
location /grpc/ { grpc_pass tools; }
location /uwsgi/ { uwsgi_pass tools; }
location /scgi/ { scgi_pass tools; location /scgi/files/ { root html; } }
location /others/fastcgi/ { fastcgi_pass others; }
location /uses/grpc/ { urlproxy tools path; grpc_pass tools; }
location /uses/ { urlproxy tools path; proxy_set_header Host $host; proxy_pass http://tools; if ($arg_x) { set $x y; } }
--- perl
my @places = ('/none/', '/outer/inner', '/plain/', '@named', '^/regex/');
my @others = map { my $by = $_; $::route =~ s/proxy_pass/${by}_pass/r . qq(, in location "/$by/") } qw(fastcgi grpc scgi uwsgi);
is_deeply([warnings()], [sort @others, map { qq($::route, in location "$_") } @places], 'exactly these locations are reported');



=== the warning names location, file and line
--- server
location /none/ { proxy_pass http://tools; }
--- error_log eval
qr{in location "/none/" of the server in \S+/conf/nginx\.conf:\d+}



=== a default Host is reported
--- location: proxy_set_header Host $host;
--- server
location /default/ { urlproxy tools path; proxy_pass http://tools; }
location /variable/ { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; proxy_set_header X-Host $host; }
location /said/ { urlproxy tools path; proxy_pass http://tools; proxy_set_header Host $proxy_host; }
location /own/ { urlproxy tools path; proxy_pass http://tools; proxy_set_header HOST ${http_host}; }
location /fixed/ { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; proxy_set_header Host tools.example.org; }
location /grpc/ { urlproxy tools path; grpc_pass tools; }
location /other/ { urlproxy tools path; proxy_pass http://127.0.0.1:9; }
location /answers/ { urlproxy tools path; return 204; }
--- perl
is_deeply([warnings()], [sort map { qq($::host, in location "$_") } '/default/', '/said/', '/variable/'], 'exactly these locations are reported');



=== an inherited Host counts
--- http
proxy_set_header Host $host;
--- location: proxy_set_header Host $host;
--- server
location /inherits/ { urlproxy tools path; proxy_pass http://tools; }
location /replaces/ { urlproxy tools path; proxy_pass http://tools; proxy_set_header X y; }
--- perl
is_deeply([warnings()], [qq($::host, in location "/replaces/")]);



=== a cache key that mixes tenants is reported
--- http
proxy_set_header Host $host;
proxy_cache_path $TEST_NGINX_SERVROOT/cache keys_zone=pages:1m;
proxy_cache pages;
--- location
proxy_set_header Host $host;
proxy_cache off;
--- server
location /default/ { urlproxy tools path; proxy_pass http://tools; }
location /variable/ { urlproxy tools subdomain example.org; proxy_pass $urlproxy_scheme://tools; }
location /said/ { urlproxy tools path; proxy_pass http://tools; proxy_cache_key $scheme$proxy_host$request_uri; }
location /scheme/ { urlproxy tools path; proxy_pass http://tools; proxy_cache_key $hostname$urlproxy_scheme$uri; }
location /domain/ { urlproxy tools domain; proxy_pass http://tools; proxy_cache_key $urlproxy_tool$request_uri; }
location /tool/ { urlproxy tools path; proxy_pass http://tools; proxy_cache_key "$scheme $urlproxy_tool $request_uri"; }
location /host/ { urlproxy tools domain; proxy_pass http://tools; proxy_cache_key ${scheme}${host}$request_uri; }
location /found/ { urlproxy tools domain; proxy_pass http://tools; proxy_cache_key $urlproxy_domain$request_uri; }
location /header/ { urlproxy tools domain; proxy_pass http://tools; proxy_cache_key $http_host$request_uri; }
location /named/ { urlproxy tools path; proxy_pass http://tools; proxy_cache $host; proxy_cache_key x; }
location /off/ { urlproxy tools path; proxy_pass http://tools; proxy_cache off; }
location /other/ { proxy_pass http://127.0.0.1:9; }
--- perl
my @places = qw(/default/ /domain/ /header/ /named/ /said/ /scheme/ /variable/);
is_deeply([warnings()], [sort map { qq($::key, in location "$_") } @places], 'exactly these locations are reported');



=== an inherited cache key counts
--- http
proxy_set_header Host $host;
proxy_cache_path $TEST_NGINX_SERVROOT/cache keys_zone=pages:1m;
proxy_cache pages;
proxy_cache_key $scheme$host$request_uri;
--- location
proxy_set_header Host $host;
--- server
location /inherits/ { urlproxy tools path; proxy_pass http://tools; }
location /replaces/ { urlproxy tools path; proxy_pass http://tools; proxy_cache_key $request_uri; }
--- perl
is_deeply([warnings()], [qq($::key, in location "/replaces/")]);



=== without urlproxy_peers nothing is reported
--- http_config
urlproxy_table tools { redis redis://127.0.0.1:$TEST_NGINX_REDIS_PORT/0; wait_for_routes 5s; }
--- config
location / { urlproxy tools path; proxy_pass $urlproxy_backend; }
location = /up { return 204; }
--- perl
is_deeply([warnings()], []);



=== more kept connections than worker_connections are reported
--- http
upstream many { urlproxy_peers; urlproxy_keepalive 300000; }
upstream few { urlproxy_peers; urlproxy_keepalive 5; }
--- error_log eval
qr{\[warn\].*"urlproxy_keepalive" of all upstreams keeps 300005 connections, more than half of \d+ worker_connections, expected e\.g\. "worker_connections 1200020;" and "worker_rlimit_nofile 2400040;"}



=== a password that every user of the host may read is reported
--- http
urlproxy_table secured { redis sentinel://127.0.0.1:9/m?sentinel_password_file=$TEST_NGINX_SERVER_ROOT/html/pass; wait_for_routes 1ms; }
--- user_files
>>> pass
s3cret
--- error_log eval
qr{\[warn\].*"redis" file "\S+/pass" is readable by every user of this host, expected e\.g\. mode 0640}
