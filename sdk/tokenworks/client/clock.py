"""What the client takes from its surroundings: clocks, randomness, names of host and program."""

import random
import re
import secrets
import socket
import sys
from pathlib import Path
from time import monotonic, time_ns

__all__ = ["default_producer", "monotonic", "new_instance", "new_request_id", "time_ns", "uniform"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def default_producer() -> str:
    """Name the reporting server after its host and program: the same after a restart.

    1–64 characters of ``[A-Za-z0-9._-]``. Two processes of one program on one host get the same
    name and would fence each other: with a spool each takes a slot, which is part of its name;
    without one such processes have to be named by their operator.
    """
    program = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python"
    if program in ("", "-c", "-m", "__main__"):
        program = "python"
    name = _NOT_IN_NAMES.sub("-", f"{socket.gethostname()[:40]}-{program}")
    return name[:64]


def new_instance() -> bytes:
    """Draw the 16 random bytes that tell this start of the process from every other."""
    return secrets.token_bytes(16)


def new_request_id() -> str:
    """Draw the id of a request that came without one: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def uniform(low: float, high: float) -> float:
    """Draw a number between two bounds, to spread retries."""
    return random.uniform(low, high)  # noqa: S311 - spreads load, guards nothing
