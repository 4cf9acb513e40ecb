"""What one input is, and the odd paths and hosts that the generators of HTTP/1 and HTTP/2 share."""

from dataclasses import dataclass

import sites
from exchange import host_of


@dataclass
class Input:
    pieces: list                # bytes, or pauses in seconds
    kind: str                   # for the report
    protocol: str = "http/1.1"  # of TLS; None: a plain connection to port 80
    name: str = sites.PATH_HOST  # for SNI
    plan: object = None         # how `evil` answers
    gone_after: object = None   # seconds after which the client hangs up, whatever is on its way; then only the rules count
    methods: tuple = ()         # of the requests of such an input, the first to `evil`, the others to `twin` and `alpha`
    loose: bool = False         # whether a request reaches a backend is a race, as after RST_STREAM
    reset: frozenset = frozenset()  # streams whose answers may or may not come, for the same reason
    judge: object = None        # for answers of the module's own pages: says what is wrong
    asked: object = None        # what such an input is about
    expected: object = None     # the corpus': requests by backend, and statuses


def choose_tool(random, lane):
    """A mode, a tool or domain, its host and its path."""
    mode = random.choices(["path", "subdomain", "domain"], [6, 3, 2])[0]
    if mode == "domain":
        tool = random.choice(["site", "wild"])
    else:
        tool = random.choices(["alpha", "beta", "gamma", "twin", "delta", "dflt", "multi"], [6, 4, 4, 2, 2, 1, 2])[0]
    host, prefix = host_of(mode, tool, lane)
    if tool == "dflt" and mode == "subdomain":
        host, prefix = f"nobody-{lane}.{sites.SUBDOMAINS}", f"/dflt-{lane}"
    return mode, host.encode(), prefix.encode()


# Where decoding, dot segments, slashes and case decide which tool it is. @ is the path of the tool at hand, ~ of another one.
CONFUSING_PATHS = [
    b"@/", b"@", b"@?x=1", b"@/big", b"@/big?", b"@/big#", b"@/x?y=/~/", b"@/api/v1", b"@//api/v1", b"@/%61pi/v1", b"@/api%2fv1", b"@/x/../api/v1", b"@/api/../x",
    b"@%2f..%2f~/", b"@/..%2f~/", b"@/%2e%2e/~/", b"@/%2E%2e%2F~/", b"@/..;/~/", b"@/;/~/", b"@/..\\~/", b"@\\..\\~/", b"\\@/",
    b"/\\@/",
    b"/@/", b"//@/", b"///~/../@/", b"/./@/", b"/~/../@/", b"/~/..@/", b"/~/%2e%2e@/", b"/~/.%2e@/x", b"/~/%252e%252e@/",
    b"@/../../@/",
    b"/../@/", b"/%2e%2e/@/", b"/..@/", b"@/../", b"@/..", b"@/.", b"@/./", b"@/...", b"@.", b"@./", b"@%20/", b"@%00/", b"@/%00~",
    b"@/%0d%0aX-Injected:%20yes",
    b"@/%0d%0a%0d%0aGET%20/~/%20HTTP/1.1", b"@%0d%0aHost:%20x/", b"@%0a/", b"%0a@/", b"/%2f@/", b"%2f@/", b"/%5c@", b"@/%", b"@/%2",
    b"@/%zz", b"@%", b"@/%u0041",
    b"@/%c0%ae%c0%ae/~/", b"@/%ff%fe", b"@/\xff\xfe", b"@/\xc3\xa9", b"@#/~/", b"@/#?x", b"@/x#/../../~/", b"@?#", b"@/?\x80",
    b"@/?%00", b"@/?%0d%0a", b"@%3f/~", b"@/%23x",
    b"@/a;b=c", b"@;v=1/", b"@:80/", b"@@/", b"/@@/", b"@/ x", b"@/\tx", b"@/\x01", b"@/\x7f", b"@|/", b"@/\"'<>{}", b"@/$uri/",
    b"@/${host}", b"@/$1", b"@/+/", b"@/favicon.ico",
    b"/favicon.ico", b"/robots.txt", b"//robots.txt", b"/robots.txt/../@/", b"/.well-known/healthz", b"/.well-known/healthz/..@",
    b"/.well-known/urlproxy/error/page.html",
    b"/.well-known/urlproxy/error/../../../@/", b"/.well-known/urlproxy/error/%2e%2e/%2e%2e/etc/passwd",
    b"@/.well-known/urlproxy/error/page.json", b"/admin/", b"/admin@/", b"/", b"", b"*",
    b"/nobody/", b"/nobody/..@/", b"@-x/", b"/x@/", b"/@/..//~//..//@/", b"@/" + b"x" * 7900, b"/" + b"%61" * 2600 + b"/",
    b"@/" + b"a/../" * 1500, b"/" * 7000 + b"@/", b"@/" + b"x" * 9000,
    b"@/?" + b"&" * 7900, b"/" + b"x" * 254 + b"/", b"/" + b"x" * 256 + b"/..@/",
]


