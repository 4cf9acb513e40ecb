"""The workers of both proxies: still the same processes, a quiet log, no growth of memory or descriptors."""

import os
import pathlib
import re

TROUBLE = re.compile(r"\[alert\]|\[emerg\]|panic|exited on signal|AddressSanitizer|runtime error")
# nginx in a user namespace, before it serves.
HARMLESS = re.compile(r"setgroups|initgroups")
# nginx's own alert at an upload over HTTP/2 whose window goes wrong. Counts as trouble unless the proxy without the module has it.
NGINX_OWN = re.compile(r"http2 negative window update")
# What a worker may grow from half-time to the end: 128 streams of HTTP/2 at once need 3 MiB, which malloc then keeps. Seen: 0.1 MiB.
MEMORY_BOUND_KIB = 3 << 10
DESCRIPTORS_BOUND = 3


class Proxy:
    def __init__(self, side, pid_file, log):
        self.side = side
        self.log = pathlib.Path(log)
        self.master = int(pathlib.Path(pid_file).read_text())
        self.workers = self.children()
        self.samples = []
        self.log_lines = 0

    def children(self):
        return sorted(int(pid) for pid in pathlib.Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split())

    def gone(self):
        """What is wrong with the processes, or nothing."""
        try:
            now = self.children()
        except OSError:
            return f"{self.side}: the master is gone"
        return "" if now == self.workers else f"{self.side}: the workers were {self.workers} and are {now}"

    def trouble(self):
        text = self.log.read_text(errors="replace")
        self.log_lines = text.count("\n")
        return [line for line in text.splitlines() if TROUBLE.search(line) and not HARMLESS.search(line)]

    def has_nginx_own(self):
        return bool(NGINX_OWN.search(self.log.read_text(errors="replace")))

    def memory_kib(self):
        """Of each worker, without what is shared: the route table, the module's and nginx's own text."""
        out = []
        for pid in self.workers:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            out.append(int(re.search(r"RssAnon:\s+(\d+)", status)[1]))
        return out

    def descriptors(self):
        """Of each worker, without connections to backends, which are kept within the limits of the configuration."""
        to_backends = set()
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            # 10.0.x.y, in the byte order of the machine.
            if fields[2].split(":")[0].endswith("000A") and fields[2].split(":")[1] != "0000":
                to_backends.add(f"socket:[{fields[9]}]")
        out = []
        for pid in self.workers:
            links = []
            for entry in os.listdir(f"/proc/{pid}/fd"):
                try:
                    links.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
                except OSError:
                    continue
            out.append((sum(link not in to_backends for link in links), len(links)))
        return out

    def sample(self):
        self.samples.append((self.memory_kib(), self.descriptors()))

    def growth(self):
        """What a worker has more at the last sample than at the first, beyond the bounds."""
        (memory, files), (memory_now, files_now) = self.samples[0], self.samples[-1]
        wrong = []
        for pid, before, now in zip(self.workers, memory, memory_now):
            if now - before > MEMORY_BOUND_KIB:
                wrong.append(f"{self.side}: worker {pid} has {now} KiB of memory, {before} at half-time; the bound is {MEMORY_BOUND_KIB} more")
        for pid, before, now in zip(self.workers, files, files_now):
            if now[0] - before[0] > DESCRIPTORS_BOUND:
                wrong.append(f"{self.side}: worker {pid} has {now[0]} descriptors without those to backends, {before[0]} at half-time")
        return wrong

    def report(self):
        return "; ".join(f"memory {memory} KiB, descriptors {[f'{own}+{total - own} to backends' for own, total in files]}"
                         for memory, files in self.samples)
