"""Malformed and odd HTTP/1: a few messages on one connection, most with a single oddity so that it gets far, some with many."""

from inputs import Input, choose_tool, confuse, mutate, odd_host

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"get", b"GE T",
           b"", b"G\0ET", b"PRI", b"X" * 40, b"GET\t",
           b"!#$%", b"M-SEARCH", b"A_B", b"\x80GET", b"LOCK", b"GET/"]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1", b"HTTP/1.",
            b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1.10", b"http/1.1", b"HTTP /1.1",
            b"HTTP/1.1 x", b"HTTP/1.1\t", b"HTTP/11.1", b"HTTP/-1.1", b"HTTPS/1.1", b"ICY/1.1", b"HTTP/1.1\0", b"HTTP/65536.1",
            b"HTTP/1.1 HTTP/1.1", None]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\0\r\n", b"\x0b\r\n"]
SEPARATORS = [b"  ", b"\t", b"\x0b", b"\0", b"", b"\r", b"\xa0", b" \t "]
HEADER_LINES = [
    b"X-A: b", b"X-A:b", b"X-A:", b"X-A : b", b"X-A\t: b", b" X-A: b", b"\tX-A: b", b"X-A", b":", b": x", b"", b"X-A: b\r\n folded",
    b"X-A: b\r\n\tfolded", b"X-A:\r\n b", b"X\0A: b", b"X-A: \0",
    b"X-A: a\rb", b"X-A: a\r\n\rb", b"X_A: b", b"X.A: b", b"X/A: b", b"X(A): b", b"X\x80: b", b"X-A: \x80\xff",
    b"X-A: \x01\x1f\x7f", b"\"X\": b", b"X-A: " + b"v" * 7000, b"X-A: " + b"v" * 9000,
    b"N" * 300 + b": v", b"N" * 8000 + b": v", b"Host : x", b"Host\r: x", b"hOST: x", b"X-A: b\nX-B: c", b"X-A: b\r\n\r\n",
    b"Connection: close", b"Connection: keep-alive",
    b"Connection: close, keep-alive", b"Connection: Host", b"Connection: Content-Length",
    b"Connection: Transfer-Encoding, X-Original-URI", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"Upgrade: websocket",
    b"Upgrade: WebSocket\r\nConnection: upgrade", b"Upgrade: websocket, h2c",
    b"Keep-Alive: timeout=0", b"Proxy-Connection: keep-alive", b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: 200-ok",
    b"Expect: 100-continue\r\nExpect: 100-continue", b"Expect:",
    b"TE: trailers", b"TE: chunked", b"Trailer: Content-Length", b"Range: bytes=0-1", b"Range: bytes=-1,-1,-1", b"Range: x",
    b"If-Range: \"x\"", b"If-Modified-Since: x", b"If-None-Match: *", b"If-Match: \"x\"",
    b"Accept-Encoding: gzip", b"Accept: application/json", b"Cookie: a=b\r\nCookie: c=d", b"User-Agent: y", b"User-Agent:",
    b"Referer: http://x/", b"Max-Forwards: 0", b"Via: 1.1 x", b"CDN-Loop: x",
    b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil", b"X-Original-URI: /x", b"X_Original_URI: /x", b"X-Original-URL: /x",
    b"X-Rewrite-URL: /x", b"Proxy: x", b"Forwarded: for=x", b"X-Accel-Redirect: /x",
    b"X-Accel-Buffering: no", b"X-HTTP-Method-Override: DELETE", b"Authorization: Basic eDp5", b"Content-Type: x",
    b"Content-Encoding: gzip", b"HTTP2-Settings: x", b"X-Real-IP: 1.2.3.4",
    b"Transfer-Encoding: identity", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked",
    b"\xef\xbb\xbfHost: x", b"Host: a\r\nHost: b", b"X: y" * 2000,
]
LENGTHS = [b"0", b"00", b"+5", b"-1", b"-5", b"5 ", b" 5", b"5,5", b"5, 6", b"0x5", b"5.0", b"5e0", b"", b" ", b"05", b"\t5",
           b"5\t", b"5;", b"5\0", b"\"5\"", b"99999999999999999999", b"9223372036854775807",
           b"9223372036854775808", b"18446744073709551621", b"4294967301", b"\xd9\xa5", b"5\r\n 5", b"five", b"10737418241", b"5 5"]
