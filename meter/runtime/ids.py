"""Random ids: the only place of the service that draws them."""

import secrets


def random_bytes(count: int) -> bytes:
    """Return `count` bytes from the system's secure source."""
    return secrets.token_bytes(count)
