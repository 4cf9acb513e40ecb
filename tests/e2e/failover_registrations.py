#!/usr/bin/env python3
"""Registers many routes of many tools, as webservice-runner does, and compares what was acknowledged with what Redis has.

    failover_registrations.py register PROXY UID FIRST LAST PATTERNS RATE RENEW LOG
                                                              as the tools loadFIRST to loadLAST, users UID + FIRST to UID + LAST,
                                                              from all addresses of eth0, at RATE a second, each renewed within RENEW seconds; until killed
    failover_registrations.py lost LOG FAULT REDIS SECONDS    what was acknowledged before that time and Redis lacks; waits until Redis
                                                              has everything acknowledged; prints: acknowledged, lost, ms until then

A line of the log: milliseconds, tool's number, pattern, command, reply.
"""

import asyncio
import os
import random
import socket
import sys
import time
from itertools import product

FIRST_PORT = 7000  # below those that webservice-runner chooses
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30  # seconds between attempts


def now_ms():
    return time.time_ns() // 1_000_000


def as_user(uid, act):
    """Sockets belong to the effective user that creates or accepts them, and identd names that user."""
    os.seteuid(uid)
    try:
        return act()
    finally:
        os.seteuid(0)


def listen(uid, port):
    """A tool's server: accepts connections, and closes them after their client."""
    loop = asyncio.get_running_loop()
    listener = as_user(uid, lambda: socket.create_server(("", port), backlog=256))
    listener.setblocking(False)

    def accept():
        try:
            connection, _ = as_user(uid, listener.accept)
        except BlockingIOError:
            return

        def ended():
            try:
                if connection.recv(4096):
                    return
            except OSError:
                pass
            loop.remove_reader(connection)
            connection.close()

        connection.setblocking(False)
        loop.add_reader(connection, ended)

    loop.add_reader(listener, accept)


async def command(proxy, own, uid, lines):
    loop = asyncio.get_running_loop()
    with as_user(uid, socket.socket) as connection:
        connection.setblocking(False)
        connection.bind((own, 0))
        try:
            async with asyncio.timeout(10):
                await loop.sock_connect(connection, (proxy, 8282))
                await loop.sock_sendall(connection, "".join(f"{line}\n" for line in lines).encode())
                return (await loop.sock_recv(connection, 200)).decode().replace(" ", "-") or "none"
        except OSError as error:
            return type(error).__name__


async def register(proxy, uid, tools, patterns, rate, renew, log):
    # proxylistener limits the connections of each host.
    addresses = [line.split()[3].split("/")[0] for line in os.popen("ip -4 -o address show dev eth0")]
    with open(log, "w", buffering=1, encoding="utf-8") as lines:

        async def keep_registered(tool, pattern):
            own = addresses[tool % len(addresses)]
            url = f"http://{own}:{FIRST_PORT + tool}"
            name, pause = "register", FIRST_PAUSE
            while True:
                reply = await command(proxy, own, uid + tool, [name, pattern, url])
                lines.write(f"{now_ms()} {tool} {pattern} {name} {reply}\n")
                if reply == "ok":
                    name, pause = "renew", FIRST_PAUSE
                    await asyncio.sleep(renew * random.uniform(0.5, 1))
                else:
                    await asyncio.sleep(pause * random.uniform(0.5, 1))
                    pause = min(2 * pause, LONGEST_PAUSE)

        for tool in tools:
            listen(uid + tool, FIRST_PORT + tool)
        begun, running = time.monotonic(), []
        for number, (pattern, tool) in enumerate(product(range(patterns), tools)):
            await asyncio.sleep(max(0, begun + number / rate - time.monotonic()))
            running.append(asyncio.create_task(keep_registered(tool, f"/p{pattern}")))
        await asyncio.gather(*running)


def acknowledged(log, before):
    with open(log, encoding="utf-8") as lines:
        replies = [line.split() for line in lines if line.endswith("\n")]
    return {(tool, pattern) for at, tool, pattern, _, reply in replies if reply == "ok" and int(at) < before}


def stored(redis, tools):
    """The routes that Redis has."""
    routes = set()
    with socket.create_connection((redis, 6379), 5) as connection, connection.makefile("rb") as replies:
        for tool in tools:
            connection.sendall(f"HKEYS prefix:load{tool}\r\n".encode())
            count = int(replies.readline()[1:])
            for _ in range(count):
                size = int(replies.readline()[1:])
                routes.add((tool, replies.read(size + 2)[:-2].decode()))
    return routes


def lost(log, fault, redis, seconds):
    before = acknowledged(log, fault)
    tools = {tool for tool, _ in before}
    missing = before - stored(redis, tools)
    deadline = time.monotonic() + seconds
    while True:
        since = now_ms()
        absent = acknowledged(log, since) - stored(redis, tools)
        if not absent:
            break
        if time.monotonic() > deadline:
            sys.exit(f"failover_registrations.py: {len(absent)} acknowledged routes are not back within {seconds} s")
        time.sleep(0.1)
    print(len(before), len(missing), since - fault)


def main():
    match sys.argv[1:]:
        case ["register", proxy, uid, first, last, patterns, rate, renew, log]:
            tools = range(int(first), int(last) + 1)
            asyncio.run(register(proxy, int(uid), tools, int(patterns), int(rate), int(renew), log))
        case ["lost", log, fault, redis, seconds]:
            lost(log, int(fault), redis, int(seconds))
        case _:
            sys.exit(__doc__)


main()
