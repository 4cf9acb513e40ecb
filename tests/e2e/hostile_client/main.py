#!/usr/bin/python3
"""A hostile client against the proxy with the module and beside it against the same nginx without: the same inputs to both.

    main.py redis LANE...         prints the commands that write the routes, as JSON, one a line
    main.py run                   sends inputs until the time is over; options from the environment, see tests/e2e/hostile
"""

import asyncio
import collections
import json
import os
import pathlib
import random
import re
import sys
import time

import admin
import corpus
import evil
import http1
import http2
import sites
from backends import Backends
from exchange import (ADMIN_PORTS, answers_in, ask_honestly, ask_honestly_h2, connect, hang_up, hear, host_of, plain, send,
                      serials_in,
                      transcript)
from watch import NGINX_OWN, Proxy

# How long a proxy has to be silent to be waiting for more. Another answer is asked for again, more patiently, before it counts.
PATIENCE_SECONDS = [0.03, 0.03, 0.2, 1, 5]
MAX_FINDINGS = int(os.environ.get('MAX_FINDINGS') or 8)
# The generators, and how often each is taken.
MAKERS = {http1: 12, http2: 8, evil: 3, admin: 3}
MIN_INPUTS = 5

# What differs by design, apart from redirects, which corpus.py checks. Each has its reason, and applies to nothing else.
DOCUMENTED = {
    "not final": "a backend's response that is no final HTTP response is answered with 502; nginx passes it on: docs/directives.md",
    "nginx's own alert": "not a difference, but trouble otherwise: nginx logs it with and without the module, see watch.py",
}


