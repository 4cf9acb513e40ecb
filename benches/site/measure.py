"""Starts a site with its proxies, and measures each: by wrk at full speed, and by `load` at a constant rate."""
import json
import os
import random
import re
import socket
import subprocess
import urllib.request
from pathlib import Path
from statistics import median

from machine import BenchError, Processes, cpu_seconds, family, free_port, listens, wait_until
from peers import PEERS, Site, find
from workloads import HOST, MAIN_PEERS

# Before each measurement by wrk: opens connections and checks each answer's backend.
WARM_UP_REQUESTS = 5000

WRK_SCRIPT = """
local requests, at = {}, tonumber(os.getenv("SKIP"))
function init()
    for line in io.lines("requests") do requests[#requests + 1] = wrk.format("GET", line:match("^[^\\t]*")) end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
"""


class Backends:
    """All servers of all tools, in one process: each answers with its address."""

    def __init__(self, processes, program, directory):
        directory.mkdir()
        self.port = free_port()
        # One socket for all of 127.0.0.0/8, and for nothing else: bound to the loopback interface.
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("0.0.0.0", self.port))
            listening.listen(4096)
            processes.start([program, "--serve"], directory, stdin=listening)
        wait_until("the backends' start", lambda: listens(self.port, "127.1.0.1"))


