# urlproxy_miss: the status of requests that match no route.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

=== the default is 503
--- requests
/unknown/  503  -  result=miss



=== a miss has no Retry-After
--- perl
is(ask('GET /unknown/')->{headers}{'retry-after'}, undef);



=== locations inherit or override the status
--- http
urlproxy_miss 410;
--- server
location /inherits { urlproxy tools path; }
location /own { urlproxy tools path; urlproxy_miss 404;
    location /own/inherits { urlproxy tools path; proxy_pass http://tools; }
    location /own/again { urlproxy tools path; urlproxy_miss 599; proxy_pass http://tools; }
}
--- requests
/unknown/      410  -  result=miss
/inherits      410
/own           404
/own/inherits  404
/own/again     599



=== 400 is the lowest status
--- location
urlproxy_miss 400;
--- requests
/unknown/  400



=== error_page replaces the page
--- location
urlproxy_miss 404;
error_page 404 =410 /sorry;
--- server
location = /sorry { default_type text/plain; return 200 "no tool $urlproxy_tool: $urlproxy_result"; }
--- request
GET /unknown/x
--- error_code: 410
--- response_body: no tool unknown: miss



=== the client's connection stays open
--- redis
HSET prefix:hello .* http://$TEST_NGINX_TOOL_A
--- perl
my $client = to_nginx();
my $head   = "HTTP/1.1\r\nHost: localhost\r\n";
my @got;
for my $request (
    "GET /unknown/ $head\r\n",
    "POST /unknown/ ${head}Content-Length: 5\r\n\r\nGET /",
    "POST /unknown/ ${head}Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
    "PUT /unknown/ ${head}Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "GET /hello/ $head\r\n")
{
    send_bytes($client, $request);
    push @got, answer($client)->{status};
}
is("@got", '503 503 503 503 200', 'five requests on one connection');
send_bytes($client, "HEAD /unknown/ $head\r\n");
is(answer($client, 1)->{status}, 503, 'a HEAD on the same');
send_bytes($client, "GET /unknown/ $head\r\nGET /hello/ $head\r\nGET /unknown/ $head\r\n");
is(join(' ', map { answer($client)->{status} } 1 .. 3), '503 200 503', 'three at once');