CODINGS = [b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked", b"chunked\t", b"xchunked", b"chunkedx",
           b"chunked, chunked", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"gzip",
           b"identity", b"", b"chunked;q=1", b"\"chunked\"", b"'chunked'", b"chunked\0", b"\0chunked", b"chunk\r\n ed",
           b"\r\n chunked", b"chunked\r\nTransfer-Encoding: identity",
           b"identity\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: chunked", b"\x0bchunked", b"chunked,",
           b",chunked", b"c\xc4\xa8unked", b"chunked\xa0", b"chun\x00ked"]
CODING_NAMES = [b"Transfer-Encoding", b"transfer-encoding", b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer_Encoding",
                b"Transfer-Encoding\t", b"X: y\nTransfer-Encoding", b"X: y\rTransfer-Encoding",
                b"Transfer-Encodin\xc7\xab", b"Transfer-Encoding\0", b"Foo: bar\r\n\tTransfer-Encoding"]
LENGTH_NAMES = [b"Content-Length", b"content-length", b"Content-Length ", b" Content-Length", b"Content_Length",
                b"Content-Length\t", b"X: y\nContent-Length", b"X: y\rContent-Length", b"Content-Length\0"]
CHUNK_SIZES = [b"5", b"05", b"0000000000000000000005", b"5;x", b"5;x=y", b"5; x=\"y\r\n\"", b"5 ", b" 5", b"5\t", b"+5", b"-5",
               b"0x5", b"5x", b"", b"FFFFFFFFFFFFFFFF", b"7fffffffffffffff", b"10000000000000005", b"5\r",
               b"5;" + b"x" * 5000, b"5;\0", b"5;x\ny", b"5\n", b"g", b"5,5", b"5\0", b"\xb5"]
CHUNK_ENDS = [b"\n", b"", b"\r", b"xx", b"\r\n\r\n", b"\0\r\n", b" \r\n"]
TRAILERS = [b"X-Trailer: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: evil\r\n",
            b"X: " + b"y" * 9000 + b"\r\n", b"bad\r\n", b" folded\r\n", b"\0\r\n", b"X: y\n", b":\r\n",
            b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 300]


def chunked(random, body, odd):
    out, place = b"", random.randrange(3) if odd else None
    parts = [body[:3], body[3:]] if len(body) > 3 else [body]
    for part in filter(None, parts):
        size = b"%x" % len(part)
        if place == 0:
            size = random.choice(CHUNK_SIZES)
        elif random.random() < 0.1:
            size += random.choice([b";x=y", b";x", b" ; x = \"y\""])
        out += size + b"\r\n" + part + (random.choice(CHUNK_ENDS) if place == 1 else b"\r\n")
    out += b"0" if place != 0 or random.random() < 0.7 else random.choice([b"00", b"0;x", b"000000000000000000000000", b"-0", b"0 ",
        b""])
    return out + b"\r\n" + (random.choice(TRAILERS) if place == 2 else b"") + b"\r\n"