def confuse(random, prefix, lane):
    """A target, maybe of several oddities."""
    other = f"/{random.choice(['alpha', 'beta', 'gamma', 'twin', 'dflt'])}-{lane}".encode()
    path = random.choice(CONFUSING_PATHS)
    if random.random() < 0.15:
        path += random.choice([b"/", b"//", b"/..", b"/%2e%2e/", b"/.", b"%2f", b"?", b"#",
                               b"%00"]) + random.choice(CONFUSING_PATHS)
    path = path.replace(b"~/", other[1:] + b"/").replace(b"~", other[1:]).replace(b"@", prefix)
    if random.random() < 0.1:
        path = encode_some(random, path)
    return path


def encode_some(random, path):
    out = bytearray()
    for byte in path:
        if random.random() < 0.2 and byte not in b"?#":
            out += (b"%%%02x" if random.random() < 0.5 else b"%%%02X") % byte
        else:
            out.append(byte)
    return bytes(out)


def odd_host(random, host, lane):
    """The same or another host, as only a hostile client writes it."""
    other = random.choice([f"beta-{lane}.toolforge.org", "tools.example.org", f"site-{lane}.wmcloud.org",
                           f"a.wild-{lane}.example.net"]).encode()
    return random.choice([
        host.upper(), host + b".", host + b"..", host + b":443", host + b":80", host + b":", host + b":99999", host + b":x",
        host + b":443:443", host + b".:443", b"." + host,
        b"x." + host, host + b"@" + other, other + b"@" + host, host + b"#" + other, host + b"/" + other, host + b"?" + other,
        host + b"\\" + other, host + b"," + other,
        host + b" " + other, host + b"\t", b"\t " + host, b" " + host + b" ", host + b"\0", host + b"\x7f", host + b"\x80",
        host + b"%00", host + b"%2e", host.replace(b".", b"%2e", 1),
        host + b"%0d%0aX-Injected:%20yes", host + b"\rX-Injected: yes", b"[" + host + b"]", b"[::1]", b"[::1",
        b"[::ffff:127.0.0.1]:443", b"127.0.0.1", b"0", b"_", b"*", b"*.toolforge.org",
        b"", b"-", b"localhost", other, b"toolforge.org", b".toolforge.org", b"a.b.toolforge.org", host.replace(b".", b".."),
        b"x" * 300 + b"." + host, b"xn--" + host, b"\xc3\xa9." + host,
        b"site-%s.wmcloud.org.example.net" % lane.encode(), b"a.b.wild-%s.example.net" % lane.encode(),
        b"wild-%s.example.net" % lane.encode(), b"*.wild-%s.example.net" % lane.encode(),
    ])


def mutate(random, data):
    """A few bytes changed, inserted, removed or doubled."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        at = random.randrange(len(data) + 1)
        action = random.randrange(5)
        if action == 0 and at < len(data):
            data[at] = random.randrange(256)
        elif action == 1 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif action == 2:
            data[at:at] = random.choice([b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\t", b" ", b":", b"%", b"/", b"\x0b", b"\x80",
                                         b"\xff", b"0", b";", b",", b"A" * 3000])
        elif action == 3:
            del data[at:at + random.choice([1, 1, 2, 10])]
        else:
            data[at:at] = data[max(0, at - random.randrange(1, 60)):at]
    return bytes(data)
