"""Request smuggling and path confusion, case by case: what both proxies answer, and which backends get how many requests."""

import re
from urllib.parse import urlsplit

import sites
from exchange import HEADERS, DATA, PREFACE, SETTINGS, frame
from http2 import END_HEADERS, END_STREAM, literal
from inputs import CONFUSING_PATHS, Input

HOST = b"tools.example.org"


def cases(lane):
    """Name, bytes, expected requests by backend, and statuses. @A, @B are paths of tools, @S is a request to @B."""
    end = b"\r\n\r\n"
    proper = b" HTTP/1.1\r\nHost: " + HOST + b"\r\nUser-Agent: t\r\nX-Token: corpus"
    path_a, path_b = f"/alpha-{lane}".encode(), f"/beta-{lane}".encode()
    smuggled = b"GET " + path_b + b"/smuggled" + proper + end
    length = b"Content-Length: %d" % len(smuggled)
    chunks = b"%x\r\n" % len(smuggled) + smuggled + b"\r\n0\r\n\r\n"
    after = b"GET " + path_a + b"/after" + proper + b"\r\nConnection: close" + end

    def post(*lines, body=b"", path=path_a + b"/x", method=b"POST", then=b""):
        return b"\r\n".join([method + b" " + path + proper, *lines]) + end + body + then

    none, once = {}, {"alpha": 1}
    te, cl = b"Transfer-Encoding: chunked", b"Content-Length: "
    # Two lengths, in both orders.
    yield "CL.TE", post(cl + b"%d" % (5 + len(smuggled)), te, body=b"0\r\n\r\n" + smuggled), none, [400]
    yield "TE.CL", post(te, cl + b"4", body=chunks), none, [400]
    yield "CL.CL", post(cl + b"0", length, body=smuggled), none, [400]
    yield "CL.CL alike", post(length, length, body=smuggled), none, [400]
    yield "CL list", post(length + b", %d" % len(smuggled), body=smuggled), none, [400]
    yield "TE.TE", post(te, b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + smuggled), none, [400]
    yield "TE twice", post(te, te, body=chunks), none, [400]
    for number in (b"+%d", b"-%d", b" %d ", b"%d ", b"0%d", b"%d\t", b"%d,", b"%d;", b"0x%d", b"%d.0", b"99%d"):
        wanted = (once, [200, 200]) if number in (b" %d ", b"%d ", b"0%d") else (none, [400])
        if number == b"99%d":
            # The backend waits for the rest of the body.
            wanted = (once, [])
        yield f"length {number}", post(cl + number % len(smuggled), body=smuggled, then=after), \
            {"alpha": 2} if wanted[1] == [200, 200] else wanted[0], wanted[1]
    # With a coding that one side may not see as chunked, a length beside it, and a request where the other side would look for one.
    for coding, wanted in [(b"xchunked", 501), (b"chunked, identity", 501), (b"identity", 501), (b"gzip, chunked", 501),
                           (b"\"chunked\"", 501), (b"chunked;q=1", 501), (b"Chunked", 400), (b"", 501)]:
        yield f"obfuscated with length {coding}", post(length, b"Transfer-Encoding: " + coding, body=smuggled), none, [wanted]
    for coding, wanted in [(b"xchunked", 501), (b"chunked, identity", 501), (b"identity", 501), (b"gzip, chunked", 501),
                           (b"chunked, chunked", 501), (b"\"chunked\"", 501), (b"chunked;q=1", 501), (b"\x0bchunked", 501),
                           (b"chunked\x0b", 501), (b"chunked,", 501), (b"", 501)]:
        yield f"obfuscated {coding}", post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n" + smuggled), none, [wanted]
    # Not a header that counts, or none at all: the length counts.
    for name in (b"Transfer_Encoding", b"Transfer-Encoding\t", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer-Encoding ",
                 b"X: y\rTransfer-Encoding", b"Transfer.Encoding", b"\x00Transfer-Encoding"):
        wanted = ({"alpha": 2}, [200, 200]) if name in (b"Transfer_Encoding", b"Transfer.Encoding") else (none, [400])
        yield f"name {name}", post(length, name + b": chunked", body=smuggled, then=after), *wanted
    yield "bare line feed before the coding", post(length, b"X: y\nTransfer-Encoding: chunked", body=smuggled), none, [400]
    yield "folded coding", post(length, b"Transfer-Encoding:\r\n chunked", body=smuggled), none, [400]
    yield "coding in HTTP/1.0", post(te, body=chunks).replace(b"HTTP/1.1", b"HTTP/1.0", 1), none, [400]
    # Chunks.
    yield "chunks", post(te, body=chunks, then=after), {"alpha": 2}, [200, 200]
    for size in (b"0x5", b"+5", b"-5", b"5x", b" 5", b"", b"g", b"10000000000000005", b"FFFFFFFFFFFFFFFFF"):
        yield f"chunk size {size}", post(te, body=size + b"\r\nhello\r\n0\r\n\r\n" + smuggled), none, [400]
    yield "chunk extension with a line feed", post(te, body=b"5;x\nhello\r\n0\r\n\r\n", then=after), {"alpha": 2}, [200, 200]
    yield "chunk end by line feed", post(te, body=b"5\nhello\n0\n\n", then=after), {"alpha": 2}, [200, 200]
    yield "chunk longer than its size", post(te, body=b"5\r\nhelloxx\r\n0\r\n\r\n", then=after), none, [400]
    yield "trailer", post(te, body=b"5\r\nhello\r\n0\r\nContent-Length: 99\r\nHost: evil\r\n\r\n", then=after), {"alpha": 2}, [200,
                          200]
    # A body that the one who answers does not want: it is no request. CL.0
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE"):
        yield f"CL.0 {method}", post(length, body=smuggled, then=after, method=method), {"alpha": 2}, [200, 200]
        yield f"TE.0 {method}", post(te, body=chunks, then=after, method=method), {"alpha": 2}, [200, 200]
    for path, status in [(b"/.well-known/healthz", 200), (b"/nobody/", 503), (b"/favicon.ico", 200),
                         (b"/.well-known/urlproxy/error/page.html", 404)]:
        for kind, lines, body in (("CL.0", length, smuggled), ("TE.0", te, chunks)):
            yield f"{kind} {path}", post(lines, body=body, then=after, path=path, method=b"GET"), once, [status, 200]
    yield "CL.0 without User-Agent", post(length, body=smuggled, then=after).replace(b"User-Agent: t", b"X-Agent: t",
                                          1), once, [403, 200]
    yield "CL.0 expected", post(length, b"Expect: 100-continue", body=smuggled, then=after), {"alpha": 2}, [100, 200, 200]
    yield "CL.0 upgrade", post(length, b"Upgrade: websocket", b"Connection: upgrade", body=smuggled, then=after,
                               method=b"GET"), {"alpha": 2}, [200, 200]
    yield "h2c", post(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk", then=after,
                      method=b"GET"), {"alpha": 2}, [200, 200]
    yield "lengths named in Connection", post(length, b"Connection: keep-alive, Content-Length, Host", body=smuggled,
                                              then=after), {"alpha": 2}, [200, 200]
    # Line ends in the path and the host.
    for path in (b"/%0d%0aX-Injected:%20yes", b"/%0d%0a%0d%0aGET%20" + path_b + b"/%20HTTP/1.1", b"/%0a",
                 b"/%E5%98%8A%E5%98%8DX:%20y", b"/?%0d%0aX:%20y", b"/%00"):
        wanted = (none, [400]) if path == b"/%00" else (once, [200])
        yield f"path {path}", post(path=path_a + path, method=b"GET"), *wanted
    for host, status in [(b"%0d%0aX:%20y", 404), (b"\rX: y", 400), (b"\0", 400), (b" x", 400), (b"/x", 400),
                         (b"@beta-%s.toolforge.org" % lane.encode(), 503)]:
        yield f"host {host}", post(method=b"GET").replace(b"Host: " + HOST, b"Host: " + HOST + host, 1), none, [status]
    # Which tool a path is for.
    both = {"alpha": ({"alpha": 1}, [200]), "beta": ({"beta": 1}, [200]), "miss": (none, [503]), "bad": (none, [400])}
    for path, wanted in [
            (b"@A%2f..%2f~/", "beta"), (b"@A/..%2f~/", "beta"), (b"@A/%2e%2e/~/", "beta"), (b"@A/.%2E/~/", "beta"),
            (b"/@A/", "alpha"), (b"//@A//x", "alpha"), (b"@A/..;/~/", "alpha"), (b"@A;/../~/", "beta"),
            (b"@A;/x", "miss"), (b"@A/%252e%252e/~/", "alpha"), (b"@A%252f..%252f~/", "miss"), (b"@A\\..\\~/", "miss"),
            (b"\\@A/", "bad"), (b"@A/..\\~/", "alpha"), (b"@A/%5c..%5c~/", "alpha"),
            (b"/ALPHA-%s/" % lane.encode(), "miss"), (b"@A./", "miss"), (b"@A%20/", "miss"), (b"@A%00/", "bad"),
            (b"@A%0a/", "miss"), (b"/%%61lpha-%s/" % lane.encode(), "alpha"), (b"@A/../../~/", "bad"),
            (b"@A?/../~/", "alpha"), (b"@A#/../~/", "alpha"), (b"@A/x#/../../~/", "alpha"), (b"@A%3f/../~/", "beta"),
            (b"@A%23/../~/", "beta"), (b"/~/..@A/", "alpha"), (b"/./@A/./", "alpha"), (b"@A/...//~/", "alpha"),
            (b"@A/%c0%ae%c0%ae/~/", "alpha"), (b"@A/\xff/../../~/", "beta"), (b"*", "bad"), (b"@A/%", "bad"), (b"@A/%zz", "bad")]:
        sent = path.replace(b"@A", path_a).replace(b"~", path_b[1:])
        yield f"path {path}", post(path=sent, method=b"GET"), *both[wanted]
    sub_a, sub_b = f"alpha-{lane}.toolforge.org".encode(), f"beta-{lane}.toolforge.org".encode()
    for host, wanted in [(sub_a + b".", "alpha"), (sub_a + b":443", "alpha"), (sub_a + b":1", "alpha"), (sub_a + b".:443", "alpha"),
                         (sub_a.upper(), "alpha"), (b"x." + sub_a, "miss"), (sub_a + b"..", "bad"),
                         (sub_a + b"," + sub_b, "miss"), (sub_a + b":443:443", "alpha"), (sub_a + b"@" + sub_b, "miss"),
                         (b"a@" + sub_b, "miss"), (sub_a + b"#." + sub_b, "miss"), (sub_a + b"?", "domain")]:
        wanted = (none, [404]) if wanted == "domain" else both[wanted]
        yield f"host {host}", post(path=b"/x", method=b"GET").replace(b"Host: " + HOST, b"Host: " + host, 1), *wanted
    # The absolute URI counts, not the header.
    for target, wanted in [(b"http://" + sub_b + b"/", "beta"), (b"HTTPS://" + sub_b, "beta"),
                           (b"http://" + sub_b + b":80/", "beta"), (b"http://" + HOST + path_b + b"/", "beta"),
                           (b"http://u:p@" + sub_b + b"/", "bad"),
                           (b"http:/" + sub_b + b"/", "bad"), (b"//" + sub_b + b"/", "alpha"), (b"http:///" + sub_b, "bad"),
                           (b"http://" + sub_b + b"?/../", "beta")]:
        yield f"absolute {target}", post(path=target, method=b"GET").replace(b"Host: " + HOST, b"Host: " + sub_a, 1), *both[wanted]
    yield "two hosts", post(b"Host: " + sub_b, method=b"GET"), none, [400]
    yield "no host", b"GET " + path_a + b"/ HTTP/1.0\r\nUser-Agent: t\r\n\r\n", none, [400]
    yield "no host, HTTP/1.1", b"GET " + path_a + b"/ HTTP/1.1\r\nUser-Agent: t\r\n\r\n", none, [400]


