"""Which tools there are, and what a request is for: a model of the routing that shares no code with nginx or the module.

Each lane has tools of its own and sends one input at a time, so that what a backend gets has one possible cause. The names of two
lanes differ in more bytes than a mutation changes.
"""

import re

LANES = ["ka", "mo", "ru", "zi", "pe", "ly", "vt", "wn"]
# The first three bytes of the addresses of each proxy's backends.
NETWORKS = {"module": "10.0.1", "static": "10.0.2"}
# The last byte. Two tools share the address of `evil`, as behind an ingress.
HOSTS = {"alpha": 2, "beta": 3, "gamma_api": 4, "gamma": 5, "evil": 6, "twin": 6, "admin": 7, "site": 8, "wild": 9, "delta": 10,
         "canon": 11, "multi": 12}
# Where nothing listens: the other backend of `multi`.
DEAD = 13
TLS = {"delta"}
PATH_HOST = "tools.example.org"
SUBDOMAINS = "toolforge.org"
# What redirects lead to: the shipped urlproxy_canonical and urlproxy_moved.
MOVED_FROM, MOVED_TO = "wmflabs.org", "wmcloud.org"


def port_of(lane):
    return 8000 + LANES.index(lane)


def url_of(side, lane, name):
    scheme = "https" if name in TLS else "http"
    return f"{scheme}://{NETWORKS[side]}.{HOSTS[name]}:{port_of(lane)}"


def urls_of(side, lane, name):
    """All backends of a route."""
    url = url_of(side, lane, name)
    return [url, url.replace(f".{HOSTS[name]}:", f".{DEAD}:")] if name == "multi" else [url]


def redis_commands(lanes, swapped=False):
    """What the registries would have written, for the proxy with the module. `swapped` breaks it: beta's route leads to alpha."""
    for lane in lanes:
        for name in ("alpha", "beta", "gamma", "evil", "twin", "delta", "canon"):
            target = "alpha" if swapped and name == "beta" else name
            yield ["HSET", f"prefix:{name}-{lane}", ".*", url_of("module", lane, target)]
        yield ["HSET", f"prefix:gamma-{lane}", "^/api/", url_of("module", lane, "gamma_api")]
        yield ["SADD", f"prefix:multi-{lane}", *urls_of("module", lane, "multi")]
        yield ["HSET", f"redirect:canon-{lane}", ".*", "canon"]
        yield ["HSET", "prefix:admin", f"^/dflt-{lane}(/|$)", url_of("module", lane, "admin")]
        yield ["SADD", f"frontend:site-{lane}.{MOVED_TO}", url_of("module", lane, "site")]
        yield ["SADD", f"frontend:*.wild-{lane}.example.net", url_of("module", lane, "wild")]


def changes(lanes):
    """Without end: what tenants change all the time, none of which is a matter for a request."""
    number = 0
    while True:
        lane = lanes[number % len(lanes)]
        tool = ("alpha", "beta", "gamma", "evil", "twin", "delta")[number % 6]
        yield ["HSET", f"prefix:{tool}-{lane}", f"^/never/{number % 50}$", url_of("module", lane, tool)]
        yield ["HSET", f"prefix:noise-{number % 300}", ".*", url_of("module", lane, "alpha")]
        yield ["HDEL", f"prefix:{tool}-{lane}", f"^/never/{(number - 3 * len(lanes)) % 50}$"]
        yield ["DEL", f"prefix:noise-{(number + 150) % 300}"]
        number += 1


def normalized(target, raw=False):
    """The path of a request target as bytes: decoded once, without empty and dot segments. `raw` breaks it: as sent."""
    path = re.split(rb"[?#]", target, maxsplit=1)[0]
    if raw:
        return path
    path = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), path)
    segments, last = [], b""
    for segment in path.split(b"/")[1:]:
        last = segment
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    end = b"/" if segments and last in (b"", b".", b"..") else b""
    return b"/" + b"/".join(segments) + end


def route(host, target, raw=False):
    """The tool or domain that owns a request, and the name and lane of its backend; None if no backend may get it."""
    host = host.decode("latin-1").lower()
    path = normalized(target, raw)
    if host == PATH_HOST:
        _, first, *rest = (path + b"/").split(b"/", 2)
        return tool_route(first.decode("latin-1"), b"/" + b"".join(rest)) or tool_route("admin", path)
    if host == SUBDOMAINS or host.endswith("." + SUBDOMAINS):
        label = host[:-len(SUBDOMAINS)].rstrip(".")
        return tool_route(label, path) or tool_route("admin", path)
    match = re.fullmatch(rf"site-(\w\w)\.{re.escape(MOVED_TO)}", host)
    if match and match[1] in LANES:
        return host, "site", match[1]
    match = re.fullmatch(r"[^.*][^.]*\.wild-(\w\w)\.example\.net", host)
    if match and match[1] in LANES:
        return f"*.wild-{match[1]}", "wild", match[1]
    return None


def tool_route(tool, rest):
    name, _, lane = tool.partition("-")
    if tool == "admin":
        match = re.match(rb"/dflt-(\w\w)(?:/|\Z)", rest)
        return ("admin", "admin", match[1].decode()) if match and match[1].decode() in LANES else None
    if lane not in LANES or name not in ("alpha", "beta", "gamma", "evil", "twin", "delta", "canon", "multi"):
        return None
    if name == "gamma" and rest.startswith(b"/api/"):
        return tool, "gamma_api", lane
    return tool, name, lane
