"""The module's own pages under odd requests: proper statuses, valid JSON, explanations that agree with the model of the routing."""

import json
import re

import sites
from exchange import answers_in
from inputs import Input, choose_tool, confuse, mutate, odd_host

PAGES = [b"/", b"/metrics", b"/live", b"/ready", b"/list", b"/api/status", b"/api/tools", b"/api/routes", b"/api/routes/@",
         b"/api/routes/", b"/api/rejected", b"/api/changes", b"/api/explain", b"/api", b"/api/",
         b"/api/nothing", b"/api/routes/@/x", b"/api/routes/%2f", b"/api/routes/%00", b"/api/routes/\xff",
         b"/api/routes/" + b"x" * 300, b"/list/", b"/list?x", b"//api//status", b"/api/../list", b"/metrics/..;/"]
NAMES = [b"search", b"sort", b"limit", b"kind", b"tool", b"cursor", b"after", b"host", b"uri", b"", b"LIMIT", b"%6cimit",
         b"limit[]", b"x" * 200, b"\0", b"%00"]
VALUES = [b"", b"0", b"1", b"2", b"50", b"1000", b"1001", b"-1", b"+1", b"01", b"1.0", b"1e3", b"18446744073709551615",
          b"18446744073709551616", b"99999999999999999999999", b" 1", b"1%20", b"tool", b"domain", b"redirect",
          b"rate", b"name", b"errors", b"latency", b"requests", b"@", b"%", b"%2", b"%zz", b"%00", b"%ff", b"\xff", b"\xc3\xa9",
          b"%c3%a9", b"+", b"a+b", b"a%2bb", b"=", b"a=b", b"%26", b"%0d%0aX:%20y", b"x" * 2000, b"\"", b"\\",
          b"<script>", b"*", b"tool:@", b"AAAA", b"dG9vbA==", b"/"]
ALLOWED = {200, 304, 400, 404, 405, 408, 413, 414, 431, 501, 503, 505}


def generate(random, lane, token):
    """An input for a page, or for an explanation if the model can tell what it should be."""
    if random.random() < 0.6:
        return explain(random, lane)
    page = random.choice(PAGES).replace(b"@", random.choice([b"alpha", b"gamma", b"nobody"]) + b"-" + lane.encode())
    query = b"&".join(random.choice(NAMES) + random.choice([b"=", b"=", b"=", b"",
                                                            b"=="]) + random.choice(VALUES) for _ in range(random.choice([0, 1, 1,
                                                                2, 5, 60])))
    target = page + (b"?" + query if query or random.random() < 0.1 else b"")
    method = random.choice([b"GET"] * 8 + [b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"get"])
    lines = [method + b" " + target + random.choice([b" HTTP/1.1"] * 6 + [b" HTTP/1.0"]),
             b"Host: admin"]
    lines += random.sample([b"If-None-Match: *", b"If-None-Match: \"x\"", b"If-None-Match: " + b"\"x\"," * 500,
                            b"Range: bytes=0-10", b"Range: bytes=-1", b"Range: bytes=0-0,2-3", b"Accept-Encoding: gzip",
                            b"If-Modified-Since: x",
                            b"Connection: close", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
                            b"Upgrade: websocket\r\nConnection: upgrade"],
                            random.choice([0, 0, 1, 2]))
    body = b"5\r\nhello\r\n0\r\n\r\n" if b"Transfer-Encoding: chunked" in lines else b"hello" if b"Content-Length: 5" in lines else b""
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    is_mutated = random.random() < 0.15
    if is_mutated:
        data = mutate(random, data)
    made = Input([data], "admin page", random.choice(["8081", "8082"]))
    made.judge = None if is_mutated else judge_page
    return made


def judge_page(made, data):
    """What is wrong with an answer, or nothing."""
    method = made.pieces[0].split(b" ")[0]
    data = data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not data:
        return "no answer"
    for answer in answers_in(data, [method]):
        if isinstance(answer, str) or answer[0] not in ALLOWED | {206, 416}:
            return f"answered {answer}"
        is_json = b"\r\nContent-Type: application/json" in data and b"\r\nContent-Encoding:" not in data
        if answer[0] == 200 and method == b"GET" and is_json:
            try:
                json.loads(body_of(data))
            except ValueError as error:
                return f"invalid JSON: {error}"
    return None


def body_of(data):
    head, _, data = data.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" not in head:
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        return data[:int(length[1])] if length else data
    body = b""
    while (size := re.match(rb"([0-9a-f]+)\r\n", data)) and int(size[1], 16):
        body += data[size.end():size.end() + int(size[1], 16)]
        data = data[size.end() + int(size[1], 16) + 2:]
    return body


def quoted(data):
    return b"".join(b"%%%02X" % byte if not chr(byte).isalnum() or byte > 127 else bytes([byte]) for byte in data)


def explain(random, lane):
    mode, host, prefix = choose_tool(random, lane)
    target = confuse(random, prefix, lane) if random.random() < 0.7 else prefix + b"/api/x"
    if random.random() < 0.3:
        host = odd_host(random, host, lane)
    data = b"GET /api/explain?host=" + quoted(host) + b"&uri=" + quoted(target) + b" HTTP/1.1\r\nHost: admin\r\n\r\n"
    made = Input([data], f"admin explain {host!r} {target!r}", "8082" if mode == "domain" else "8081")
    made.judge = judge_explanation
    made.asked = mode, host, target
    return made


def judge_explanation(made, data):
    """What the first decision says against the model, for a host and a path that nginx would take. Empty if they agree."""
    if wrong := judge_page(made, data):
        return wrong
    mode, host, target = made.asked
    if not data.startswith(b"HTTP/1.1 200 ") or not re.fullmatch(rb"[A-Za-z0-9.-]+(:\d{1,5})?",
                                                                 host) or b".." in host or host.startswith(b"."):
        return None
    name = re.sub(rb"\.?(:\d+)?\Z", b"", host).lower()
    is_tool = name == sites.PATH_HOST.encode() or (b"." + name).endswith(b"." + sites.SUBDOMAINS.encode())
    if is_tool == (mode == "domain"):
        return None
    if sites.normalized(target) in (b"/.well-known/healthz",
                                    ) or b"/.well-known/" in target or re.search(rb"/(favicon.ico|robots.txt)\Z",
                                    sites.normalized(target)):
        return None
    decisions = json.loads(body_of(data))["decisions"]
    first = next((one for one in decisions if one["server_matches"] is not False and one["location_matches"]), None)
    if first is None or first.get("redirect"):
        return None
    urls = [backend["url"] for backend in first["backends"]]
    route = sites.route(name, target)
    wanted = sites.urls_of("module", route[2], route[1]) if route else []
    return "" if sorted(urls) == sorted(wanted) else f"explained by {urls}, and it is for {wanted}"
