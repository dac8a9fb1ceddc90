"""Random ids: the only place of the service that draws them."""

import os
import secrets
import socket


def random_bytes(count: int) -> bytes:
    """Return `count` bytes from the system's secure source."""
    return secrets.token_bytes(count)


def process_name() -> str:
    """Return a name that no other process has, in which a person finds its host and number."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
