"""Ports for servers that tests start.

They are outside the range from which the kernel takes the ports of connections (32768 and above), where one that was
free a moment ago may be gone. Each worker of pytest-xdist has a part of its own, so that no two race for one.
"""

import itertools
import os
import random
import socket

PARTS, PART = 16, 625  # 10000 to 19999
BESIDE = 10_000  # SeaweedFS opens a second port, so much higher, for gRPC


def _part() -> range:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    first = 10_000 + int(worker.removeprefix("gw")) % PARTS * PART
    return range(first, first + PART)


# In turn, from a random one on: none comes again soon, and another run of the tests on this machine has others.
_ports = itertools.cycle(random.sample(_part(), PART))


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, as the one 10,000 higher is; never the same twice in a row of calls."""
    for port in itertools.islice(_ports, PART):
        if _is_free(port) and _is_free(port + BESIDE):
            return port
    raise RuntimeError(f"no free port among {_part()}")


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
