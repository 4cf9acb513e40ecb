"""The traffic, the changes and the records of tests/e2e/soak.

Every tool has an address of its own in 127.0.0.0/8, all served by one process, whose answer is the address that was asked. Each
record covers ten seconds; latencies count from the time at which a request was due.
"""
import argparse
import asyncio
import contextlib
import csv
import itertools
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

import soak_plot

CLIENTS = 8
CHANGES_PER_SECOND = 10
RECORD_SECONDS = 10
SCRAPE_SECONDS = 15
TIMEOUT = 10
# The shipped configuration refuses clients without a name.
HEADERS = "Host: tools.example.org\r\nUser-Agent: soak\r\n\r\n"
# Clients of a tool that never answers.
WAITING = 20
# The last period's peaks may exceed the second one's by this much: the first is the warm-up.
GROWTH, MEMORY_SLACK_KIB, DESCRIPTORS_SLACK = 1.10, 4096, 50
COLUMNS = ("seconds", "requests", "failed", "p50_us", "p99_us", "max_us", "memory_kib", "descriptors", "redis_kib")


def name(tool):
    return f"t{tool:05}"


def address(tool, generation=0):
    """Addresses of odd and even generations differ."""
    number = (tool + 1) * 2 + generation % 2
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def redis(port, commands):
    """Sends commands; raises OSError unless each succeeds."""
    words = [[str(word).encode() for word in command] for command in commands]
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(b"".join(b"*%d\r\n" % len(line) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in line)
                                    for line in words))
        replies = connection.makefile("rb")
        for line in words:
            reply = replies.readline()
            if reply[:1] not in (b"+", b":"):
                raise OSError(f"Redis answered {reply!r} to {line!r}")


def fill(port, backends, tools):
    routes = [["HSET", f"prefix:{name(tool)}", ".*", f"http://{address(tool)}:{backends}"] for tool in range(tools)]
    for at in range(0, tools, 1000):
        redis(port, routes[at:at + 1000])
    redis(port, [["HSET", "prefix:waiting", ".*", f"http://127.255.0.1:{backends}"]])


async def serve(reader, writer):
    """Answers each request with the address that it came to; the tool `waiting` gets no answer."""
    own = writer.get_extra_info("sockname")[0]
    body = own + "\n"
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            if own != "127.255.0.1":
                writer.write(answer)
                await writer.drain()
    writer.close()


def serve_all(port):
    async def forever():
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", port))
        await (await asyncio.start_server(serve, sock=listening, backlog=4096)).serve_forever()
    asyncio.run(forever())


