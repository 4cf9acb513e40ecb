# Every way to write a directive of a location wrong: nginx does not start, and says which directive, which value, and what a right one
# would be.
use lib 't/lib';
use UrlproxyTest 'no_plan';

run_tests;

__DATA__

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