def http2_cases(lane):
    """The same for what is translated from HTTP/2. No status: the stream or the connection ends without a response."""
    smuggled = b"GET /beta-%s/smuggled HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: t\r\n\r\n" % lane.encode()
    path = b"/alpha-%s/x" % lane.encode()

    def ask(*extra, body=None, method=b"POST", path=path, authority=HOST, scheme=b"https"):
        fields = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path), (b"user-agent", b"t"),
                  *extra]
        if authority is None:
            del fields[2]
        data = frame(HEADERS, END_HEADERS | (END_STREAM if body is None else 0), 1, literal(fields))
        return PREFACE + frame(SETTINGS) + data + (b"" if body is None else frame(DATA, END_STREAM, 1, body))

    none, once = {}, {"alpha": 1}
    # The backend may get a request whose body never comes, and its connection is closed.
    yield "H2.CL 0", ask((b"content-length", b"0"), body=smuggled), None, [400]
    yield "H2.CL short", ask((b"content-length", b"5"), body=smuggled), None, [400]
    yield "H2.CL long", ask((b"content-length", b"%d" % (len(smuggled) + 9)), body=smuggled), None, [400]
    yield "H2.CL bad", ask((b"content-length", b"5,5"), body=b"hello"), none, [400]
    yield "H2.CL twice", ask((b"content-length", b"5"), (b"content-length", b"5"), body=b"hello"), none, [400]
    yield "H2.TE", ask((b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n" + smuggled), once, [200]
    yield "H2.TE and length", ask((b"transfer-encoding", b"chunked"), (b"content-length", b"%d" % (5 + len(smuggled))),
                                  body=b"0\r\n\r\n" + smuggled), none, [400]
    for name, value in [(b"x", b"y\r\ntransfer-encoding: chunked"), (b"x", b"y\ntransfer-encoding: chunked"), (b"x", b"y\0"),
                        (b"transfer-encoding", b"chunked\r\nx: y"), (b"x\r\ny", b"z"),
                        (b"x: y\r\ntransfer-encoding", b"chunked"), (b"x y", b"z"), (b"X-Upper", b"y")]:
        yield f"H2 field {name} {value}", ask((name, value), method=b"GET"), none, []
    for bad in (b" HTTP/1.1\r\nX: y", b"\r\n", b"\n", b" x", b"\0", b"\t"):
        yield f"H2 path {bad}", ask(path=path + bad, method=b"GET"), none, [400] if bad in (b" x", b"\t") else []
    yield "H2 path without slash", ask(path=path[1:], method=b"GET"), none, [400]
    for method in (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET", b"GET ", b"get", b""):
        yield f"H2 method {method}", ask(method=method), none, [] if b"\r" in method else [400]
    for scheme in (b"https://beta-%s.toolforge.org/?" % lane.encode(), b"http", b"h ttp"):
        yield f"H2 scheme {scheme}", ask(method=b"GET", scheme=scheme), *((once, [200]) if scheme == b"http" else (none, [400]))
    yield "H2 authority against host", ask((b"host", b"beta-%s.toolforge.org" % lane.encode()), method=b"GET"), none, [400]
    yield "H2 authority twice in host", ask((b"host", HOST), method=b"GET"), none, [400]
    yield "H2 host alone", ask((b"host", HOST), method=b"GET", authority=None), once, [200]
    yield "H2 no host", ask(method=b"GET", authority=None), none, [400]
    yield "H2 connection", ask((b"connection", b"content-length"), (b"upgrade", b"h2c"), method=b"GET"), once, [200]


STATUS = re.compile(rb"(?:\A|[^ ])HTTP/1\.1 (\d{3}) ")


def outcome(made, result):
    """The requests by backend and the statuses, as expected ones are written."""
    requests = {}
    for name, *_ in result["backends"]:
        requests[name] = requests.get(name, 0) + 1
    client = result["client"]
    if made.protocol == "h2":
        events = client["streams"].get(1, []) if isinstance(client, dict) else []
        statuses = [int(dict(event[1])[b":status"]) for event in events if event[0] == "headers"]
    else:
        # A proper answer repeats the request line, so a version is within the body too, after a space.
        statuses = [int(status) for status in STATUS.findall(client["data"])]
    return requests, statuses


def meets(made, result):
    """Whether it is as expected. Whatever else is asked, no smuggled request may have been answered or passed on."""
    requests, statuses = outcome(made, result)
    if any(b"/smuggled HTTP/1.1" in head.split(b"\r\n")[0] for _, head, *_ in result["backends"]):
        return False
    return (requests, statuses) == made.expected


async def check(run):
    lane = run.lanes[0]
    count = 0
    for protocol, some in (("http/1.1", cases(lane)), ("h2", http2_cases(lane))):
        for name, data, requests, statuses in some:
            made = Input([data], f"corpus: {name}", protocol, loose=requests is None,
                         expected=(requests or {}, statuses))
            await run.both(lane, made, b"corpus")
            count += 1
    count += await check_redirects(run, lane)
    print(f"hostile: {count} cases of the corpus", flush=True)


async def check_redirects(run, lane):
    """Redirects of the module lead to the one host that they are for, to the same path, and write one header."""
    count = 0
    for path in CONFUSING_PATHS:
        for host, prefix, wanted, owner in (
                (sites.PATH_HOST, f"/canon-{lane}", f"canon-{lane}.{sites.SUBDOMAINS}", f"canon-{lane}"),
                (f"site-{lane}.{sites.MOVED_FROM}", "", f"site-{lane}.{sites.MOVED_TO}", None)):
            target = path.replace(b"~", b"x").replace(b"@", prefix.encode())
            if not target.startswith(b"/") or re.search(rb"[\0-\x20\x7f]", target):
                continue
            data = b"GET " + target + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUser-Agent: t\r\n\r\n"
            for quiet in (0.05, 1, 5):
                result = await run.one("module", lane, Input([data], "corpus: redirect"), b"corpus", quiet)
                if result["client"]["data"]:
                    break
            head = result["client"]["data"].split(b"\r\n\r\n")[0]
            count += 1
            route = sites.route(host.encode(), target) if owner else True
            if not head.startswith((b"HTTP/1.1 307 ", b"HTTP/1.1 301 ")):
                invalid = head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 "))
                refused = invalid or head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 503 ")) or re.search(rb"/\.well-known/|\.txt|\.ico", target)
                if not refused or (owner and route and route[0] == owner and not invalid):
                    run.find(f"redirect: {target[:300]!r} of {host} was answered {head[:300]!r}")
                continue
            locations = re.findall(rb"(?m)^Location: (.*)\r$", head + b"\r\n")
            url = urlsplit(locations[0].decode("latin-1")) if len(locations) == 1 else None
            rest = sites.normalized(target)[len(prefix):] or b"/"
            if not url or url.scheme != "https" or url.netloc != wanted or b"X-Injected" in head.replace(locations[0], b"") \
                    or sites.normalized(url.path.encode("latin-1")) != rest:
                run.find(f"redirect: {target[:300]!r} of {host} leads to {locations!r}: {head[:300]!r}")
    # A redirected request has a body, which is no request: CL.0.
    smuggled = b"GET /beta-%s/smuggled HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: t\r\n\r\n" % lane.encode()
    after = smuggled.replace(b"/beta-%s/smuggled" % lane.encode(), b"/alpha-%s/after" % lane.encode())
    for line, body in ((b"Content-Length: %d" % len(smuggled), smuggled),
                       (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled))):
        head = b"POST /canon-%s/ HTTP/1.1\r\nHost: tools.example.org\r\nUser-Agent: t\r\n%s\r\n\r\n" % (lane.encode(), line)
        data = head + body + after
        made = Input([data], "corpus: body of a redirected request")
        for quiet in (0.05, 1, 5):
            result = await run.one("module", lane, made, b"corpus", quiet)
            if outcome(made, result) == ({"alpha": 1}, [307, 200]):
                break
        else:
            run.find(f"{made.kind}: {line}: {outcome(made, result)}")
        count += 1
    return count
