#!/usr/bin/env python3
"""Requests each tool repeatedly and logs who answers; and summarizes the log.

    visitor.py visit SITE LOG TOOL...         runs until killed; one line per request: milliseconds, tool, own | gone=WHY | wrong tool
    visitor.py report LOG FROM TOOL           prints: requests, wrong ones, longest time wrong, longest time gone (both in ms)
"""

import http.client
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.02
ANSWER_SECONDS = 60
UNANSWERED = 64  # requests at a time
SAYS = "served by tools."


def request(address, tool):
    """Returns "own", the name of another tool that answered, or "gone=" with the status or error if no tool did."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"/{tool}/", headers={"User-Agent": "visitor"})
        answer = connection.getresponse()
        body = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"gone={type(error).__name__}"
    finally:
        connection.close()
    if answer.status != 200 or not body.startswith(SAYS):
        return f"gone={answer.status}"
    by = body.removeprefix(SAYS)
    return "own" if by == tool else by


def visit(site, log, tools):
    """Asks at a steady pace: a request to a host that has died is not answered for a minute, and must not delay the others."""
    address = urlsplit(site)
    free, writing = threading.Semaphore(UNANSWERED), threading.Lock()
    with open(log, "w", buffering=1, encoding="utf-8") as lines, ThreadPoolExecutor(UNANSWERED) as threads:

        def ask(tool):
            begun = time.time_ns() // 1_000_000
            try:
                outcome = request(address, tool)
                with writing:
                    lines.write(f"{begun} {tool} {outcome}\n")
            finally:
                free.release()

        while True:
            for tool in tools:
                free.acquire()
                threads.submit(ask, tool)
            time.sleep(PAUSE_SECONDS)


def is_gone(outcome):
    return outcome.startswith("gone=")


def is_wrong(outcome):
    return outcome != "own" and not is_gone(outcome)


def longest(answers, matches):
    """The longest run of matching answers in ms, from its first answer to the one that ended it."""
    most, since = 0, None
    for at, outcome in answers:
        if since is not None:
            most = max(most, at - since)
        if not matches(outcome):
            since = None
        elif since is None:
            since = at
    return most


def report(log, since, tool):
    with open(log, encoding="utf-8") as lines:
        logged = [line.split() for line in lines if line.endswith("\n")]
    answers = sorted((int(at), outcome) for at, of, outcome in logged if of == tool and int(at) >= since)
    if not answers:
        sys.exit(f"visitor.py: no request to {tool} since {since}")
    wrong = [outcome for _, outcome in answers if is_wrong(outcome)]
    print(
        len(answers),
        len(wrong),
        longest(answers, is_wrong),
        longest(answers, is_gone),
    )


def main():
    match sys.argv[1:]:
        case ["visit", site, log, *tools] if tools:
            visit(site, log, tools)
        case ["report", log, since, tool]:
            report(log, int(since), tool)
        case _:
            sys.exit(__doc__)


main()
