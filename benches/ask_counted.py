#!/usr/bin/env python3
"""Sends requests over one connection to a server under callgrind, and has exactly these requests counted.

usage: ask_counted.py ADDRESS PID COUNT NAME [FIRST]

With FIRST, request i is for the tool NAME-<FIRST + i>: every tool once. Without, all are for NAME.
Callgrind's dump covers only the COUNT requests: connecting and the first requests, which open connections to backends and
fill nginx's caches, precede the reset of the counters.
"""
import socket
import subprocess
import sys

WARM_UP = 20
# As sent by curl. The Host names the tool as well, so that path and domain mode get the same requests.
REQUEST = "GET /{tool}/x HTTP/1.1\r\nHost: {tool}.example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"


def ask(connection, tool):
    """Sends one request; exits at a status other than 200 or a closed connection."""
    connection.sendall(REQUEST.format(tool=tool).encode())
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += receive(connection, tool)
    head = answer[:end].lower()
    if not head.startswith(b"http/1.1 200 "):
        sys.exit(f"{tool}: expected 200, got {answer[:end].decode(errors='replace')}")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    while len(answer) < end + 4 + length:
        answer += receive(connection, tool)


def receive(connection, tool):
    received = connection.recv(65536)
    if not received:
        sys.exit(f"{tool}: the server closed the connection")
    return received


def main():
    address, pid, count, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    first = int(sys.argv[5]) if len(sys.argv) > 5 else None

    def tool(i):
        return name if first is None else f"{name}-{first + i:05}"

    def callgrind(option):
        subprocess.run(["callgrind_control", option, pid], check=True, capture_output=True)

    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(WARM_UP):
            ask(connection, tool(i))
        callgrind("--zero")
        for i in range(WARM_UP, WARM_UP + count):
            ask(connection, tool(i))
        callgrind("--dump")


main()
