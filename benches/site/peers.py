"""The table of peers: how to configure and start each proxy for a site.

A peer is a function of a `Site`: it writes its configuration and returns the command that serves it in the foreground:

    @peer("traefik", "traefik")
    def traefik(site):
        routes = {tool: site.workload.address_of(backend) for tool, backend in site.tools}
        site.write("traefik.yaml", ...)
        return ["traefik", "--configFile=traefik.yaml"]

Programs are found in PATH and among those from `make bench-peers`; peers that are not installed are skipped with a message.
Each peer has its best settings for this load: all have one core, keep as many connections as they need, send the client's
address and scheme to the backend, and log nothing.
"""
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from machine import free_port
from workloads import HOST, Workload, tool_name

# Programs from `make bench-peers`.
FETCHED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "urlproxy" / "peers" / "bin"
# Debian's directory of nginx modules.
NGINX_MODULES = Path("/usr/lib/nginx/modules")

PEERS = {}


@dataclass
class Peer:
    """A row of the table."""
    name: str
    program: str
    configure: callable
    environment: dict

    @property
    def is_installed(self):
        return Path(self.program).exists() or find(self.program) is not None


def peer(name, program, **environment):
    def add(configure):
        PEERS[name] = Peer(name, program, configure, environment)
        return configure
    return add


def find(program):
    return shutil.which(program) or shutil.which(program, path=FETCHED)


@dataclass
class Site:
    """The site that a peer serves: `/<tool>/...` goes to the tool's backend."""
    workload: Workload
    directory: Path
    port: int
    backend_port: int
    redis_port: int
    module: Path
    zone_mebibytes: int = 32
    admin_port: int = 0

    def write(self, name, text):
        (self.directory / name).write_text(text)

    @property
    def backends(self):
        """Number and address of each backend."""
        workload = self.workload
        return [(i, f"{workload.address_of(i)}:{self.backend_port}") for i in range(workload.backends)]

    @property
    def tools(self):
        """Name and backend number of each tool."""
        return [(tool_name(i), self.workload.backend_of(i)) for i in range(self.workload.tools)]


# nginx in four ways ------------------------------------------------------------------------------------------------------

def nginx(site, http, location, load=()):
    temp = "".join(f"{kind}_temp_path tmp_{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    site.write("nginx.conf", f"""
{'user root;' if os.geteuid() == 0 else ''}
{''.join(f'load_module "{module}";' for module in load)}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    {temp}
    keepalive_requests 100000000;
    request_pool_size  10k;
    proxy_http_version 1.1;
    proxy_set_header Host              $http_host;
    proxy_set_header X-Forwarded-For   $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header Connection        "";
    {http}
    server {{
        listen 127.0.0.1:{site.port};
        {location}
    }}
}}
""")
    return ["nginx", "-p", f"{site.directory}/", "-e", "error.log", "-c", "nginx.conf", "-g", "daemon off;"]


def with_module(site, keepalive, shared=False):
    """`shared`: any tool may use any connection, for backends that serve many tools, like an ingress."""
    table = f"""
    urlproxy_table tools {{
        zone             {site.zone_mebibytes}m;
        redis            redis://127.0.0.1:{site.redis_port}/0;
        wait_for_routes  60s;
    }}
    upstream tools {{
        urlproxy_peers {'shared=127.0.0.0/8' if shared else ''};
        {keepalive}
    }}"""
    if site.admin_port:
        table += f"""
    server {{
        listen 127.0.0.1:{site.admin_port};
        location = /list {{ urlproxy_list tools; }}
        location / {{ urlproxy_admin tools; }}
    }}"""
    location = "location / { urlproxy tools path; proxy_pass https://tools; }"
    return nginx(site, table, location, [site.module])


def own_keepalive(site):
    return f"urlproxy_keepalive 4096 per_backend={site.workload.kept_per_backend} requests=100000000;"


@peer("module", "nginx")
def module(site):
    return with_module(site, own_keepalive(site), shared=site.workload.is_shared)


@peer("module-owners", "nginx")
def module_owners(site):
    """The default: no tool uses a connection of another, even at the same address."""
    return with_module(site, own_keepalive(site))


@peer("module-nginx-keepalive", "nginx")
def module_nginx_keepalive(site):
    return with_module(site, "keepalive 2048; keepalive_requests 100000000;", shared=site.workload.is_shared)


def static_upstreams(site):
    keep = f"keepalive {site.workload.kept_per_backend}; keepalive_requests 100000000;"
    return "".join(f"upstream backend-{i} {{ server {address}; {keep} }}\n" for i, address in site.backends)


@peer("static", "nginx")
def static(site):
    """A location per tool, found in a tree: the fastest nginx. A changed route needs a reload."""
    locations = (f"location /{tool}/ {{ proxy_pass http://backend-{i}; }}\n" for tool, i in site.tools)
    return nginx(site, static_upstreams(site), "".join(locations))


@peer("static-map", "nginx")
def static_map(site):
    """A map from tool to upstream, as commonly configured: nginx searches all upstreams for the name."""
    entries = "".join(f"{tool} backend-{i};\n" for tool, i in site.tools)
    maps = f"""
    map_hash_max_size {4 * site.workload.tools};
    map_hash_bucket_size 128;
    map $uri $tool {{ "~^/(?<name>[^/]+)" $name; }}
    map $tool $backend {{ {entries} }}"""
    return nginx(site, static_upstreams(site) + maps, "location / { proxy_pass http://$backend; }")


@peer("lua", NGINX_MODULES / "ngx_http_lua_module.so")
def lua(site):
    """The solution that the module replaces, with kept connections to Redis and backends."""
    site.write("route.lua", f"""
