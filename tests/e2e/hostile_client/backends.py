"""The tools' servers: they record exactly what they get, check that it is theirs, and answer honestly or as an input planned."""

import asyncio
import re
import ssl
from dataclasses import dataclass, field

import sites

HONEST = re.compile(rb"(?i)\r\nX-Honest: (\S+)\r\n")
TOKEN = re.compile(rb"(?i)\r\nX-Token: ([\w.-]+)\r\n")
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.[01]\r\n")
MAX_HEAD = 4 << 20


@dataclass
class Seen:
    """A request as a backend got it. `state` says how far its body came: all, part, or bad."""
    name: str
    head: bytes
    body: bytearray = field(default_factory=bytearray)
    state: str = "part"

    def key(self):
        return self.name, self.head, bytes(self.body), self.state


@dataclass
class Plan:
    """How `evil` answers: pieces of bytes, or pauses in seconds; then it closes, or waits for the next request."""
    name: str
    pieces: list
    close: bool = False
    # The module answers 502 where nginx passes on what is no final HTTP response, docs/directives.md.
    refused: bool = False
    before_body: bool = False
    # The client asks for WebSocket, and what it sends afterwards is the tool's.
    upgrade: bool = False


class Lane:
    """What the backends of one lane have got for the input at hand, by proxy."""

    def __init__(self, name):
        self.name = name
        self.seen = {side: [] for side in sites.NETWORKS}
        self.serials = {side: set() for side in sites.NETWORKS}
        self.plan = None

    def begin(self, side):
        self.seen[side] = []
        self.serials[side] = set()


