# The log formats of nginx-conf/logformat.conf: each request is one line, which is valid JSON or printable ASCII.
use lib 't/lib';
use UrlproxyTest 'no_plan';
use Encode qw(FB_CROAK LEAVE_SRC);
use JSON::PP ();

$ENV{TEST_NGINX_LOGFORMAT} = File::Spec->rel2abs('nginx-conf/logformat.conf');

sub lines {
    my ($name) = @_;
    open my $file, '<:raw', "$ENV{TEST_NGINX_SERVROOT}/logs/$name" or die "$name: $!\n";
    my @lines = <$file>;
    return @lines;
}

# Sends raw bytes, waits for the end of the response, and returns the line that nginx then logs.
sub logged {
    my ($name, $request) = @_;
    my $before = lines($name);
    my $client = to_nginx();
    send_bytes($client, $request);
    1 while sysread $client, my $rest, 65536;
    eventually { $before < lines($name) } or fail('nothing was logged');
    return (lines($name))[$before];
}

# The text of bytes; dies unless they are valid UTF-8.
sub text { return Encode::decode('UTF-8', $_[0], FB_CROAK | LEAVE_SRC) }

sub get_request {
    my ($uri, $host) = @_;
    return "GET $uri HTTP/1.1\r\nHost: " . ($host // 'localhost') . "\r\nConnection: close\r\n\r\n";
}

# The object of a request; dies unless it is valid JSON in valid UTF-8.
sub object {
    my $line = logged('requests.json', @_);
    my $object = eval { JSON::PP->new->decode(text($line)) };
    return $object // fail("no valid JSON: $@: $line");
}

run_tests;

__DATA__

=== a routed request
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- redis
HSET prefix:hello ^/a http://$TEST_NGINX_TOOL_A
--- perl
my $object = object(get_request('/hello/a?b=c', 'Tools.Example.Org:80'));
my %numbers = map { $_ => delete $object->{$_} } grep { /_time$|^bytes$/ } keys %$object;
like(delete $object->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/, 'time');
is_deeply($object, {
    client => '127.0.0.1', host => 'tools.example.org', method => 'GET', uri => '/hello/a?b=c', protocol => 'HTTP/1.1', status => 200,
    tool => 'hello', domain => '', result => 'route', pattern => '^/a', backend => "http://$ENV{TEST_NGINX_TOOL_A}",
    tries => $ENV{TEST_NGINX_TOOL_A}, upstream_status => '200',
}, 'texts and status');
is(join(' ', sort keys %numbers), 'bytes connect_time header_time request_time response_time', 'numbers');
like(JSON::PP->new->encode([$numbers{$_}]), qr/^\[[0-9.]+\]$/, "$_ is a number") for sort keys %numbers;
cmp_ok($numbers{bytes}, '>', 0, 'bytes');



=== a miss has no times of a backend
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- perl
my $object = object(get_request('/hello/'));
is("$object->{status} $object->{tool} $object->{result} $object->{backend} $object->{tries}", '503 hello miss  ');
is($object->{$_}, undef, $_) for qw(connect_time header_time response_time);



=== the method of the client, not of its error page
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- server
error_page 503 /error;
location = /error { internal; return 200 "down"; }
--- perl
is(object("POST /hello/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")->{method}, 'POST', 'POST');
is(object(get_request('/hello/'))->{method}, 'GET', 'GET');
is(object("\"GET\r\n\r\n")->{method}, '', 'none');



=== times are those of the last try
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- redis
SADD prefix:several http://$TEST_NGINX_DEAD_A http://$TEST_NGINX_TOOL_A
HSET prefix:dead .* http://$TEST_NGINX_DEAD_B
--- perl
my ($object) = grep { $_->{tries} =~ /, / } map { object(get_request('/several/')) } 1 .. 2;
is($object->{tries}, "$ENV{TEST_NGINX_DEAD_A}, $ENV{TEST_NGINX_TOOL_A}", 'both backends');
is("$object->{status} $object->{upstream_status} $object->{backend}", "200 502, 200 http://$ENV{TEST_NGINX_TOOL_A}");
like($object->{$_}, qr/^\d+(\.\d+)?$/, $_) for qw(connect_time header_time response_time);
$object = object(get_request('/dead/'));
is("$object->{status} $object->{tries}", "502 $ENV{TEST_NGINX_DEAD_B}", 'a backend that refuses');
is($object->{connect_time}, undef, 'which has no time to connect');



=== hostile names and bytes give valid JSON
--- http
include $TEST_NGINX_LOGFORMAT;
large_client_header_buffers 4 64k;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- redis eval
[ map { ['HSET', "prefix:$_", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] } '"}', '\\', '\\"', '<script>', "\xe2\x80\xae", '%n$s' ]
--- perl
my $encoded = sub { $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02x', ord $1/ger };
for my $name ('"}', '\\', '\\"', '<script>', "\xe2\x80\xae", '%n$s') {
    my $object = object(get_request('/' . $encoded->($name) . '/'));
    is("$object->{result} $object->{tool}", 'route ' . text($name), 'tool ' . $encoded->($name));
}
my $text = sub { eval { text($_[0]) } // '?' };
for my $uri ("/a\"b\\c", "/\xc3\xa9", "/\xe2\x80\xa8", "/\xff", "/x\xc3", "/\xc3\x28", "/\xed\xa0\x80", "/\xc0\xaf", "/\xf4\x90\x80\x80",
    "/\xf0\x9f\x98\x80", "/\xf8\x88\x80\x80\x80", '/' . "\xc3\xa9" x 4000, '/' . 'a' x 30000, '/' . "\xe2\x82\xac\xff" x 2000) {
    my $shown = substr $encoded->($uri), 0, 30;
    is(object(get_request($uri))->{uri}, $text->($uri), "URI $shown");
    my $name = substr $uri, 1;
    $name =~ s/([\x80-\xff])/sprintf '%%%02x', ord $1/ge;
    my $tool = object(get_request("/$name/"))->{tool};
    is($tool, $text->(substr $uri, 1), "tool $shown");
}
# nginx refuses these hosts since 1.29.4.
my $refuses = nginx_version() ge '001.029.004';
for my $host ("\xff", "a\"b", "\xc3\xa9", "a\\b") {
    is(object(get_request('/', $host))->{host}, $refuses ? 'localhost' : $text->($host), 'host ' . $encoded->($host));
}
is(object(get_request("/%0a%0d%22%1b[31m%00"))->{status}, 400, 'a refused URI');
is(object(get_request($_))->{status}, 400, 'a refused byte') for "/\x7f", "/\x1b[31m";
is(object(get_request($_))->{tool}, '', 'the variable is empty for control characters') for '/hello%0a%22%1b[31m/', '/%7f/';
is(object("GET /hello/\r\n")->{protocol}, '', 'HTTP/0.9');



=== a client that leaves early
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.json urlproxy_json;
--- redis
HSET prefix:hello .* http://$TEST_NGINX_OWN_A
--- perl
my $client  = start_ask('GET /hello/');
my $backend = accept_on('A');
read_message($backend);
close $client;
ok(eventually { lines('requests.json') }, 'logged');
my $object = JSON::PP->new->decode(text((lines('requests.json'))[0]));
is("$object->{status} $object->{tool}", '499 hello');



=== the text format is printable ASCII, and quoted
--- http
include $TEST_NGINX_LOGFORMAT;
access_log $TEST_NGINX_SERVROOT/logs/requests.log urlproxy;
--- redis eval
[ ['HSET', "prefix:a\" result=\"route\xc2\xa0\\", '.*', "http://$ENV{TEST_NGINX_TOOL_A}"] ]
--- perl
my $line = logged('requests.log', get_request('/a%22%20result=%22route%c2%a0%5c/x', 'localhost'));
like($line, qr{^127\.0\.0\.1 \[[^]]+\] localhost "GET /a%22%20result=%22route%c2%a0%5c/x HTTP/1\.1" 200 \d+ tool="a\\x22 result=\\x22route\\xC2\\xA0\\x5C" domain="" result=route pattern="\.\*" backend="http://\Q$ENV{TEST_NGINX_TOOL_A}\E" tries="\Q$ENV{TEST_NGINX_TOOL_A}\E" upstream_status="200" time=[0-9.]+ connect=[0-9.]+ header=[0-9.]+ response=[0-9.]+\n$});
for my $uri ("/a\"b\\c", "/\x7f", "/\xff\xc3\xa9\xe2\x80\xae", '/%0a%1b') {
    like(logged('requests.log', get_request($uri)), qr/^[ -~]+\n$/, 'printable');
}
