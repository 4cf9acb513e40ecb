#!/usr/bin/env python3
"""The clients of tests/e2e/failover, and the summary of what they saw. All times are milliseconds since the epoch.

    failover_load.py serve PORT TEXT                    answers each request with TEXT, those for .../late after LATE_SECONDS
    failover_load.py visit ADDRESS RATE LOG TOOL...     requests the tools at a constant rate until killed
    failover_load.py report LOG FROM TO                 prints: requests, failed, repeated, longest gap, slowest, kinds of failures
    failover_load.py change PATTERN URL PATH WANT SECONDS PROXY...
                                                        registers as the caller's user until a proxy says ok, then requests PATH from
                                                        each proxy until the answer is WANT; prints the times of the ok and of the last
    failover_load.py register PROXY PATTERN URL         prints the listener's reply
    failover_load.py watch MASTER LOG SENTINEL...       logs when a majority of the Sentinels names another master
"""

import asyncio
import sys
import time

ANSWER_SECONDS = 10
LATE_SECONDS = 5  # longer than a drain takes
STALL_SECONDS = 0.1
KEPT_CONNECTIONS = 10
KEPT_SHARE = 4  # every fourth request is on a kept connection


def now_ms():
    return time.time_ns() // 1_000_000


async def serve(port, text):
    body = text.encode() + b"\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def connected(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.split(b" ", 2)[1].endswith(b"/late"):
                    await asyncio.sleep(LATE_SECONDS)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(connected, "", port, backlog=1024) as server:
        await server.serve_forever()


class Failed(Exception):
    """No right answer; says why in a word."""


async def exchange(connection, address, path, kept):
    """Sends a request and returns the body; sets `connection.answered` at the first byte."""
    reader, writer = connection
    ending = "keep-alive" if kept else "close"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: visitor\r\nConnection: {ending}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode()
    length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await reader.readexactly(int(length[0])) if length else await reader.read()
    if status != "200":
        raise Failed(status)
    return body.decode("utf-8", "replace").strip()


async def request(address, path, want, kept):
    """The outcome of a request; `kept` is a list of idle connections or None."""
    repeated = False
    while True:
        reused = kept.pop() if kept else None
        connection = None
        try:
            connection = reused or await asyncio.open_connection(address, 80)
            body = await exchange(connection, address, path, kept is not None)
        except (OSError, asyncio.IncompleteReadError) as error:
            connection and connection[1].close()
            # A connection that was closed while idle: every browser repeats such a request, RFC 9112 section 9.3.1.
            unanswered = not getattr(error, "partial", b"")
            if reused and unanswered:
                repeated = True
                kept.clear()
                continue
            return type(error).__name__
        except Failed as error:
            connection[1].close()
            return str(error)
        except asyncio.CancelledError:
            connection and connection[1].transport.abort()
            raise
        if kept is None or len(kept) >= KEPT_CONNECTIONS:
            connection[1].close()
        else:
            kept.insert(0, connection)
        if not body.startswith(want):
            return "wrong-answer"
        return "repeated" if repeated else "ok"