class Run:
    def __init__(self):
        environment = os.environ.get
        self.seconds = float(environment("DURATION") or 45)
        self.seed = environment("SEED") or str(random.SystemRandom().randrange(1 << 32))
        self.broken = environment("BREAK") or ""
        self.only = environment("INPUT") or ""
        self.lanes = environment("LANES", "").split()
        work = pathlib.Path(environment("WORK"))
        self.backends = Backends(self.lanes, (work / "ca.pem", work / "key.pem"), raw_model=self.broken == "model")
        self.proxies = [Proxy("module", work / "nginx.pid", work / "error.log"),
                        Proxy("static", work / "static/nginx.pid", work / "static/error.log")]
        self.findings = []
        # The second half goes on where the first ends: new inputs.
        self.numbers = collections.Counter()
        self.counts = collections.Counter()
        self.documented = collections.Counter()
        self.answers = collections.Counter()
        self.again = 0
        self.deadline = 0

    def find(self, what):
        self.findings.append(what)
        print(f"hostile: FOUND {what}\n", flush=True)

    def is_over(self):
        return time.monotonic() > self.deadline or len(self.findings) >= MAX_FINDINGS

    async def one(self, side, lane, made, token, quiet):
        """Sends an input to one proxy; returns what the client and the backends saw."""
        place = self.backends.lanes[lane]
        place.begin(side)
        place.plan = made.plan
        try:
            client = await connect(side, made.name, made.protocol)
        except OSError as error:
            return {"client": {"closed": f"no connection: {error}"}, "backends": []}
        await send(client, made.pieces)
        if made.gone_after is not None:
            await asyncio.sleep(made.gone_after)
            hang_up(client)
            return {"client": {"closed": True, "data": b""}, "backends": []}
        await hear(client, quiet)
        is_h2 = made.protocol == "h2"
        closed = client.closed
        data = bytes(client.data)
        seen = [request.key() for request in place.seen[side]]
        if is_h2 or made.loose:
            seen.sort()
        hang_up(client)
        if side == "module":
            self.count_answers(data, is_h2)
        serials, echoes = serials_in(data, is_h2)
        for serial in serials:
            if serial not in place.serials[side]:
                self.find(f"{side}, lane {lane}: the client got the answer {serial!r} to another request; input {made.pieces!r}")
        for echo in echoes:
            if echo not in (token, b"none") and made.kind.find("mutated") < 0:
                self.find(f"{side}, lane {lane}: the client {token!r} got the answer to {echo!r}; input {made.pieces!r}")
        if made.plan is None and b"forged" in data:
            self.find(f"{side}, lane {lane}: a forged answer reached another client; input {made.pieces!r}")
        if made.methods and side == "module":
            self.check_others(lane, made, data, closed)
        answer = transcript(data, closed, made.reset) if is_h2 else {"data": plain(data), "closed": closed}
        # When the connection fails, so may requests that were not passed on yet.
        loose = made.loose or (is_h2 and bool(answer["connection"]))
        return {"client": answer, "backends": [] if loose else seen}

    def count_answers(self, data, is_h2):
        if not is_h2:
            self.answers.update(re.findall(rb"(?:\A|[^ ])HTTP/1\.1 (\d{3})", data) or [b"none"])
            return
        seen = transcript(data, True, ())
        for events in [*seen["streams"].values(), seen["connection"]]:
            for kind, what, *_ in events:
                if kind in ("headers", "reset", "goaway"):
                    self.answers[b"h2 " + (dict(what)[b":status"] if kind == "headers" else kind.encode())] += 1

    def check_others(self, lane, made, data, closed):
        """After a hostile answer, the connection's next requests have their own tools' answers, or the connection has ended."""
        wanted = [(200, f"twin-{lane}"), (200, f"alpha-{lane}")]
        if made.protocol == "h2":
            streams = transcript(data, closed, ())["streams"]
            heads = [next((dict(event[1]) for event in streams.get(stream, []) if event[0] == "headers"), None) for stream in (3,
                          5)]
            # An answer may still be on its way when the proxy is taken for quiet.
            answers = [(int(head[b":status"]), head.get(b"x-tool", b"").decode()) for head in heads if head]
            wrong = [answer for answer, want in zip(answers, [want for head, want in zip(heads, wanted) if head]) if answer != want]
        else:
            first, *answers = answers_in(data, made.methods) or [None]
            wrong = [first] * isinstance(first, str) + [answer for answer, want in zip(answers, wanted) if answer != want]
        if wrong:
            self.find(f"module, lane {lane}: after {made.plan!r} others were answered {wrong!r}: {shorten(data)}")

    async def both(self, lane, made, token):
        """Sends an input to both proxies until they agree, or differ when asked patiently."""
        if made.judge or made.protocol in ADMIN_PORTS:
            return await self.admin(lane, made, token)
        module = static = None
        for number, quiet in enumerate(PATIENCE_SECONDS):
            self.again += number > 0
            module, static = await asyncio.gather(*(self.one(side, lane, made, token, quiet) for side in sites.NETWORKS))
            # A proxy that gets no processor is silent too.
            if number == 0 and is_silent(module["client"]):
                continue
            alike = module == static or self.is_documented(made, module, static) \
                or (number > 0 and end_alike(module["client"], static["client"]))
            if alike and (made.expected is None or corpus.meets(made, module)):
                return
        if module == static:
            self.find(f"{made.kind}: expected {made.expected}, found {corpus.outcome(made, module)}\n  input  {shorten(made.pieces)}")
            return
        self.find(f"SEED={self.seed} INPUT={lane}/{token.decode().split('.')[-1]} a difference, {made.kind}"
                  f"{'; plan ' + repr(made.plan) if made.plan else ''}\n  input  {shorten(made.pieces)}\n"
                  f"  module {around(module, static)}\n  static {around(static, module)}")

    async def admin(self, lane, made, token):
        """Sends an input to the module's own pages."""
        for quiet in PATIENCE_SECONDS:
            answer = await self.one("module", lane, made, token, quiet)
            wrong = made.judge and made.judge(made, answer["client"]["data"])
            if not wrong:
                self.counts["explanation"] += wrong == ""
                return
        self.find(f"SEED={self.seed} INPUT={lane}/{token.decode().split('.')[-1]} {made.kind}: {wrong}\n  input  {shorten(made.pieces)}\n"
                  f"  answer {shorten(answer['client']['data'])}")

    def is_documented(self, made, module, static):
        if made.plan and made.plan.refused and module["backends"] and module["backends"][0] == (static["backends"] or [None])[0]:
            client = module["client"]
            if made.protocol == "h2":
                refused = dict(client["streams"].get(1, [("", ())])[0][1]).get(b":status") == b"502"
            else:
                refused = client["data"].startswith(b"HTTP/1.1 502 ")
            if refused:
                self.documented["not final"] += 1
                return True
        return False

    async def lane(self, lane):
        while not self.is_over():
            number = self.numbers[lane]
            self.numbers[lane] += 1
            if self.only:
                wanted, number = self.only.split("/")
                if wanted != lane:
                    return
                number = int(number)
            token = f"{lane}.{number}".encode()
            # Each input has its own generator, so that one can be repeated alone.
            dice = random.Random(f"{self.seed}/{lane}/{number}")
            make = dice.choices(list(MAKERS), list(MAKERS.values()))[0]
            made = make.generate(dice, lane, token)
            if dice.random() < 0.05:
                made.gone_after, made.judge = dice.choice([0, 0.001, 0.003]), None
            self.counts[make.__name__] += 1
            await self.both(lane, made, token)
            if self.only:
                print(f"input {made.protocol} {made.pieces!r}")
                return

    async def visitor(self, side, number):
        """Honest requests beside it all, on connections that it keeps for a while."""
        dice = random.Random(f"{self.seed}/{side}/{number}")
        while not self.is_over():
            mode = dice.choice(["path", "subdomain", "domain"])
            lane = dice.choice(self.lanes)
            tool = dice.choice(["site", "wild"] if mode == "domain" else ["alpha", "beta", "gamma", "twin", "delta"])
            host, prefix = host_of(mode, tool, lane)
            protocol, ask = dice.choice([("http/1.1", ask_honestly), ("http/1.1", ask_honestly), ("h2", ask_honestly_h2)])
            client = await connect(side, host, protocol)
            for _ in range(dice.choice([1, 3, 10])):
                token = f"{side}.{number}.{self.counts['honest']}".encode()
                path = f"{prefix}/honest/{token.decode()}".encode()
                answer = await ask(client, host.encode(), path, token)
                self.counts["honest"] += 1
                if answer is None:
                    self.find(f"{side}: an honest connection was closed; {host}{path!r}")
                    break
                head, body = answer
                wanted = f"{tool} GET {path.decode()} HTTP/1.1\n".encode()
                if not head.startswith(b"HTTP/1.1 200 ") or body != wanted or b"X-Echo: " + token + b"\r\n" not in head + b"\r\n":
                    self.find(f"{side}: an honest client asked {host}{path!r} and got {head[:300]!r} {body[:300]!r}, not {wanted!r}")
                    break
                await asyncio.sleep(0.05)
            hang_up(client)

    async def watcher(self, half):
        """Looks at the processes, and breaks things if asked to."""
        while not self.is_over():
            await asyncio.sleep(0.5)
            for proxy in self.proxies:
                if wrong := proxy.gone():
                    self.find(wrong)
                    proxy.workers = proxy.children()
            if self.backends.complaints:
                for complaint in self.backends.complaints:
                    self.find(complaint)
                self.backends.complaints.clear()
            if half and self.broken == "kill":
                os.kill(self.proxies[0].workers[0], 11)
                self.broken = ""
            if half and self.broken == "leak":
                self.leaks = [await connect("module", sites.PATH_HOST, "http/1.1") for _ in range(100)]
                self.broken = ""
            if half and self.broken == "memory":
                self.leaks = [await connect("module", sites.PATH_HOST, "h2") for _ in range(6)]
                for client in self.leaks:
                    await send(client, [http2.many_open(self.lanes)])
                self.broken = ""

    async def tenants(self):
        """Changes the table all the time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", 6379)
        for command in sites.changes(self.lanes):
            parts = [b"$%d\r\n%s\r\n" % (len(part.encode()), part.encode()) for part in command]
            writer.write(b"*%d\r\n" % len(parts) + b"".join(parts))
            answer = await reader.readline()
            if not answer.startswith(b":"):
                self.find(f"Redis answered {answer!r} to {command}")
            self.counts["change"] += 1
            await asyncio.sleep(0.01)
            if self.is_over():
                writer.close()
                return

    async def rest(self):
        """All connections of clients have ended: what the proxies still hold is theirs. Returns when that does not change."""
        before = None
        for _ in range(100):
            now = [[own for own, _ in proxy.descriptors()] for proxy in self.proxies]
            if now == before:
                break
            before = now
            await asyncio.sleep(0.3)
        for proxy in self.proxies:
            proxy.sample()

    async def half(self, number, seconds):
        """The same mixture for a while, then a rest."""
        self.deadline = time.monotonic() + seconds
        await asyncio.gather(*(self.lane(lane) for lane in self.lanes), self.watcher(number == 2), self.tenants(),
                             *(self.visitor(side, f"{number}.{visitor}") for side in sites.NETWORKS for visitor in range(2)))
        await self.rest()

    async def run(self):
        print(f"hostile: SEED={self.seed} repeats the inputs", flush=True)
        await self.backends.listen()
        await corpus.check(self)
        if self.only:
            self.deadline = time.monotonic() + 600
            await asyncio.gather(*(self.lane(lane) for lane in self.lanes))
        else:
            # The first quarter fills caches and pools.
            await self.half(0, self.seconds / 4)
            self.proxies[0].samples.clear()
            self.proxies[1].samples.clear()
            if len(self.findings) < MAX_FINDINGS:
                await self.half(1, self.seconds * 3 / 8)
            if len(self.findings) < MAX_FINDINGS:
                await self.half(2, self.seconds * 3 / 8)
        self.finish()

    def finish(self):
        for complaint in self.backends.complaints:
            self.find(complaint)
        for proxy in self.proxies:
            if wrong := proxy.gone():
                self.find(wrong)
            for line in proxy.trouble():
                if NGINX_OWN.search(line) and self.proxies[1].has_nginx_own():
                    self.documented["nginx's own alert"] += 1
                else:
                    self.find(f"{proxy.side}: the log says: {line}")
            if len(proxy.samples) > 1:
                for wrong in proxy.growth():
                    self.find(wrong)
            print(f"hostile: {proxy.side}: {proxy.report()}; {proxy.log_lines} lines in the log")
        print(f"hostile: {sum(self.numbers.values())} inputs ({dict(self.counts)}), {self.again} asked again, "
              f"{self.backends.requests} requests at the backends on {self.backends.connections} connections; "
              f"documented differences: {dict(self.documented)}")
        print(f"hostile: answers: {', '.join(f'{status.decode()}: {count}' for status, count in self.answers.most_common(25))}")
        few = [kind for kind in ("http1", "http2", "evil", "admin", "explanation", "honest",
                                 "change") if self.counts[kind] < MIN_INPUTS]
        if few and not self.only:
            self.find(f"fewer than {MIN_INPUTS} of {few}")
        if self.findings:
            print(f"hostile: FAILED with {len(self.findings)} findings, SEED={self.seed}")
            sys.exit(1)


def end_alike(module, static):
    """A connection of HTTP/2 that both have ended by the same GOAWAY: how much of the answers came before that is a race."""
    if not module.get("connection") or (module["connection"], module["closed"]) != (static.get("connection"), static["closed"]):
        return False
    both = module["streams"].keys() & static["streams"].keys()
    return all(one == other or one[0] == "data" == other[0]
               for stream in both for one, other in zip(module["streams"][stream], static["streams"][stream]))


def is_silent(client):
    """Neither an answer nor the end of the connection."""
    return not client["closed"] and not (client.get("data") or client.get("streams") or client.get("connection"))


def around(thing, other):
    """The part that differs, with the end of what does not."""
    thing, other = repr(thing), repr(other)
    same = next((at for at, pair in enumerate(zip(thing, other)) if pair[0] != pair[1]), min(len(thing), len(other)))
    return f"{thing[:90]} ... {thing[max(90, same - 60):same + 350]} ..."


def shorten(thing):
    text = repr(thing)
    return text if len(text) < 1500 else f"{text[:1000]} ...{len(text) - 1300} more... {text[-300:]}"


if sys.argv[1] == "redis":
    for command in sites.redis_commands(sys.argv[2:], swapped=os.environ.get("BREAK") == "swap"):
        print(json.dumps(command))
else:
    asyncio.run(Run().run())