class Redis:
    """A private Redis without persistence, with a minimal client."""

    def __init__(self, processes, directory):
        directory.mkdir()
        self.port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        processes.start(command, directory)
        wait_until("the start of Redis", lambda: listens(self.port))
        self.connection = socket.create_connection(("127.0.0.1", self.port))
        self.replies = self.connection.makefile("rb")

    def send(self, commands):
        """Sends commands with simple or integer replies."""
        encoded = []
        for command in commands:
            words = [word.encode() for word in command]
            encoded.append(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        self.connection.sendall(b"".join(encoded))
        for _ in encoded:
            reply = self.replies.readline()
            if reply[:1] not in (b"+", b":"):
                raise BenchError(f"Redis answered {reply.decode(errors='replace').strip()}")

    def fill(self, tools):
        """Registers tools from pairs of name and address."""
        self.send([["FLUSHALL"]])
        commands = [["HSET", f"prefix:{name}", ".*", f"http://{address}"] for name, address in tools]
        for at in range(0, len(commands), 1000):
            self.send(commands[at:at + 1000])


class Proxy:
    """A peer that serves a site."""

    def __init__(self, processes, load_program, peer, site):
        self.name, self.site = peer.name, site
        self.processes, self.load_program = processes, load_program
        site.directory.mkdir()
        command = peer.configure(site)
        command[0] = find(command[0]) or command[0]
        self.process = processes.start(command, site.directory, is_proxy=True, environment=peer.environment)
        wait_until(f"an answer of {peer.name} ({site.directory}/output)", self.serves_or_has_ended, 120)
        if self.process.poll() is not None:
            raise BenchError(f"{peer.name} has ended, see {site.directory}/output")
        self.pids = family(self.process.pid)

    def serves_or_has_ended(self):
        tool, backend = self.site.tools[-1]
        is_served = self.ask(f"/{tool}/x") == self.site.workload.address_of(backend)
        return is_served or self.process.poll() is not None

    def ask(self, path):
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{self.site.port}{path}", headers={"Host": HOST})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode().strip()
        except OSError as e:
            return str(e)

    def check_routes(self, sample):
        """Checks that answers come from the right backends."""
        for tool, backend in random.sample(self.site.tools, sample):
            expected, answer = self.site.workload.address_of(backend), self.ask(f"/{tool}/x")
            if answer != expected:
                raise BenchError(f"{self.name}: /{tool}/x was answered by {answer!r}, expected {expected}")

    def rate(self, seconds, skip):
        """Requests per second by wrk, and CPU time per request."""
        self.closed(WARM_UP_REQUESTS, skip)
        cpu = cpu_seconds(self.pids)
        requests, rate = self.wrk(seconds, skip)
        cpu = cpu_seconds(self.pids) - cpu
        return {"rate": rate, "cpu_us": cpu / requests * 1e6, "busy": cpu / (requests / rate)}

    def wrk(self, seconds, skip):
        command = ["wrk", "-t1", f"-c{self.site.workload.connections}", f"-d{seconds}s", "-s", "wrk.lua",
                   "-H", f"Host: {HOST}", f"http://127.0.0.1:{self.site.port}/"]
        report = run(command, self.site.directory.parent, {"SKIP": str(skip)})
        if "Non-2xx" in report or "Socket errors" in report:
            raise BenchError(f"{self.name}: not every request was answered with 200: {report}")
        requests = int(re.search(r"(\d+) requests in", report)[1])
        return requests, float(re.search(r"Requests/sec: *([\d.]+)", report)[1])

    def latencies(self, rate, seconds, skip, warm_up=0.5, requests="requests"):
        """Latencies from due times, in microseconds."""
        return self.load("--requests", requests, "--rate", f"{rate:.0f}", "--seconds", str(seconds),
                         "--warm-up", str(warm_up), "--skip", str(skip))

    def closed(self, count, skip):
        """Sends `count` requests, on each connection one after the other."""
        return self.load("--requests", "requests", "--count", str(count), "--skip", str(skip))

    def load(self, *arguments):
        command = [self.load_program, "--address", f"127.0.0.1:{self.site.port}",
                   "--connections", str(self.site.workload.connections), *arguments]
        report = json.loads(run(command, self.site.directory.parent))
        if report["wrong"]:
            raise BenchError(f"{self.name}: {report['wrong']} answers came from a wrong backend")
        return report

    def open_connections(self):
        """Number of the workers' sockets: connections to backends, while no client is connected."""
        names = (os.readlink(link) for pid in self.pids[1:] for link in Path(f"/proc/{pid}/fd").iterdir())
        return sum(name.startswith("socket:") for name in names)

    def stop(self):
        self.processes.stop(self.process)


def run(command, directory, environment=None):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


class Ground:
    """Shared by all workloads: a directory, backends and a Redis."""

    def __init__(self, options):
        self.options = options
        self.processes = Processes()
        self.directory = Path(options.directory).resolve()
        self.backends = Backends(self.processes, options.load_program, self.directory / "backends")
        self.redis = Redis(self.processes, self.directory / "redis")

    def prepare(self, workload, purpose=""):
        """Fills Redis and writes the requests; returns the workload's directory."""
        directory = self.directory / re.sub(r"\W+", "-", workload.name + purpose)
        directory.mkdir()
        tools = Site(workload, directory, 0, self.backends.port, 0, Path()).tools
        self.redis.fill((name, f"{workload.address_of(backend)}:{self.backends.port}") for name, backend in tools)
        (directory / "requests").write_text("".join(f"{path}\t{answer}\n" for path, answer in workload.requests()))
        (directory / "wrk.lua").write_text(WRK_SCRIPT)
        return directory

    def start(self, name, workload, directory, checked=50, **settings):
        site = Site(workload, directory / name, free_port(), self.backends.port, self.redis.port, self.options.module,
                    **settings)
        proxy = Proxy(self.processes, self.options.load_program, PEERS[name], site)
        proxy.check_routes(checked)
        return proxy


def compare(ground, workload, names):
    """All figures of a workload: `{peer: {"rates": [...], "latencies": [...]}}`, and the rate of the latencies.

    Measures each proxy in turn, round by round, every other round in reverse order, so that disturbances of the machine
    affect all alike.
    """
    options = ground.options
    directory = ground.prepare(workload)
    proxies = [ground.start(name, workload, directory) for name in names]
    figures = {name: {"rates": [], "latencies": []} for name in names}
    main = [name for name in names if name in MAIN_PEERS] or names
    # In the main table, fewer rounds suffice for other peers.
    full = main if workload.others else names

    def in_turn(number, rounds_of_others):
        wanted = [proxy for proxy in proxies if proxy.name in full or number < rounds_of_others]
        return wanted if number % 2 == 0 else wanted[::-1]

    for number in range(options.rounds):
        for proxy in in_turn(number, 2):
            figures[proxy.name]["rates"].append(proxy.rate(options.seconds, number * 9973))
    # All peers get a rate that the slowest main peer can serve well.
    main = [name for name in names if name in MAIN_PEERS] or names
    slowest = min(median([figure["rate"] for figure in figures[name]["rates"]]) for name in main)
    rate = slowest * options.load / 100
    for number in range(options.latency_rounds):
        for proxy in in_turn(number, 1):
            figures[proxy.name]["latencies"].append(
                proxy.latencies(rate, options.latency_seconds, number * 9973))
    for proxy in proxies:
        proxy.stop()
    return figures, rate
