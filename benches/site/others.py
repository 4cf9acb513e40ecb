"""Benchmarks of the module alone: the effect of changing routes on requests, and backends that are used once."""
import threading
import time
from statistics import median

from machine import BenchError, cpu_seconds, resident_bytes
from report import ratio, show
from workloads import Workload, tool_name

CHANGES_PER_SECOND = 1000
CHANGING = Workload(backends=200, tools=100_000, distribution="zipf", connections=64)
# With its own requests: each tool once.
TOUCHED_ONCE = Workload(backends=50_000, tools=50_000, distribution="uniform", connections=8)
STEP = 5000


class Changes:
    """Changes tools' backends at a constant rate until stopped."""

    def __init__(self, redis, workload, port):
        self.redis, self.workload, self.port = redis, workload, port
        self.stopping = threading.Event()
        self.made = 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        begun = time.monotonic()
        while not self.stopping.wait(0.01):
            due = int((time.monotonic() - begun) * CHANGES_PER_SECOND) - self.made
            numbers = [(self.made + i) * 7919 for i in range(due)]
            self.redis.send([["HSET", f"prefix:{tool_name(number % self.workload.tools)}", ".*", self.url(number)]
                             for number in numbers])
            self.made += due

    def url(self, number):
        # The next backend each time a tool is changed.
        backend = (number + number // self.workload.tools) % self.workload.backends
        return f"http://{self.workload.address_of(backend)}:{self.port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


def changing_routes(ground):
    """Latencies at a constant rate, alternating without and with changes."""
    options, port = ground.options, ground.backends.port
    directory = ground.prepare(CHANGING)
    # The answering backend changes constantly, so only paths are used.
    paths = [line.partition("\t")[0] for line in (directory / "requests").read_text().splitlines()]
    (directory / "paths").write_text("\n".join(paths) + "\n")
    proxy = ground.start("module", CHANGING, directory, zone_mebibytes=64)
    rate = median(proxy.rate(1, 0)["rate"] for _ in range(3)) * options.load / 100
    figures = {"without": [], "with": []}

    def measure(number):
        return proxy.latencies(rate, options.latency_seconds, number * 9973, requests="paths")

    made, rounds = 0, 2 * options.latency_rounds
    for number in range(2 * rounds):
        if number % 4 in (0, 3):
            figures["without"].append(measure(number))
        else:
            with Changes(ground.redis, CHANGING, port) as changes:
                figures["with"].append(measure(number))
            made += changes.made
    proxy.stop()
    print(f"\n{CHANGING.tools} tools, {rate:.0f} requests/s; latencies in us, medians of {rounds} rounds in turn")
    print(f"{'routes changed per second':<30} | {'p50':>7} | {'p99':>8} | {'p99.9':>8} | failed")
    for name, label in (("without", "none"), ("with", str(CHANGES_PER_SECOND))):
        middle = {which: median(turn[which] for turn in figures[name]) for which in ("p50", "p99", "p999")}
        print(f"{label:<30} | {middle['p50']:>7.0f} | {middle['p99']:>8.0f} | {middle['p999']:>8.0f} |"
              f" {sum(turn['failed'] for turn in figures[name])}")
    found = ratio(*([turn["p99"] for turn in figures[name]] for name in ("with", "without")))
    print(f"p99 with changes / without: {show(found)}, target <= 1.1", flush=True)
    return {"rate": rate, "changes": made, "ratio of p99": found, **figures}


def touched_once(ground):
    """Memory and CPU time as more and more backends have been used once."""
    workload = TOUCHED_ONCE
    directory = ground.prepare(workload)
    every_one = (f"/{tool_name(i)}/x\t{workload.address_of(workload.backend_of(i))}\n" for i in range(workload.tools))
    (directory / "requests").write_text("".join(every_one))
    proxy = ground.start("module", workload, directory, zone_mebibytes=64, checked=0)
    idle = proxy.open_connections() - 1  # the start-up check has used one
    print(f"\n{workload.backends} backends, each used once, {workload.connections} clients")
    print(f"{'backends used':>15} | {'requests/s':>10} | {'CPU us':>7} | {'memory MiB':>10} | connections")
    figures = []
    for asked in range(0, workload.backends, STEP):
        cpu = cpu_seconds(proxy.pids)
        report = proxy.closed(STEP, asked)
        if report["failed"]:
            raise BenchError(f"{report['failed']} of {STEP} requests failed")
        figures.append({"asked": asked + STEP, "rate": STEP / report["seconds"],
                        "cpu_us": (cpu_seconds(proxy.pids) - cpu) / STEP * 1e6, "memory": resident_bytes(proxy.pids[1:]),
                        "kept": proxy.open_connections() - idle})
        now = figures[-1]
        print(f"{now['asked']:>15} | {now['rate']:>10.0f} | {now['cpu_us']:>7.1f} | {now['memory'] / 2**20:>10.1f} |"
              f" {now['kept']}", flush=True)
    proxy.stop()
    return figures
