"""A tool that is a hostile backend: responses that try to become another tool's, or to steer the proxy."""

from backends import Plan
from exchange import DATA, HEADERS, PREFACE, SETTINGS, frame, host_of
from http2 import END_HEADERS, END_STREAM, literal
from inputs import Input

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Tool: forged\r\n\r\nforged"
SWITCH = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def with_headers(*lines, body=b"evil", status=b"200 OK", length=None):
    head = [b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % (len(body) if length is None else length)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def plans(random):
    """All kinds, one of which is taken at random."""
    interim = b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"
    accel = random.choice([b"X-Accel-Redirect: /beta/", b"X-Accel-Redirect: /.well-known/urlproxy/error/page.html",
                           b"X-Accel-Redirect: @urlproxy_default_file", b"X-Accel-Expires: 99", b"X-Accel-Limit-Rate: 1",
                           b"X-Accel-Charset: utf-7", b"X-Accel-Buffering: no", b"X-Accel-Mapping: /=/etc/",
                           b"X-Sendfile: /etc/passwd"])
    lines = random.choice([b"X: a\rb", b"X: a\r\n folded", b"X : y", b": y", b"X", b"X: \0", b"\0: x", b" X: y",
                           b"X: " + b"v" * 70000, b"Content-Length: 4\r\nContent-Length: 5", b"Transfer-Encoding: chunked",
                           b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked", b"Connection: close",
                           b"Connection: upgrade\r\nUpgrade: h2c", b"Location: /beta/\r\nX: y",
                           b"Set-Cookie: a=b\r\nSet-Cookie: c=d",
                           b"Strict-Transport-Security: max-age=0", b"Clear-Site-Data: *", b"Alt-Svc: h2=\"evil:443\"", b"Date: x",
                           b"Server: x", b"Content-Encoding: gzip", b"Trailer: X", b"Link: </x>; rel=preload",
                           b"Refresh: 0;url=http://tools.example.org/", b"Content-Type: text/html; charset=\"", b"ETag: x",
                           b"Last-Modified: x", b"X-Tool: forged"])
    size = random.choice([b"4", b"004", b"4;x=y", b"5", b"3", b"-4", b"0x4", b"FFFFFFFFFFFFFFFFF", b"g", b"", b"7fffffffffffffff"])
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nevil\r\n"
    return [
        Plan("two responses", [OK + FORGED]),
        Plan("two responses, apart", [OK, 0.002, FORGED]),
        Plan("two responses, then closed", [OK + FORGED], close=True),
        Plan("a response before the body", [OK], before_body=True),
        Plan("two before the body", [OK + FORGED], before_body=True, close=True),
        Plan("longer than said", [with_headers(body=b"evil" + FORGED, length=4)]),
        Plan("shorter than said, then closed", [with_headers(length=40)], close=True),
        Plan("no length", [b"HTTP/1.1 200 OK\r\n\r\nevil" + FORGED], close=True),
        Plan("no length, HTTP/1.0", [b"HTTP/1.0 200 OK\r\n\r\nevil" + FORGED], close=True),
        Plan("204 with a body", [with_headers(body=FORGED, status=b"204 No Content")]),
        Plan("304 with a body", [with_headers(body=FORGED, status=b"304 Not Modified")]),
        Plan("205 with a body", [with_headers(body=FORGED, status=b"205 Reset Content")]),
        Plan("status of four digits", [with_headers(body=FORGED, status=b"2000 OK")], refused=True),
        Plan("status 999", [with_headers(status=random.choice([
            b"999 X", b"600", b"444 X", b"499 X", b"494 X", b"497 X", b"421 X", b"426 X"]))]),
        Plan("odd reason", [with_headers(status=random.choice([b"200", b"200 ", b"200 \x80\xff", b"200 " + b"x" * 2000]))]),
        Plan("chunks", [chunk + random.choice([
            b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0;x\r\n\r\n", b"0\r\n\r\n" + FORGED, b"00\r\n\r\n", b"x\r\n"])], close=True),
        Plan("chunks and a length", [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nevil\r\n0\r\n\r\n" + random.choice([b"", FORGED])], close=True),
        Plan("chunks, cut off", [chunk], close=True),
        Plan("chunks and HTTP/1.0", [b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"], close=True),
        Plan("closed at once", [], close=True),
        Plan("half a head", [b"HTTP/1.1 200 OK\r\nX: y"], close=True),
        Plan("a header line", [with_headers(lines)], close=True),
        Plan("a header for the proxy", [with_headers(accel)]),
        Plan("a head too large", [with_headers(b"X: y\r\n" * 4000)], close=True),
        Plan("interim", [interim + OK], refused=True),
        Plan("interim, apart", [interim, 0.002, OK], refused=True),
        Plan("a flood of interim responses", [interim * 2000 + OK], refused=True, close=True),
        Plan("100 Continue", [b"HTTP/1.1 100 Continue\r\n\r\n" + OK], refused=True),
        Plan("101, not asked", [SWITCH + FORGED], refused=True, close=True),
        Plan("101, asked", [SWITCH + b"tunnel" + FORGED], upgrade=True, close=True),
        Plan("a status below 200", [with_headers(status=random.choice([b"000 X", b"099 X", b"199 X", b"102 X"]), body=FORGED)],
             refused=True, close=True),
        Plan("no status line",
             [random.choice([b"evil" + FORGED, b"\r\n" + OK, b"\n" + OK, b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20\r\n\r\n",
                             b"HTTP/1.1 2x0 OK\r\n\r\nx", b"HTTP/1.1 200OK\r\n\r\nx", b"\0" + OK, b"ICY 200 OK\r\n\r\n",
                             b"SSH-2.0-x\r\n",
                                                b"HTTP/1.1 200\tOK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\nx", b"\x16\x03\x01\x00\x02\x02\x28", b"\0\0\x12\4\0\0\0\0\0"])], refused=True, close=True),
    ]


def generate(random, lane, token):
    """A request to `evil`, then on the same connection requests to others, which have to get their own answers or none."""
    plan = random.choice(plans(random))
    method, body = random.choice([(b"GET", b""), (b"GET", b""), (b"HEAD", b""), (b"POST", b"hello")])
    asked = [(method, "evil", b"/", body), (b"GET", "twin", b"/after", b""), (b"GET", "alpha", b"/after", b"")]
    if plan.upgrade:
        # In a tunnel, the requests to others are bytes for `evil`.
        data = http1_requests(random, lane, token, [(b"GET", "evil", b"/", b"")])
        data = data.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n") + http1_requests(random, lane,
                            token, asked[1:])
        return Input([data], f"hostile backend: {plan.name}", plan=plan)
    make = {"http/1.1": http1_requests, "h2": http2_requests}
    protocol = random.choices(list(make), [7, 3])[0]
    data = make[protocol](random, lane, token, asked)
    # A request body against an early response is a race.
    return Input([data], f"hostile backend: {plan.name}, {protocol}", protocol, plan=plan, loose=plan.before_body,
                 methods=tuple(one[0] for one in asked))


def http1_requests(random, lane, token, asked):
    data = b""
    for method, tool, path, body in asked:
        host, prefix = host_of(random.choice(["path", "subdomain"]), tool, lane)
        lines = [b"%s %s%s HTTP/1.1" % (method, prefix.encode(), path), b"Host: " + host.encode(), b"User-Agent: t",
                 b"X-Token: " + token]
        if body:
            lines.append(b"Content-Length: %d" % len(body))
        data += b"\r\n".join(lines) + b"\r\n\r\n" + body
    return data


def http2_requests(random, lane, token, asked):
    data = PREFACE + frame(SETTINGS)
    for number, (method, tool, path, body) in enumerate(asked):
        host, prefix = host_of(random.choice(["path", "subdomain"]), tool, lane)
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", host.encode()), (b":path", prefix.encode() + path),
                  (b"user-agent", b"t"), (b"x-token", token)]
        data += frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), 2 * number + 1, literal(fields))
        if body:
            data += frame(DATA, END_STREAM, 2 * number + 1, body)
    return data
