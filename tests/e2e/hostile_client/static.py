"""The site without the module: the shipped files, in which nginx's own maps and upstreams choose the backend.

    static.py DIRECTORY LANE...     writes DIRECTORY/nginx.conf; ports are the shipped ones plus 1000
"""

import pathlib
import re
import shutil
import sys

import sites

# The URI that the module matches is $uri too, so both proxies see the same path.
HEAD = """
map $uri $static_path {{
    default "";
{paths}
}}
map "$host $uri" $static_subdomain {{
    default "";
{subdomains}
}}
map $host $static_domain {{
    default "";
{domains}
}}
map $static_target $static_scheme {{
    default http;
    "~^delta" https;
}}
# As the module: a request without a host is none for a domain.
map "$http_host|$host" $static_hostless {{
    default "";
    "|_" 1;
}}
{upstreams}
"""
# The upstream, and the tool for error pages and limits.
LOCATION = {
    "path": ("$static_path", "$static_path_tool"),
    "subdomain": ("$static_subdomain", "$static_subdomain_tool"),
    "domain": ("$static_domain", '""'),
}


def once(text, pattern, replacement):
    text, count = re.subn(pattern, replacement, text, flags=re.M)
    if not count:
        sys.exit(f"static.py: the shipped configuration has no {pattern}")
    return text


def head(lanes):
    paths, subdomains, domains, upstreams = [], [], [], []
    for lane in lanes:
        for name in ("gamma", "alpha", "beta", "evil", "twin", "delta", "multi"):
            if name == "gamma":
                paths.append(f'    "~(?s)^/gamma-{lane}/api/" gamma_api-{lane};')
                subdomains.append(f'    "~(?s)^gamma-{lane}\\.toolforge\\.org /api/" gamma_api-{lane};')
            paths.append(f'    "~(?s)^/{name}-{lane}(/|\\z)" {name}-{lane};')
            subdomains.append(f'    "~(?s)^{name}-{lane}\\.toolforge\\.org " {name}-{lane};')
        paths.append(f'    "~(?s)^/(admin/)?dflt-{lane}(/|\\z)" admin-{lane};')
        subdomains.append(f'    "~(?s)^\\S+ /dflt-{lane}(/|\\z)" admin-{lane};')
        domains.append(f'    site-{lane}.wmcloud.org site-{lane};')
        domains.append(f'    "~^[^.*][^.]*\\.wild-{lane}\\.example\\.net$" wild-{lane};')
        for name, host in sites.HOSTS.items():
            server = f"{sites.NETWORKS['static']}.{host}:{sites.port_of(lane)}"
            dead = f"server {sites.NETWORKS['static']}.{sites.DEAD}:{sites.port_of(lane)};" if name == "multi" else ""
            upstreams.append(f"upstream {name}-{lane} {{ server {server}; {dead} keepalive 16; }}")
    # In the order of the tables: the tool's own route before the default's.
    subdomains.sort(key=lambda line: "dflt" in line)
    return HEAD.format(paths="\n".join(paths), subdomains="\n".join(subdomains), domains="\n".join(domains),
                       upstreams="\n".join(upstreams))


def location(mode, miss):
    """In place of `urlproxy ...; proxy_pass ...;`. Also a miss has a tool: the first segment or label."""
    target, tool = LOCATION[mode]
    hostless = "if ($static_hostless) { return 400; }" if mode == "domain" else ""
    return f"""
        set $static_target {target};
        set $urlproxy_tool {tool};
        set $urlproxy_domain $host;
        set $urlproxy_result miss;
        if ($static_target) {{ set $urlproxy_result route; }}
        if ($static_target ~ ^admin) {{ set $urlproxy_tool admin; set $urlproxy_result default; }}
        {hostless}
        if ($static_target = "") {{ return {miss}; }}
        proxy_pass $static_scheme://$static_target;"""


# The first segment, unless it has control characters; in a host name, the label.
TOOLS = f"""
map $uri $static_path_tool {{
    default "";
    "~(?s)^/(?<static_first>[^/\\x00-\\x1f\\x7f]+)(?:/|\\z)" $static_first;
}}
map $host $static_subdomain_tool {{
    default "";
    "~^(?<static_label>(?!-)[a-z0-9_-]{{1,63}}(?<!-))\\.toolforge\\.org$" $static_label;
}}
"""


def convert(text):
    text = re.sub(r"listen (\[::\]:)?(80|443)\b", lambda m: f"listen {m[1] or ''}{int(m[2]) + 1000}", text)
    text = re.sub(r"(?ms)^urlproxy_table .*?^}\n", "", text)
    text = re.sub(r"(?ms)^upstream .*?^}\n", "", text)
    text = re.sub(r"(?ms)^server {\n    listen 127\.0\.0\.1:.*?^}\n", "", text)
    text = re.sub(r"(?m)^ *urlproxy_(default|miss|moved|canonical|hash|loop_mark) .*\n", "", text)

    def replace(match):
        miss = 404 if match[1] == "domains" or "or-default" in match[3] else 503
        # After the bans of the snippet: `if` comes before the module's decision.
        return match[3] + location(match[2], miss)

    text, count = re.subn(r"urlproxy +(\w+) (\w+)(?: [\w.]+)?;.*\n\s*proxy_pass .*\n(\s*include .*)", replace, text)
    if "location" in text and not count:
        sys.exit("static.py: no location was converted")
    return text


def main():
    directory, lanes = pathlib.Path(sys.argv[1]), sys.argv[2:]
    installed = pathlib.Path("/etc/nginx")
    shutil.copytree(installed / "urlproxy", directory / "urlproxy")
    for snippet in directory.glob("urlproxy/snippets/*.conf"):
        text = re.sub(r"listen (\[::\]:)?(443)\b", lambda m: f"listen {m[1] or ''}1443", snippet.read_text())
        snippet.write_text(re.sub(r"(?m)^urlproxy_miss .*\n", "", text))
    (directory / "conf.d").mkdir()
    for main_file in ("urlproxy", "domainproxy"):
        (directory / f"conf.d/{main_file}.conf").write_text(convert((installed / f"conf.d/{main_file}.conf").read_text()))
    (directory / "conf.d/00-static.conf").write_text(head(lanes) + TOOLS)
    text = (installed / "nginx.conf").read_text()
    text = once(text, r"^load_module .*\n", "")
    text = once(text, r"^pid .*", f"pid {directory}/nginx.pid;")
    text = once(text, r"^error_log .*", f"error_log {directory}/error.log info;")
    text = once(text, r"access_log \S+;", "access_log off; uninitialized_variable_warn off;")
    text = once(text, r"(_temp_path )\S+/temp_", rf"\g<1>{directory}/temp_")
    text = once(text, r"/etc/nginx/conf\.d", f"{directory}/conf.d")
    (directory / "nginx.conf").write_text(text)


main()
