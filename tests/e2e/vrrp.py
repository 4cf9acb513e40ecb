#!/usr/bin/env python3
"""Claims a virtual address, as another program than keepalived could: sends VRRP advertisements for three seconds.

    vrrp.py FROM TO ADDRESS [TTL]    version 3, router 51, the highest priority; FROM may be a lie, so this is for root
"""

import socket
import struct
import sys
import time

ROUTER, PRIORITY, INTERVAL_CENTISECONDS = 51, 254, 25
PROTOCOL = 112


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def advertisement(source, target, address, ttl):
    source, target, address = (socket.inet_aton(text) for text in (source, target, address))
    head = struct.pack("!BBBBH", 3 << 4 | 1, ROUTER, PRIORITY, 1, INTERVAL_CENTISECONDS)
    # RFC 5798, 5.2.8: over a pseudo-header, too.
    pseudo = source + target + struct.pack("!HH", PROTOCOL, 12)
    body = head + struct.pack("!H", checksum(pseudo + head + b"\0\0" + address)) + address
    # The kernel fills in the length and the checksum.
    return struct.pack("!BBHHHBBH", 0x45, 0xC0, 0, 0, 0, ttl, PROTOCOL, 0) + source + target + body


# RFC 5798, 5.1.1.3: a TTL of 255; each router lowers it.
def main(source, target, address, ttl=255):
    packet = advertisement(source, target, address, int(ttl))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(30):
            raw.sendto(packet, (target, 0))
            time.sleep(0.1)


main(*sys.argv[1:])