class Backends:
    def __init__(self, lanes, certificate, raw_model=False):
        self.lanes = {name: Lane(name) for name in lanes}
        self.complaints = []
        self.raw_model = raw_model
        self.requests = 0
        self.connections = 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*certificate)
        self.tls.sni_callback = self.remember_name
        self.servers = []

    async def listen(self):
        for lane in self.lanes:
            for side, network in sites.NETWORKS.items():
                addresses = {}
                for name, host in sites.HOSTS.items():
                    addresses.setdefault(f"{network}.{host}", set()).add(name)
                for address, names in addresses.items():
                    def connected(reader, writer, lane=lane, side=side, names=names):
                        return self.connection(lane, side, names, reader, writer)
                    self.servers.append(await asyncio.start_server(
                        connected, address, sites.port_of(lane), ssl=self.tls if names & sites.TLS else None, limit=MAX_HEAD,
                        backlog=512))

    @staticmethod
    def remember_name(connection, name, _context):
        connection.asked_name = name

    def complain(self, what):
        if len(self.complaints) < 100:
            self.complaints.append(what)

    async def connection(self, lane, side, names, reader, writer):
        self.connections += 1
        owner = None
        try:
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        self.lanes[lane].seen[side].append(Seen("/".join(sorted(names)), error.partial))
                    return
                self.requests += 1
                found = self.check(lane, side, names, head)
                name, who = found or (min(names), None)
                where = f"{side}, backend {name}-{lane}"
                if owner is not None and who != owner:
                    self.complain(f"{where}: a kept connection of {owner} carries a request of {who}: {head[:200]!r}")
                owner = who
                secured = writer.get_extra_info("ssl_object")
                # nginx's own `keepalive` does not look at the name; the module's does.
                if secured and side == "module" and getattr(secured, "asked_name", None) not in (None,
                                                            header(head, b"Host").decode("latin-1")):
                    self.complain(f"{where}: a TLS connection to {secured.asked_name} carries a request of another host: {head[:200]!r}")
                seen = Seen(name, head)
                honest = HONEST.search(head)
                if not honest:
                    self.lanes[lane].seen[side].append(seen)
                plan = self.lanes[lane].plan if name == "evil" and not honest else None
                if plan and plan.before_body:
                    await self.act(plan, writer)
                if not await self.read_body(seen, reader, where):
                    return
                if not plan:
                    writer.write(self.answer(lane, side, seen, honest))
                elif not plan.before_body:
                    await self.act(plan, writer)
                await writer.drain()
                if plan and plan.upgrade:
                    await self.tunnel(seen, reader)
                if plan and plan.close:
                    return
        except (ConnectionError, ssl.SSLError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    @staticmethod
    async def tunnel(seen, reader):
        """Takes what comes until the connection ends, or until nothing more comes."""
        try:
            while data := await asyncio.wait_for(reader.read(65536), 0.5):
                seen.body += data
        except asyncio.TimeoutError:
            pass

    @staticmethod
    async def act(plan, writer):
        for piece in plan.pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            else:
                await asyncio.sleep(piece)

    def check(self, lane, side, names, head):
        """Whether the request is for a tool of this address. Returns the name and the owner that the model finds."""
        line = REQUEST_LINE.match(head)
        if not line:
            self.complain(f"{side}, {names} of {lane}: no request line: {head[:200]!r}")
            return None
        for name in (b"Host", b"Content-Length", b"Transfer-Encoding"):
            if len(re.findall(rb"(?im)^" + name + rb"[ \t]*:", head)) > 1:
                self.complain(f"{side}, {names} of {lane}: two {name.decode()}: {head[:300]!r}")
        if header(head, b"Content-Length") is not None and header(head, b"Transfer-Encoding") is not None:
            self.complain(f"{side}, {names} of {lane}: both lengths: {head[:300]!r}")
        if re.search(rb"[\0\n]|\r(?!\n)", head.replace(b"\r\n", b"")) or re.search(rb"\r\n[ \t]", head):
            self.complain(f"{side}, {names} of {lane}: control characters or a folded line: {head[:300]!r}")
        route = sites.route(header(head, b"Host") or b"", line[2], self.raw_model)
        if route is None or route[1] not in names or route[2] != lane:
            self.complain(f"{side}: {'/'.join(sorted(names))} of {lane} got a request for {route}: {head[:300]!r}")
            return None
        return route[1], route[0]

    async def read_body(self, seen, reader, where):
        """False if the connection ended, or no body can be read from it."""
        length, coding = header(seen.head, b"Content-Length"), header(seen.head, b"Transfer-Encoding")
        if coding is not None:
            complete = coding == b"chunked" and await self.read_chunks(seen, reader)
            if complete is None or coding != b"chunked":
                seen.state = "bad"
                self.complain(f"{where}: bad framing: {seen.head[:300]!r} {bytes(seen.body)[-50:]!r}")
            if not complete:
                return False
        elif length is not None:
            left = int(length)
            while left:
                data = await reader.read(min(left, 65536))
                if not data:
                    return False
                seen.body += data
                left -= len(data)
        seen.state = "all"
        return True

    @staticmethod
    async def read_chunks(seen, reader):
        """False if the body is cut off, None if it is invalid."""
        try:
            while True:
                line = await reader.readuntil(b"\r\n")
                if not re.fullmatch(rb"[0-9a-fA-F]+\r\n", line):
                    return None
                size = int(line, 16)
                left = size
                while left:
                    data = await reader.read(left)
                    if not data:
                        return False
                    seen.body += data
                    left -= len(data)
                if await reader.readexactly(2) != b"\r\n":
                    return None
                if size == 0:
                    return True
        except asyncio.IncompleteReadError:
            return False

    def answer(self, lane, side, seen, honest):
        """Says who answers what, so that the client sees whether it is an answer to its own request."""
        line = seen.head.split(b"\r\n", 1)[0]
        # More than nginx buffers.
        shown = line[:2000] + (b"." * 200000 if b"/big" in line and not honest else b"")
        token = TOKEN.search(seen.head)
        serial = f"{lane}.{side}.{self.requests}"
        if not honest:
            self.lanes[lane].serials[side].add(serial.encode())
        body = b"" if line.startswith(b"HEAD ") else seen.name.encode() + b" " + shown + b"\n"
        headers = [b"HTTP/1.1 200 OK", b"X-Tool: " + f"{seen.name}-{lane}".encode(), b"X-Serial: " + serial.encode(),
                   b"X-Echo: " + (token[1] if token else b"none"), b"Content-Type: text/plain"]
        headers.append(b"Content-Length: %d" % (len(seen.name) + len(shown) + 2))
        return b"\r\n".join(headers) + b"\r\n\r\n" + body


def header(head, name):
    match = re.search(rb"(?i)\r\n" + name + rb": ?([^\r]*)\r\n", head)
    return match[1] if match else None
