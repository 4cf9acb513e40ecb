"""Processes, cores, ports and memory."""
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# The proxies under test take turns on one core, which limits them; everything else runs on the other.
PROXY_CORE, LOAD_CORE = 0, 1
CAN_PIN = hasattr(os, "sched_setaffinity") and {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0)

# A regular user's PATH on Debian lacks the servers.
os.environ["PATH"] += os.pathsep + "/usr/sbin"


class BenchError(Exception):
    """An error shown to the user without a traceback."""


def raise_open_files(wanted=200_000):
    """Raises the limit of open files, as one process serves all backends; root may exceed the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        hard = max(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_given = set()


def free_port():
    """A port below the kernel's ephemeral range, never the same twice."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if port in _given:
                continue
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        _given.add(port)
        return port


def stay_with_the_load():
    """Pins this program and its children to the load core."""
    if CAN_PIN:
        os.sched_setaffinity(0, {LOAD_CORE})


class Processes:
    """The child processes, each in its own process group."""

    def __init__(self):
        self.running = []

    def start(self, command, directory, is_proxy=False, environment=None, stdin=subprocess.DEVNULL):
        if not shutil.which(command[0]):
            raise BenchError(f"{command[0]} is not installed: use make, which installs it first")
        pinned = ["taskset", "-c", str(PROXY_CORE)] if is_proxy and CAN_PIN else []
        with open(Path(directory) / "output", "ab") as output:
            process = subprocess.Popen(pinned + command, cwd=directory, stdin=stdin, stdout=output, stderr=output,
                                       process_group=0, env={**os.environ, **(environment or {})})
        self.running.append(process)
        return process

    def stop(self, process):
        self.running.remove(process)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop_all(self):
        """Stops all, ignoring further signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in list(reversed(self.running)):
            self.stop(process)


def wait_until(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


def listens(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def family(pid):
    """A process and its descendants, such as nginx's workers."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], [])
    return found


def cpu_seconds(pids):
    """CPU time of all threads so far, with nanosecond resolution."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_bytes(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return total
