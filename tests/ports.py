"""Free ports for servers that cannot choose their own."""

import contextlib
import random
import socket
from typing import Final

# Below what the machine gives to whoever connects: a port stays free until its server listens.
_PORTS: Final = range(20_000, 30_000)


def find_free_ports(count: int) -> list[int]:
    """Find so many ports of 127.0.0.1 on which nobody listens, each another one."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are not {count} free ports")