class Client:
    """A connection that is kept, and opened again if the server closes it."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def get(self, path):
        """Status and body. A request on a kept connection that ends without an answer is sent once more, as browsers do."""
        request = f"GET {path} HTTP/1.1\r\n{HEADERS}".encode()
        if self.connection:
            with contextlib.suppress(ConnectionError):
                return self.exchange(request)
        self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        return self.exchange(request)

    def exchange(self, request):
        self.connection.sendall(request)
        received = self.more(b"")
        while b"\r\n\r\n" not in received:
            received = self.more(received)
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        if length is None:
            raise OSError(f"no Content-Length in {head[:100]!r}")
        while len(body) < length:
            body = self.more(body)
        if b"connection: close" in lines:
            self.connection = None
        return int(lines[0].split()[1]), body.decode()

    def more(self, received):
        bytes_ = self.connection.recv(65536)
        if not bytes_:
            self.connection = None
            raise (OSError("an answer ended early") if received else ConnectionResetError("closed"))
        return received + bytes_


class Soak:
    def __init__(self, options):
        self.options = options
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.latencies, self.failures, self.failed = [], [], 0
        self.begun = time.monotonic()
        # Tools with an even number keep their backend.
        self.generations = {tool: 0 for tool in range(1, options.tools, 2)}

    def elapsed(self):
        return time.monotonic() - self.begun

    def visit(self, number):
        chosen = random.Random(number)
        client = Client(self.options.site)
        for turn in itertools.count():
            due = self.begun + (turn * CLIENTS + number) / self.options.rate
            if self.stopping.wait(max(0, due - time.monotonic())):
                return
            # Few tools have most of the requests.
            tool = int(self.options.tools * chosen.random() ** 3)
            problem = self.ask(client, tool)
            with self.lock:
                self.latencies.append(time.monotonic() - due)
                if problem:
                    self.failed += 1
                    self.failures.append(f"{self.elapsed():.1f} s: /{name(tool)}/: {problem}")

    def ask(self, client, tool):
        """The problem with a tool's answer, if any."""
        try:
            status, body = client.get(f"/{name(tool)}/page?x=1")
        except OSError as e:
            client.connection = None
            return str(e) or repr(e)
        expected = [address(tool), address(tool, 1)] if tool in self.generations else [address(tool)]
        return None if status == 200 and body.strip() in expected else f"status {status}, {body.strip()[:80]!r}"

    def change(self):
        while not self.stopping.wait(1 / CHANGES_PER_SECOND):
            tool = random.choice(list(self.generations))
            url = f"http://{address(tool, self.generations[tool] + 1)}:{self.options.backends}"
            # Redis restarts from time to time.
            with contextlib.suppress(OSError):
                redis(self.options.redis, [["HSET", f"prefix:{name(tool)}", ".*", url]])
                self.generations[tool] += 1

    def scrape(self):
        while not self.stopping.wait(SCRAPE_SECONDS):
            for page in ("/metrics", "/api/status", "/list"):
                try:
                    urllib.request.urlopen(self.options.admin + page, timeout=TIMEOUT).read()
                except OSError as e:
                    with self.lock:
                        self.failed += 1
                        self.failures.append(f"{self.elapsed():.1f} s: {page}: {e}")

    def wait_in_vain(self):
        while not self.stopping.wait(1):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.options.site)) as connection:
                connection.sendall(f"GET /waiting/ HTTP/1.1\r\n{HEADERS}".encode())
                connection.settimeout(30)
                connection.recv(1)

    def record(self):
        with self.lock:
            times, self.latencies = sorted(self.latencies), []
            failed, self.failed = self.failed, 0
        if not times:
            return None
        at = [round(times[min(int(len(times) * share), len(times) - 1)] * 1e6) for share in (0.5, 0.99, 1)]
        nginx = family(self.options.nginx)
        return dict(zip(COLUMNS, (round(self.elapsed()), len(times), failed, *at, sum(map(anonymous_kib, nginx)),
                                  sum(map(descriptors, nginx)), redis_memory_kib(self.options.redis))))

    def run(self):
        signal.signal(signal.SIGTERM, lambda *_: self.stopping.set())
        threading.Thread(target=serve_all, args=(self.options.backends,), daemon=True).start()
        while socket.socket().connect_ex(("127.0.0.1", self.options.backends)):
            time.sleep(0.02)
        self.begun = time.monotonic()
        jobs = [(self.visit, (number,)) for number in range(CLIENTS)] + [(self.change, ()), (self.scrape, ())]
        for job, arguments in jobs + [(self.wait_in_vain, ())] * WAITING:
            threading.Thread(target=job, args=arguments, daemon=True).start()
        records = []
        with open(f"{self.options.results}.csv", "w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            while not self.stopping.wait(RECORD_SECONDS):
                record = self.record()
                if record is None:
                    sys.exit(f"no answer within {RECORD_SECONDS} s")
                records.append(record)
                table.writerow(record)
                file.flush()
        soak_plot.draw(self.options.results)
        self.conclude(records)

    def conclude(self, records):
        reloads = [seconds for seconds, event in soak_plot.events(self.options.results) if event == "reload"]
        bounds = [0, *reloads, self.elapsed()]
        periods = [[record for record in records if start < record["seconds"] <= end] for start, end in zip(bounds, bounds[1:])]
        periods = [period for period in periods if period]
        print("minutes | requests | failed | p50 us | p99 us | memory KiB | descriptors | Redis KiB")
        for period in periods:
            peak = {column: max(record[column] for record in period) for column in COLUMNS[6:]}
            middle = {column: median(record[column] for record in period) for column in COLUMNS[3:5]}
            total = {column: sum(record[column] for record in period) for column in COLUMNS[1:3]}
            print(f"{period[-1]['seconds'] / 60:7.1f} | {total['requests']:8} | {total['failed']:6} | {middle['p50_us']:6.0f} | "
                  f"{middle['p99_us']:6.0f} | {peak['memory_kib']:10} | {peak['descriptors']:11} | {peak['redis_kib']:9}")
        problems = self.failures[:10]
        if len(periods) < 3:
            problems.append(f"{len(periods)} periods between reloads, expected 3 or more")
        else:
            for column, slack in (("memory_kib", MEMORY_SLACK_KIB), ("descriptors", DESCRIPTORS_SLACK)):
                first, last = (max(record[column] for record in periods[at]) for at in (1, -1))
                if last > first * GROWTH + slack:
                    problems.append(f"{column} grew from {first} to {last}")
        print(f"{sum(record['requests'] for record in records)} requests, {len(self.failures)} failed; "
              f"{sum(self.generations.values())} changes of routes")
        sys.exit("\n".join(problems) or None)


def family(pid):
    """nginx's master and workers, draining ones too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def anonymous_kib(pid):
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return 0


def descriptors(pid):
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def redis_memory_kib(port):
    """0 while Redis restarts."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"INFO memory\r\n")
        for line in connection.makefile("rb"):
            if line.startswith(b"used_memory_rss:"):
                return int(line.split(b":")[1]) // 1024
    return 0


def main():
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    filling = parts.add_parser("fill", help="write the tools' routes")
    for argument in ("redis", "backends", "tools"):
        filling.add_argument(argument, type=int)
    running = parts.add_parser("run", help="send requests until SIGTERM, then report")
    running.add_argument("results", help="path of the results, without .csv")
    running.add_argument("--admin", required=True, help="URL of the admin pages")
    for argument in ("site", "redis", "backends", "nginx", "tools", "rate"):
        running.add_argument(f"--{argument}", type=int, required=True)
    options = parser.parse_args()
    if options.part == "fill":
        fill(options.redis, options.backends, options.tools)
    else:
        Soak(options).run()


if __name__ == "__main__":
    main()
