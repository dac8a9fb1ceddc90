"""What a running meter is told from outside."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterOptions:
    """Values that `meter.app.serve` runs on; read from environment and file by the command.

    Addresses are `host:port`, port 0 for any free one. `key_pepper` keys the hash of API keys.
    `tiers` are the names that this installation sells. `shard` is the journal shard that this
    process owns. `buffer_bytes_max` bounds what waits for its commit.
    """

    database_url: str
    grpc_address: str
    http_address: str
    tls_certificate: Path | None
    tls_key: Path | None
    key_pepper: bytes
    tiers: tuple[str, ...]
    shard: int
    buffer_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What a job on the meter's database is told; the tiers are as in `MeterOptions`."""

    database_url: str
    tiers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a running meter listens, with the ports that it really got."""

    grpc: str
    http: str