def message(random, lane, token, oddities):
    """One request as bytes."""
    mode, host, prefix = choose_tool(random, lane)
    odd = set(random.choices(["method", "target", "version", "space", "line_end", "header", "host", "length", "coding", "both",
                              "chunks", "absolute", "headers", "no_host", "body"],
                             [2, 7, 2, 2, 2, 8, 6, 3, 3, 4, 4, 5, 1, 1, 2], k=oddities))
    method = random.choice(METHODS) if "method" in odd else random.choice([b"GET", b"GET", b"GET", b"POST", b"POST", b"HEAD",
        b"PUT"])
    target = confuse(random, prefix, lane) if "target" in odd else prefix + b"/p?" + token
    if "absolute" in odd:
        other = odd_host(random, host, lane) if random.random() < 0.5 else host
        if random.random() < 0.5:
            host = odd_host(random, host, lane)
        scheme = random.choice([b"http://", b"https://", b"HTTP://", b"hTtPs://", b"ftp://", b"ws://", b"http:/", b"http:", b"//",
                                b"http:///", b"h\0ttp://", b"http://u:p@", b"1http://"])
        target = scheme + other + target
    version = random.choice(VERSIONS) if "version" in odd else b"HTTP/1.1"
    space = random.choice(SEPARATORS) if "space" in odd else b" "
    line = method + space + target + (b"" if version is None else b" " + version)
    lines = [line]
    if "no_host" not in odd:
        lines.append(random.choice([b"Host:", b"Host: ", b"host: "]) + (odd_host(random, host, lane) if "host" in odd else host))
        if "host" in odd and random.random() < 0.2:
            lines.append(b"Host: " + random.choice([host, odd_host(random, host, lane)]))
    lines += [b"User-Agent: t", b"X-Token: " + token]
    if "header" in odd:
        for _ in range(random.choice([1, 1, 2])):
            lines.insert(random.randrange(1, len(lines) + 1), random.choice(HEADER_LINES))
    if "headers" in odd:
        lines += random.choice([[b"X-%d: %s" % (number, b"v" * 50) for number in range(random.choice([20, 100, 600]))],
                                [b"X: " + b"v" * 7900] * random.choice([2, 4, 5])])
    body = random.choice([b"hello", b"GET %s/smuggled HTTP/1.1\r\nHost: %s\r\nX-Token: %s\r\n\r\n" % (prefix, host, token),
                          b"0\r\n\r\n", b"", b"b" * 20000])
    if "both" in odd:
        fields = [random.choice(LENGTH_NAMES) + b": " + random.choice(LENGTHS + [b"%d" % len(body)] * 20),
                  random.choice(CODING_NAMES) + b": " + random.choice(CODINGS + [b"chunked"] * 20)]
        random.shuffle(fields)
        lines += fields
        body = chunked(random, body, "chunks" in odd)
    elif "coding" in odd or "chunks" in odd or (method in (b"POST", b"PUT") and random.random() < 0.4):
        coding = random.choice(CODINGS) if "coding" in odd else b"chunked"
        name = random.choice(CODING_NAMES) if "coding" in odd and random.random() < 0.4 else b"Transfer-Encoding"
        lines.append(name + b": " + coding)
        body = chunked(random, body, "chunks" in odd)
    elif "length" in odd:
        lines.append((random.choice(LENGTH_NAMES) if random.random() < 0.4 else b"Content-Length") + b": " + random.choice(LENGTHS))
        if random.random() < 0.2:
            lines.append(b"Content-Length: %d" % len(body))
    elif method in (b"POST", b"PUT") or "body" in odd:
        lines.append(b"Content-Length: %d" % (len(body) + (random.choice([-1, 1, 5, 40]) if "body" in odd and body else 0)))
    else:
        body = b""
    ends = [b"\r\n"] * (len(lines) + 1)
    if "line_end" in odd:
        ends[random.randrange(len(ends))] = random.choice(LINE_ENDS)
    return b"".join(part + end for part, end in zip(lines + [b""], ends)) + body, host, "+".join(sorted(odd)) or "proper"


def generate(random, lane, token):
    parts, kinds, name = [], [], None
    for _ in range(random.choice([1, 1, 1, 1, 2, 2, 3])):
        data, host, kind = message(random, lane, token, random.choice([0, 1, 1, 1, 1, 1, 1, 2, 3]))
        name = name or host
        parts.append(data)
        kinds.append(kind)
    data = b"".join(parts)
    prior = random.random()
    if prior < 0.02:
        data = random.choice([b"\r\n", b"\n", b"\r\n\r\n\r\n", b"\0", b" ", b"\r", b"\x16\x03\x01\x02\x00"]) + data
        kinds.append("prior bytes")
    elif prior < 0.03:
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.choice([b"\0\0\0\4\0\0\0\0\0", b"", data])
        kinds.append("preface of HTTP/2")
    elif prior < 0.04:
        data = random.choice([b"GET %s\r\n", b"GET %s\n", b"GET  %s \r\n", b"POST %s\r\n"]) % confuse(random,
            choose_tool(random, lane)[2], lane) + random.choice([b"", data])
        kinds.append("HTTP/0.9")
    if random.random() < 0.15:
        data = mutate(random, data)
        kinds.append("mutated")
    if random.random() < 0.06 and data:
        data = data[:random.randrange(1, len(data) + 1)]
        kinds.append("cut off")
    pieces = [data]
    if random.random() < 0.1:
        kinds.append("slow")
        pieces = []
        while data and len(pieces) < 40:
            size = random.choice([1, 1, 2, 10, 100, 1000])
            pieces += [data[:size], random.choice([0, 0.001, 0.003])]
            data = data[size:]
        pieces.append(data)
    name = name.decode("latin-1")
    proper = name.isascii() and name.replace(".", "").replace("-",
                                             "").isalnum() and ".." not in name and len(name) < 60 and not name.startswith(".")
    protocol = "http/1.1"
    if random.random() < 0.04:
        protocol = None
        kinds.append("port 80")
    return Input(pieces, "HTTP/1 " + ", ".join(kinds), protocol, name if proper else "tools.example.org")
