"""One connection of a client that keeps to no rules: it sends given bytes, and returns what came back until the proxy is quiet."""

import asyncio
import contextlib
import re
import ssl

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

import sites

PORTS = {"module": 443, "static": 1443}
PLAIN_PORTS = {"module": 80, "static": 1080}
ADMIN_PORTS = {"8081": 8081, "8082": 8082}


def context(protocol):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols([protocol])
    return tls


CONTEXTS = {name: context(name) for name in ("http/1.1", "h2")}


class Client(asyncio.Protocol):
    def __init__(self):
        self.data = bytearray()
        self.closed = False
        self.news = asyncio.Event()
        self.transport = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.news.set()

    def pause_writing(self):
        self.writable.clear()

    def resume_writing(self):
        self.writable.set()

    def connection_lost(self, _error):
        self.closed = True
        self.writable.set()
        self.news.set()


async def connect(side, name, protocol):
    """A TLS connection, or a plain one: to port 80 if `protocol` is None, or to a port of the admin pages."""
    loop = asyncio.get_running_loop()
    if protocol is None or protocol in ADMIN_PORTS:
        _, client = await loop.create_connection(Client, "127.0.0.1", ADMIN_PORTS.get(protocol, PLAIN_PORTS[side]))
    else:
        _, client = await loop.create_connection(Client, "127.0.0.1", PORTS[side], ssl=CONTEXTS[protocol], server_hostname=name)
    return client


async def send(client, pieces):
    """Bytes, or pauses in seconds."""
    for piece in pieces:
        if client.closed:
            return
        if isinstance(piece, bytes):
            client.transport.write(piece)
            try:
                await asyncio.wait_for(client.writable.wait(), 2)
            except asyncio.TimeoutError:
                return
        else:
            await asyncio.sleep(piece)


async def hear(client, quiet):
    """Returns when the proxy has closed, or has said nothing for that many seconds."""
    while not client.closed:
        client.news.clear()
        try:
            await asyncio.wait_for(client.news.wait(), quiet)
        except asyncio.TimeoutError:
            return


def hang_up(client):
    client.transport.abort()


def plain(data):
    """What has to be the same from both proxies: all but the time and the backend's serial number."""
    return timeless(re.sub(rb"(?m)^(?:Date|X-Serial): [^\r\n]*\r\n", b"", bytes(data)))


def timeless(data):
    """Without the time in the foot of an error page."""
    return re.sub(rb"<footer>[^<]*</footer>", b"<footer></footer>", data)


# Frames of HTTP/2, RFC 9113.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind & 255, flags & 255]) + (stream & 0xFFFFFFFF).to_bytes(4, "big") + payload


def frames_in(data):
    """Kind, flags, stream and payload of each complete frame."""
    at = 0
    while len(data) - at >= 9:
        length = int.from_bytes(data[at:at + 3], "big")
        if len(data) - at - 9 < length:
            return
        stream = int.from_bytes(data[at + 5:at + 9], "big") & 0x7FFFFFFF
        yield data[at + 3], data[at + 4], stream, data[at + 9:at + 9 + length]
        at += 9 + length


def transcript(data, closed, reset):
    """What a client of HTTP/2 has to see alike from both proxies: the responses by stream, the resets, and the end."""
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    streams, connection, blocks = {}, [], {}
    for kind, flags, stream, payload in frames_in(bytes(data)):
        events = streams.setdefault(stream, []) if stream else connection
        if kind in (HEADERS, CONTINUATION):
            block = blocks.pop(stream, b"") + payload
            if not flags & 4:
                blocks[stream] = block
                continue
            fields = [(name, value) for name, value in decoder.decode(block, raw=True) if name not in (b"date", b"x-serial")]
            events.append(("headers", tuple(fields), flags & 1))
        elif kind == DATA:
            if events and events[-1][0] == "data":
                payload = events.pop()[1] + payload
            events.append(("data", payload, flags & 1))
        elif kind in (RST_STREAM, GOAWAY):
            events.append((("reset", "goaway")[kind == GOAWAY], payload))
        elif kind not in (SETTINGS, PING, WINDOW_UPDATE):
            events.append((kind, payload))
    for events in streams.values():
        events[:] = [(one[0], timeless(one[1]), *one[2:]) if one[0] == "data" else one for one in events]
    streams = {stream: events for stream, events in streams.items() if events and stream not in reset}
    return {"streams": streams, "connection": connection, "closed": closed}


