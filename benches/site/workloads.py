"""The table of workloads: numbers of backends and tools, and distribution of requests."""
import random
from dataclasses import dataclass

# The peers of every workload.
MAIN_PEERS = ("module", "static", "haproxy")

# The Host of all requests.
HOST = "tools.example.org"

# Number of requests of a workload, generated in advance, equal for every peer.
SEQUENCE = 1 << 16


@dataclass(frozen=True)
class Workload:
    """One site and its traffic."""
    backends: int
    tools: int
    distribution: str  # uniform or zipf
    connections: int
    others: bool = False  # measured with all installed peers, not only MAIN_PEERS

    @property
    def name(self):
        return f"{self.backends} backends, {self.tools} tools, {self.distribution}, {self.connections} clients"

    @property
    def kept_per_backend(self):
        """Most connections that a peer may keep per backend: at least as many as it needs at once."""
        return max(64, self.connections if self.backends == 1 else 0)

    @property
    def is_shared(self):
        """Whether one backend serves many tools, like the platform's ingress or load balancer."""
        return self.backends < self.tools / 2

    def backend_of(self, tool):
        return tool % self.backends

    def address_of(self, backend):
        """A backend's own address in 127.0.0.0/8."""
        return f"127.1.{backend // 250}.{backend % 250 + 1}"

    def requests(self):
        """SEQUENCE requests: a path, and the backend's address, with which the answer begins."""
        rng = random.Random(15)
        tools = list(range(self.tools))
        rng.shuffle(tools)  # popularity is independent of the backend
        # Zipf's law: the tool of rank r gets requests in proportion to 1/r, as measured for many web sites.
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
    """The workloads selected by the options: the main table, all, or those with the given figures."""
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