async def visit(address, rate, log, tools):
    kept, running = [], set()
    with open(log, "w", buffering=1, encoding="utf-8") as lines:

        async def ask(number):
            tool = tools[number % len(tools)]
            lines.write(f"{number} start {now_ms()}\n")
            pool = kept if number % KEPT_SHARE == 0 else None
            try:
                asking = request(address, f"/{tool}/", f"served by tools.{tool}", pool)
                outcome = await asyncio.wait_for(asking, ANSWER_SECONDS)
            except asyncio.TimeoutError:
                outcome = "timeout"
            lines.write(f"{number} {outcome} {now_ms()}\n")

        begun, number = time.monotonic(), 0
        while True:
            task = asyncio.create_task(ask(number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            ahead = begun + number / rate - time.monotonic()
            if ahead < -STALL_SECONDS:  # this process stood still: no burst, which would meet the limits of open requests
                begun -= ahead
            await asyncio.sleep(max(0, ahead))


def read_visits(log, begin, end):
    """The requests that started in this time, as (start, end, outcome); waits for those that have no outcome yet."""
    deadline = time.monotonic() + ANSWER_SECONDS + 20
    while True:
        started, visits = {}, []
        with open(log, encoding="utf-8") as lines:
            for line in lines:
                number, what, at = line.split()
                if what == "start":
                    if begin <= int(at) < end:
                        started[number] = int(at)
                elif number in started:
                    visits.append((started.pop(number), int(at), what))
        if not started:
            return visits
        if time.monotonic() > deadline:
            sys.exit(f"failover_load.py: {len(started)} requests have no outcome in {log}")
        time.sleep(0.1)


def report(log, begin, end):
    visits = read_visits(log, begin, end)
    if not visits:
        sys.exit(f"failover_load.py: no request from {begin} to {end} in {log}")
    good = [visit for visit in visits if visit[2] in ("ok", "repeated")]
    failures = [outcome for *_, outcome in visits if outcome not in ("ok", "repeated")]
    answered = [begin, *sorted(at for _, at, _ in good), end]
    gap = max(later - earlier for earlier, later in zip(answered, answered[1:]))
    slowest = max((at - since for since, at, _ in good), default=0)
    kinds = ",".join(f"{kind}:{failures.count(kind)}" for kind in sorted(set(failures))) or "-"
    print(len(visits), len(failures), sum(v[2] == "repeated" for v in visits), gap, slowest, kinds)


async def register(proxy, pattern, url, command="register"):
    """The listener's reply, or why there is none."""
    try:
        reader, writer = await asyncio.open_connection(proxy, 8282)
        writer.write(f"{command}\n{pattern}\n{url}\n".encode())
        reply = await reader.read(200)
        writer.close()
        return reply.decode() or "no reply"
    except OSError as error:
        return type(error).__name__


async def within(seconds, awaitable, late):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        return late


async def change(pattern, url, path, want, seconds, proxies):
    deadline = time.monotonic() + seconds

    async def until(is_done, what):
        while not await is_done():
            if time.monotonic() > deadline:
                sys.exit(f"failover_load.py: not within {seconds} s: {what}")
            await asyncio.sleep(0.03)
        return now_ms()

    async def registers_with(proxy):
        return await within(3, register(proxy, pattern, url), "late") == "ok"

    async def serves(proxy):
        async def body():
            try:
                return await exchange(await asyncio.open_connection(proxy, 80), proxy, path, False)
            except (OSError, asyncio.IncompleteReadError, Failed) as error:
                return str(error)

        return await within(1, body(), "late") == want

    # As webservice-runner does: with each proxy by itself.
    tries = [asyncio.create_task(until(lambda p=proxy: registers_with(p), f"{proxy} registers")) for proxy in proxies]
    done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
    registered = min(task.result() for task in done)
    served = await asyncio.gather(*(until(lambda p=proxy: serves(p), f"{proxy} serves {want}") for proxy in proxies))
    for task in tries:
        task.cancel()
    print(registered, max(served))


async def master_according_to(sentinel, master):
    try:
        reader, writer = await asyncio.open_connection(sentinel, 26379)
        writer.write(f"SENTINEL get-master-addr-by-name {master}\r\n".encode())
        lines = [await reader.readline() for _ in range(5)]
        writer.close()
        return lines[2].decode().strip() or None
    except (OSError, IndexError):
        return None


async def watch(master, log, sentinels):
    answers, named = {}, None
    with open(log, "w", buffering=1, encoding="utf-8") as lines:

        async def ask(sentinel):
            nonlocal named
            while True:
                answer = await within(0.5, master_according_to(sentinel, master), None)
                answers[sentinel] = answer or answers.get(sentinel)
                votes = list(answers.values())
                if answer != named and votes.count(answer) * 2 > len(sentinels):
                    named = answer
                    lines.write(f"{now_ms()} {named}\n")
                await asyncio.sleep(0.02)

        await asyncio.gather(*map(ask, sentinels))


def main():
    match sys.argv[1:]:
        case ["serve", port, text]:
            asyncio.run(serve(int(port), text))
        case ["visit", address, rate, log, *tools] if tools:
            asyncio.run(visit(address, int(rate), log, tools))
        case ["report", log, begin, end]:
            report(log, int(begin), int(end))
        case ["change", pattern, url, path, want, seconds, *proxies] if proxies:
            asyncio.run(change(pattern, url, path, want, int(seconds), proxies))
        case ["register", proxy, pattern, url]:
            print(asyncio.run(within(5, register(proxy, pattern, url), "late")))
        case ["watch", master, log, *sentinels] if sentinels:
            asyncio.run(watch(master, log, sentinels))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