SERIAL = re.compile(rb"(?m)^X-Serial: (\S+)\r\n")
ECHO = re.compile(rb"(?m)^X-Echo: (\S+)\r\n")


def serials_in(data, is_h2):
    """The backend's serial numbers and the echoed tokens in all responses."""
    if not is_h2:
        return SERIAL.findall(data), ECHO.findall(data)
    serials, echoes = [], []
    decoder, block = hpack.Decoder(max_header_list_size=1 << 20), b""
    for kind, flags, _, payload in frames_in(bytes(data)):
        if kind in (HEADERS, CONTINUATION):
            block += payload
            if flags & 4:
                fields = decoder.decode(block, raw=True)
                serials += [value for name, value in fields if name == b"x-serial"]
                echoes += [value for name, value in fields if name == b"x-echo"]
                block = b""
    return serials, echoes


def answers_in(data, methods):
    """The responses of a connection to requests of these methods, strictly: status and the tool that answered, or what is wrong."""
    answers = []
    for method in methods:
        if not data:
            break
        head, separator, data = data.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.1 ([2-9]\d\d)(?: [^\r\n]*)?\r\n", head)
        if not separator or not match:
            return [*answers, f"no response: {head[:100]!r}"]
        tool = re.search(rb"\r\nX-Tool: ([\w-]+)\r\nX-Serial:", head)
        tool = tool[1].decode() if tool else re.search(rb"\r\nX-Tool: forged\r", head + b"\r") and "forged"
        answers.append((int(match[1]), tool))
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if method == b"HEAD" or match[1] in (b"204", b"304"):
            continue
        if re.search(rb"\r\nTransfer-Encoding: chunked", head):
            while (size := re.match(rb"([0-9a-f]+)\r\n", data)) and int(size[1], 16):
                data = data[size.end() + int(size[1], 16) + 2:]
            if not size:
                break
            data = data[size.end() + 2:]
        elif length:
            data = data[int(length[1]):]
        else:
            break  # up to the end of the connection
    return answers


async def news_of(client):
    """Waits for the next bytes or the end of a connection, for a second at most."""
    client.news.clear()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(client.news.wait(), 1)


async def ask_honestly_h2(client, host, path, token):
    """The same over HTTP/2, by a library that keeps to the rules."""
    if not hasattr(client, "h2"):
        client.h2 = H2Connection(H2Configuration(header_encoding="latin-1"))
        client.h2.initiate_connection()
        client.read = 0
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream,
                           [(":method", "GET"), (":scheme", "https"), (":authority", host.decode()), (":path", path.decode()),
                                    ("user-agent", "honest"), ("x-honest", token.decode()), ("x-token", token.decode())],
                                    end_stream=True)
    client.transport.write(client.h2.data_to_send())
    head, body = b"", b""
    deadline = asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < deadline:
        received, client.read = bytes(client.data[client.read:]), len(client.data)
        for event in client.h2.receive_data(received) if received else []:
            if isinstance(event, ResponseReceived):
                fields = dict(event.headers)
                head = f"HTTP/1.1 {fields.pop(':status')} \r\n".encode()
                head += "".join(f"{name.title()}: {value}\r\n" for name, value in fields.items()).encode()
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, (StreamEnded, StreamReset, ConnectionTerminated)):
                client.transport.write(client.h2.data_to_send())
                return head, body
        if client.closed:
            return None
        await news_of(client)
    return b"no response within 60 s", b""


async def ask_honestly(client, host, path, token):
    """A proper request; returns the head and the body of the response, or None if the connection has ended."""
    start = len(client.data)
    client.transport.write(b"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: honest\r\nX-Honest: %s\r\nX-Token: %s\r\n\r\n"
                           % (path, host, token, token))
    deadline = asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < deadline:
        head, separator, body = bytes(client.data[start:]).partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if separator and (length is None or len(body) >= int(length[1])):
            return head, body
        if client.closed:
            return None
        await news_of(client)
    return b"no response within 60 s", b""


def host_of(mode, tool, lane):
    """The host and the path before the rest by which a tool is asked in a mode."""
    if mode == "path":
        return sites.PATH_HOST, f"/{tool}-{lane}"
    if mode == "subdomain":
        return f"{tool}-{lane}.{sites.SUBDOMAINS}", ""
    return {"site": f"site-{lane}.wmcloud.org", "wild": f"a.wild-{lane}.example.net"}[tool], ""
