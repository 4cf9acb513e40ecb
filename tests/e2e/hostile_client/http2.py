"""Malformed and odd HTTP/2: proper requests between hand-made frames, pseudo-headers and header blocks that break the rules."""

import hpack

from exchange import (CONTINUATION, DATA, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
                      WINDOW_UPDATE,
                      frame)
from inputs import Input, choose_tool, confuse, mutate, odd_host

END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 1, 4, 8, 32


def integer(value, prefix, first=0):
    """HPACK's integers, RFC 7541 section 5.1."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes(out + [value])


def literal(fields):
    """A header block without compression, for names and values that no encoder takes."""
    return b"".join(b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value for name, value in fields)


def encode(random, fields):
    if random.random() < 0.4:
        try:
            return hpack.Encoder().encode(fields, huffman=random.random() < 0.7)
        except (ValueError, TypeError):
            pass
    return literal(fields)


ODD_FIELDS = [
    (b"Upper", b"x"), (b"", b"x"), (b"x", b""), (b":unknown", b"x"), (b":status", b"200"), (b":protocol", b"websocket"),
    (b"connection", b"close"), (b"connection", b"upgrade"), (b"keep-alive", b"x"),
    (b"proxy-connection", b"x"), (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity"),
    (b"upgrade", b"websocket"), (b"upgrade", b"h2c"), (b"te", b"trailers"), (b"te", b"chunked"),
    (b"host", b"other.example.org"), (b"host", b""), (b"http2-settings", b"x"), (b"content-length", b"5"),
    (b"content-length", b"0"), (b"content-length", b"-1"), (b"content-length", b"x"),
    (b"content-length", b"5, 5"), (b"expect", b"100-continue"), (b"x", b"a\r\nx-injected: y"), (b"x", b"a\nb"), (b"x", b"a\rb"),
    (b"x", b"\0"), (b"x\r\ny", b"z"), (b"x: y", b"z"), (b"x y", b"z"), (b"x\0", b"z"),
    (b"x_y", b"z"), (b"x", b" lead"), (b"x", b"trail "), (b"x", b"\x80\xff"), (b"\x80", b"x"), (b"x", b"v" * 9000),
    (b"n" * 9000, b"v"), (b"cookie", b"a=b"), (b"cookie", b"\r\n"), (b"cookie", b""),
    (b"x-forwarded-for", b"1.2.3.4"), (b"x-original-url", b"/x"), (b"proxy", b"x"), (b"user-agent", b"second"),
    (b"accept-encoding", b"gzip"), (b"range", b"bytes=0-1"), (b"priority", b"u=9"), (b":", b"x"),
    (b"transfer-encoding\r\n", b"chunked"), (b"transfer-encoding", b"chunked\r\nx: y"), (b"trailer", b"x"),
    (b"accept", b"application/json"), (b"x-accel-redirect", b"/x"),
]


def fields_of(random, lane, token, odd):
    """The fields of a request, with the body that goes with them, or None."""
    _, host, prefix = choose_tool(random, lane)
    method = random.choice([b"GET", b"GET", b"HEAD", b"POST"])
    path = confuse(random, prefix, lane) if "path" in odd else prefix + b"/p?" + token
    pseudo = [[b":method", method], [b":scheme", b"https"], [b":authority", host], [b":path", path]]
    rest = [[b"user-agent", b"t"], [b"x-token", token]]
    body = None
    if method == b"POST" or "body" in odd:
        body = random.choice([b"", b"hello", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
                              b"b" * 9000])
        if "body" in odd:
            rest.append([b"content-length",
                         random.choice([b"0", b"1", b"5", b"4", b"6", b"10000", b"99999999999999999999", b"-1", b"+5", b" 5", b"5 ",
                                        b"0x5", b"5,5", b"", b"\xd9\xa5"])])
            if random.random() < 0.2:
                rest.append([b"content-length", b"5"])
            if random.random() < 0.3:
                rest.append([b"transfer-encoding", random.choice([b"chunked", b"CHUNKED", b" chunked", b"identity"])])
        elif random.random() < 0.7:
            rest.append([b"content-length", b"%d" % len(body)])
    if "authority" in odd:
        pseudo[2][1] = odd_host(random, host, lane)
        if random.random() < 0.6:
            rest.insert(random.randrange(len(rest) + 1), [b"host", random.choice([host, odd_host(random, host, lane)])])
        if random.random() < 0.3:
            del pseudo[2]
    if "pseudo" in odd:
        action = random.randrange(8)
        if action == 0:
            del pseudo[random.randrange(len(pseudo))]
        elif action == 1:
            pseudo.insert(random.randrange(5), list(random.choice(pseudo)))
        elif action == 2:
            random.choice(pseudo)[1] = random.choice([b"", b"/", b"*", b"x", b" ", b"\0", b"x y", b"/\r\n",
                                                      b"/ HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1", b"http", b"ftp",
                                                      b"h\x80"])
        elif action == 3:
            rest.append(pseudo.pop(random.randrange(len(pseudo))))
        elif action == 4:
            random.shuffle(pseudo)
        elif action == 5:
            pseudo[0][1] = random.choice([b"get", b"CONNECT", b"OPTIONS", b"PRI", b"G ET", b"GET\r\n", b"GET /x HTTP/1.1\r\nX:",
                                          b"", b"TRACE", b"\x80"])
        elif action == 6:
            pseudo[-1][1] = random.choice([path[1:], b"*", b"http://" + host + path, b"//" + host + path, b"?" + path, b"#" + path,
                                           b"\\" + path, path + b" HTTP/1.1\r\nX-Injected: y", path + b"\t", b" " + path])
        else:
            pseudo[1][1] = random.choice([b"http", b"HTTPS", b"https ", b"https://" + host + b"/?", b"ws", b"", b"1x", b"h ttps"])
    if "field" in odd:
        for _ in range(random.choice([1, 1, 2])):
            rest.insert(random.randrange(len(rest) + 1), list(random.choice(ODD_FIELDS)))
    if "many" in odd:
        rest += random.choice([[[b"x-%d" % number, b"v" * 50] for number in range(random.choice([30, 300, 1500]))],
                               [[b"cookie", b"c=%d" % number] for number in range(400)], [[b"x", b"v" * 4000]] * 12])
    return [tuple(field) for field in pseudo + rest], body


def request(random, lane, token, stream, odd):
    """The frames of one request."""
    fields, body = fields_of(random, lane, token, odd)
    block = encode(random, fields)
    flags, head = 0, b""
    if "padding" in odd:
        pad = random.choice([0, 1, 10, 255])
        flags |= PADDED
        head, tail = bytes([random.choice([pad, pad, 255, len(block) & 255])]), b"\0" * pad
    else:
        tail = b""
    if "priority" in odd:
        flags |= WITH_PRIORITY
        head += (random.choice([0, stream, 1, 0x80000000, 0x7FFFFFFF]) & 0xFFFFFFFF).to_bytes(4, "big") + b"\x10"
    if body is None and "unended" not in odd:
        flags |= END_STREAM
    cuts = [block]
    if "continuation" in odd or len(block) > 16000:
        size = random.choice([1, 5, 50, 1000, 16000]) if len(block) < 3000 else 16000
        cuts = [block[at:at + size] for at in range(0, len(block), size)] or [b""]
        cuts += [b""] * random.choice([0, 0, 3])
    out = frame(HEADERS, flags | (END_HEADERS if len(cuts) == 1 else 0), stream, head + cuts[0] + tail)
    for number, cut in enumerate(cuts[1:], 2):
        if "continuation" in odd and random.random() < 0.03:
            out += random.choice([frame(PING, 0, 0, b"12345678"), frame(DATA, 0, stream, b"x"),
                                  frame(CONTINUATION, 0, stream + 2, b"x"), frame(99, 0, 0, b"x")])
        out += frame(CONTINUATION, END_HEADERS if number == len(cuts) else 0, stream, cut)
    if body is not None:
        parts = [body] if random.random() < 0.7 else [body[:2], b"", body[2:]]
        for number, part in enumerate(parts, 1):
            ended = END_STREAM if number == len(parts) and random.random() < 0.95 else 0
            if "padding" in odd:
                out += frame(DATA, ended | PADDED, stream, bytes([random.choice([3, 3, 200])]) + part + b"\0\0\0")
            else:
                out += frame(DATA, ended, stream, part)
        if "trailers" in odd:
            out += frame(HEADERS, END_HEADERS | random.choice([0, END_STREAM]), stream,
                         literal([random.choice([(b"x-trailer", b"y"), (b":path", b"/x"), (b"content-length", b"5")])]))
    return out


def bomb(random):
    """Header blocks that are small and mean much, or break HPACK."""
    large = b"\x40\x01x" + integer(4000, 7) + b"v" * 4000
    return random.choice([
        large + b"\xbe" * 15000, large + b"\xbe" * 500, b"\xff" * 10, b"\x80", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x0f",
        b"\x3f\xe1\xff\x03", b"\x3f\xff\xff\xff\xff\x0f", b"\x20" * 3000, b"\x82" * 3000,
        b"\0\x81\xff\x01x", b"\0\x85\xff\xff\xff\xff\xff\x01x", b"\0\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x40\x7f\xff\xff\xff\x7f",
        b"\xbe", b"\x41\x84\0\0\0\0", b"\0", b"\x0f", b"", b"\x82\x87\x84\x41" + b"\x7f\x80\x7f",
    ])


def noise(random, stream):
    """Frames of any kind that a server has to bear or to refuse."""
    pick = random.choice
    many = pick([1, 1, 1, 20, 300])
    settings = [b"", b"\0\1\0\0\0\0", b"\0\4\xff\xff\xff\xff", b"\0\4\0\0\0\0", b"\0\5\0\0\0\0", b"\0\5\xff\xff\xff\xff",
                b"\0\2\0\0\0\2", b"\0\x99\0\0\0\1", b"\0\3\0\0\0\0", b"12345"]
    windows = [b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0"]
    proper = literal([(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x")])
    return pick([
        lambda: frame(SETTINGS, 0, 0, pick(settings)) * many,
        lambda: frame(SETTINGS, 1, 0, pick([b"", b"\0\1\0\0\0\0"])) * many,
        lambda: frame(SETTINGS, 0, 1, b""),
        lambda: frame(PING, pick([0, 1, 255]), pick([0, 0, 1]), pick([b"12345678", b"1234", b""])) * many,
        lambda: frame(WINDOW_UPDATE, 0, pick([0, stream, 99, stream + 2]), pick(windows)) * pick([1, 1, 2, 300]),
        lambda: frame(PRIORITY, 0, pick([0, stream, 99, 2]),
                      pick([0, 1, stream, 99, 0x80000001]).to_bytes(4, "big") + pick([b"\0", b"\xff", b""])) * many,
        lambda: frame(RST_STREAM, 0, pick([0, 99, 2]), pick([b"\0\0\0\x08", b"\0", b""])),
        lambda: frame(PUSH_PROMISE, END_HEADERS, stream, b"\0\0\0\2" + literal([(b":path", b"/")])),
        lambda: frame(GOAWAY, 0, pick([0, 1]), pick([b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\x0bcalm", b"x"])),
        lambda: frame(CONTINUATION, pick([0, END_HEADERS]), stream, b"\x82"),
        lambda: frame(DATA, pick([0, 1, 8, 255]), pick([0, stream, 2, 99]), pick([b"", b"x", b"\xff", b"x" * 100])) * pick([1, 1, 50]),
        lambda: frame(pick([10, 13, 77, 255]), random.randrange(256), pick([0, stream]), b"x" * pick([0, 1, 100])) * many,
        lambda: frame(HEADERS, END_HEADERS | END_STREAM, pick([0, 2, stream, 1, 0x7FFFFFFF, 0x80000000 | stream]), proper),
        lambda: frame(random.randrange(10), 0, pick([0, stream]), b"x" * 10, length=pick([16385, 0xFFFFFF, 9, 11, 0])),
        lambda: frame(HEADERS, END_HEADERS | END_STREAM, stream, bomb(random)),
        lambda: frame(HEADERS, 0, stream, b"\x82")
        + frame(CONTINUATION, 0, stream, pick([b"", b"\x82", b"\0\x01x\x01y" * 50])) * pick([10, 200, 2000]),
    ])()


def generate(random, lane, token):
    kinds, out, stream = [], b"", 1
    loose, reset = False, set()
    start = PREFACE + frame(SETTINGS)
    if random.random() < 0.06:
        start = random.choice([PREFACE, b"", PREFACE[:10], PREFACE.lower(), PREFACE + frame(PING, 0, 0, b"12345678"),
                               frame(SETTINGS), PREFACE[:-1] + b"x" + frame(SETTINGS), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
        kinds.append("preface")
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        choice = random.random()
        if choice < 0.78:
            count = random.choice([0, 1, 1, 1, 1, 2])
            odd = set(random.choices(["path", "pseudo", "field", "authority", "body", "continuation", "padding", "priority",
                                      "unended", "trailers", "many"],
                                     [6, 6, 7, 5, 4, 3, 2, 1, 1, 2, 1], k=count))
            out += request(random, lane, token, stream, odd)
            kinds.append("+".join(sorted(odd)) or "proper")
            stream += 2
        elif choice < 0.94:
            out += noise(random, stream)
            kinds.append("noise")
            stream += random.choice([0, 2])
            loose = True
        else:
            for _ in range(random.choice([3, 50, 150])):
                out += request(random, lane, token, stream, set()) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                reset.add(stream)
                stream += 2
            kinds.append("rapid reset")
            loose = True
    if random.random() < 0.08:
        out = mutate(random, out)
        kinds.append("mutated")
        loose = True
    pieces = [start + out]
    if random.random() < 0.08:
        data = start + out
        at = random.randrange(1, len(data)) if len(data) > 1 else 1
        pieces = [data[:at], 0.003, data[at:]]
        kinds.append("slow")
    return Input(pieces, "HTTP/2 " + ", ".join(kinds), "h2", loose=loose, reset=frozenset(reset))


def many_open(lanes):
    """Uploads that do not end: memory in the proxy, and no descriptors apart from those to backends."""
    out = PREFACE + frame(SETTINGS)
    for number in range(100):
        tool = ["alpha", "beta", "gamma", "twin"][number % 4]
        path = f"/{tool}-{lanes[number // 4 % len(lanes)]}/".encode()
        fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"tools.example.org"), (b":path", path),
                  (b"user-agent", b"t"), (b"x", b"v" * 4000)]
        out += frame(HEADERS, END_HEADERS, 2 * number + 1, literal(fields)) + frame(DATA, 0, 2 * number + 1, b"x" * 100)
    return out
