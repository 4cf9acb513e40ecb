"""The table of workloads: how many backends and tools a site has, and who asks for what."""
import random
from dataclasses import dataclass

# The peers that every workload is measured with.
MAIN_PEERS = ("module", "static", "haproxy")

# What all requests are for.
HOST = "tools.example.org"

# Requests of a workload, drawn in advance; the same ones, in the same order, for every peer.
SEQUENCE = 1 << 16


@dataclass(frozen=True)
class Workload:
    """One site and its traffic."""
    backends: int
    tools: int
    distribution: str  # uniform or zipf
    connections: int
    others: bool = False  # measured with every peer that is installed, not with MAIN_PEERS alone

    @property
    def name(self):
        return f"{self.backends} backends, {self.tools} tools, {self.distribution}, {self.connections} clients"

    @property
    def kept_per_backend(self):
        """How many connections to one backend any peer may keep: never fewer than it needs at once."""
        return max(64, self.connections if self.backends == 1 else 0)

    @property
    def is_shared(self):
        """Whether a backend stands for many tools, as an ingress or a load balancer of the platform does."""
        return self.backends < self.tools / 2

    def backend_of(self, tool):
        return tool % self.backends

    def address_of(self, backend):
        """Each has an address of its own in 127.0.0.0/8."""
        return f"127.1.{backend // 250}.{backend % 250 + 1}"

    def requests(self):
        """SEQUENCE requests, each a path and the text that its answer begins with: the backend's own address."""
        rng = random.Random(15)
        tools = list(range(self.tools))
        rng.shuffle(tools)  # popularity has nothing to do with the backend
        # The tool of rank r is asked for in proportion to 1/r, as in most measurements of web sites.
        weights = [1 / rank for rank in range(1, self.tools + 1)] if self.distribution == "zipf" else None
        for tool in rng.choices(tools, weights, k=SEQUENCE):
            yield f"/{tool_name(tool)}/x", self.address_of(self.backend_of(tool))


def tool_name(tool):
    return f"tool-{tool:05}"


MAIN = [
    Workload(backends=1, tools=3000, distribution="uniform", connections=64),
    Workload(backends=1, tools=3000, distribution="zipf", connections=64),
    Workload(backends=200, tools=3000, distribution="uniform", connections=64),
    Workload(backends=200, tools=3000, distribution="zipf", connections=64, others=True),
    Workload(backends=2000, tools=3000, distribution="uniform", connections=64, others=True),
    Workload(backends=2000, tools=3000, distribution="zipf", connections=64),
    Workload(backends=2000, tools=20000, distribution="zipf", connections=512),
    Workload(backends=200, tools=3000, distribution="uniform", connections=1),
]


def chosen(options):
    """The workloads that the options ask for: the main table, all, or those of the given figures."""
    lists = {"backends": [1, 200, 2000], "tools": [3000, 20000], "distribution": ["uniform", "zipf"],
             "connections": [1, 64, 512]}
    given = {name: getattr(options, name) for name in lists if getattr(options, name)}
    if not given and not options.all:
        return MAIN
    typical = {"tools": [3000], "connections": [64]} if not options.all else {}
    values = {**lists, **typical, **given}
    return [Workload(backends, tools, distribution, connections)
            for backends in values["backends"] for tools in values["tools"]
            for distribution in values["distribution"] for connections in values["connections"]]