local key = "prefix:" .. ngx.var.uri:match("^/([^/]*)")
local redis = ngx.socket.tcp()
redis:settimeout(5000)
assert(redis:connect("127.0.0.1", {site.redis_port}))
assert(redis:send("*2\\r\\n$7\\r\\nHGETALL\\r\\n$" .. #key .. "\\r\\n" .. key .. "\\r\\n"))
local function next_text() assert(redis:receive()) return assert(redis:receive()) end
local url
for _ = 1, tonumber(assert(redis:receive()):sub(2)) / 2 do
    local pattern, backend = next_text(), next_text()
    if pattern == ".*" or ngx.re.find(ngx.var.uri, pattern, "jo") then url = backend end
end
redis:setkeepalive(60000, 1024)
if not url then return ngx.exit(503) end
ngx.ctx.host, ngx.ctx.port = url:match("^http://([^:]+):(%d+)$")
""")
    upstream = """
    upstream tools {
        server 0.0.0.1;
        balancer_by_lua_block { require("ngx.balancer").set_current_peer(ngx.ctx.host, ngx.ctx.port) }
        keepalive 2048;
        keepalive_requests 100000000;
    }"""
    location = f"location / {{ access_by_lua_file {site.directory}/route.lua; proxy_pass http://tools; }}"
    return nginx(site, upstream, location, [NGINX_MODULES / "ndk_http_module.so", NGINX_MODULES / "ngx_http_lua_module.so"])


# Others ------------------------------------------------------------------------------------------------------------------

@peer("haproxy", "haproxy")
def haproxy(site):
    """A map from tool to backend. Connections are shared, and kept longer than the default of 5 s."""
    site.write("tools.map", "".join(f"{tool} backend-{i}\n" for tool, i in site.tools))
    backends = (f"backend backend-{i}\n    server s {address} pool-purge-delay 60s\n" for i, address in site.backends)
    site.write("haproxy.cfg", f"""
global
    nbthread 1
    maxconn 8192
    stats socket {site.directory}/stats.sock
defaults
    mode http
    timeout client 600s
    timeout connect 5s
    timeout server 60s
    http-reuse always
    option forwardfor
frontend tools
    bind 127.0.0.1:{site.port}
    http-request set-header X-Forwarded-Proto http
    use_backend %[path,field(2,/),map(tools.map)]
{''.join(backends)}
""")
    return ["haproxy", "-db", "-f", "haproxy.cfg"]


@peer("envoy", "envoy")
def envoy(site):
    """A prefix tree instead of a linear list of routes; no statistics, ids or added headers."""
    def typed(name, message, **fields):
        return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.{message}", **fields}}

    def action(backend):
        route = typed("route", "config.route.v3.Route", match={"prefix": "/"}, route={"cluster": f"backend-{backend}"})
        return {"action": route}

    def cluster(number, address):
        host, port = address.split(":")
        endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
        return {"name": f"backend-{number}", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": f"backend-{number}", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}}

    path = typed("path", "type.matcher.v3.HttpRequestHeaderMatchInput", header_name=":path")
    tree = {"input": path, "prefix_match_map": {"map": {f"/{tool}/": action(i) for tool, i in site.tools}}}
    router = typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
    manager = typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="tools", codec_type="HTTP1", use_remote_address=True, generate_request_id=False, http_filters=[router],
        route_config={"virtual_hosts": [{"name": "tools", "domains": ["*"], "matcher": {"matcher_tree": tree}}]})
    site.write("envoy.json", json.dumps({
        "stats_config": {"stats_matcher": {"reject_all": True}},
        "static_resources": {
            "listeners": [{
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": site.port}},
                "filter_chains": [{"filters": [manager]}]}],
            "clusters": [cluster(i, address) for i, address in site.backends]}}))
    return ["envoy", "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


@peer("caddy", "caddy", GOMAXPROCS="1")
def caddy(site):
    backends = dict(site.backends)
    mappings = [{"input": tool, "outputs": [backends[i]]} for tool, i in site.tools]
    keep = {"max_idle_conns_per_host": site.workload.kept_per_backend, "idle_timeout": "60s"}
    routes = [{"handle": [
        {"handler": "map", "source": "{http.request.uri.path.0}", "destinations": ["{backend}"], "mappings": mappings},
        {"handler": "reverse_proxy", "upstreams": [{"dial": "{backend}"}],
         "transport": {"protocol": "http", "compression": False, "keep_alive": keep}}]}]
    site.write("caddy.json", json.dumps({
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {"http": {"servers": {"tools": {
            "listen": [f"127.0.0.1:{site.port}"], "protocols": ["h1"], "automatic_https": {"disable": True},
            "routes": routes}}}}}))
    return ["caddy", "run", "--config", "caddy.json"]


@peer("aralez", "aralez")
def aralez(site):
    backends = dict(site.backends)
    site.write("upstreams.yaml", json.dumps({"provider": "file", "upstreams": {HOST: {"paths": {
        f"/{tool}": {"servers": [backends[i]], "healthcheck": False} for tool, i in site.tools}}}}))
    site.write("main.yaml", json.dumps({
        "threads": 1, "upstream_keepalive_pool_size": 4096, "log_level": "off", "hc_interval": 60, "hc_method": "HEAD",
        "config_api_enabled": False, "config_address": f"127.0.0.1:{free_port()}",
        "proxy_address_http": f"127.0.0.1:{site.port}", "upstreams_conf": f"{site.directory}/upstreams.yaml",
        "pid_file": f"{site.directory}/pid", "upgrade_sock": f"{site.directory}/upgrade.sock"}))
    return ["aralez", "-c", "main.yaml"]
