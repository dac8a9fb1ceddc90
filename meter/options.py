"""What a running meter is told from outside."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meter.domain.times import to_iso
from meter.sources.places import Places

# For how long a connection goes on with a certificate that is revoked meanwhile.
CONNECTION_AGE_SECONDS: Final = 600
# Where exporters of OpenTelemetry look for a collector.
OTLP_GRPC_ADDRESS: Final = "127.0.0.1:4317"
OTLP_HTTP_ADDRESS: Final = "127.0.0.1:4318"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySource:
    """Where the energy of a pool's accelerators is read.

    `url` is that of dcgm-exporter's page, by HTTP; `nvml` for the accelerators of the meter's own
    machine; or `static:WATTS` for a rating of the whole pool, the last resort. A pool may have many
    that measure, one for each of its nodes.
    """

    pool: str
    url: str

    @property
    def is_nvml(self) -> bool:
        """Tell whether it is the accelerators of this machine."""
        return self.url == "nvml"

    @property
    def static_watts(self) -> int | None:
        """The rating in watts; None of a source that measures."""
        kind, _, watts = self.url.partition(":")
        return int(watts) if kind == "static" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlace:
    """Where a replica of an inference engine shows its own counters, by HTTP, and its pool."""

    pool: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterOptions:
    """Values that `meter.app.serve` runs on; read from environment and file by the command.

    Addresses are `host:port`, port 0 for any free one. Without a certificate both ports are plain;
    with one `http_tls` says whether HTTP is too. Of `tls_client_ca` clients need a certificate. A
    gRPC connection lives for `connection_age_seconds`. `key_pepper` keys the hash of API keys.
    `tiers` are the names that this installation sells. `shard` is the journal shard that this
    process begins with, whoever has it; None is the lowest that nobody has. `buffer_bytes_max`
    bounds what waits for its commit, `calls_per_second_max` what one API key may ask.
    `sandbox_clock_ms` asks for a driven clock, and is where one begins that is new; None asks for
    the real one. A producer that is not heard for `silence_seconds` is silent. What is acknowledged
    is durable once each of the `durable_standbys` has it; without any, once it is recorded. The
    `energy_sources` are read every `energy_scrape_seconds`, on a driven clock at each edge;
    exporters read their boards every `energy_collect_seconds`. A month of the journal leaves the
    database after `journal_retention_days` for the `archive_folder`; None keeps all of it. With
    `otlp` the services of OTLP stand at two further addresses, and at both of the others. `places`
    say where each source has the account and the rest. The `engines` are read as often as the
    energy sources; from `engine_drift_hold_ppm` on, what they counted and was not metered holds
    invoices, None: nothing does. `crew` names the workers of one machine that share their ports
    and what is read of the machine itself; None is a meter that is all of them.
    """

    database_url: str
    grpc_address: str
    http_address: str
    tls_certificate: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    http_tls: bool
    connection_age_seconds: int
    key_pepper: bytes
    tiers: tuple[str, ...]
    shard: int | None
    buffer_bytes_max: int
    calls_per_second_max: int
    sandbox_clock_ms: int | None
    silence_seconds: int
    durable_standbys: tuple[str, ...]
    energy_sources: tuple[EnergySource, ...]
    energy_scrape_seconds: int
    energy_collect_seconds: int
    archive_folder: Path | None = None
    journal_retention_days: int | None = None
    otlp_traces_endpoint: str | None = None
    otlp: bool = False
    otlp_grpc_address: str = OTLP_GRPC_ADDRESS
    otlp_http_address: str = OTLP_HTTP_ADDRESS
    places: Places = field(default_factory=Places)
    engines: tuple[EnginePlace, ...] = ()
    engine_drift_hold_ppm: int | None = None
    crew: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What a job on the meter's database is told; as in `MeterOptions`."""

    database_url: str
    tiers: tuple[str, ...]
    archive_folder: Path | None = None
    otlp_traces_endpoint: str | None = None
    engine_drift_hold_ppm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a running meter listens, with the ports that it really got.

    Those of OTLP are None where it is off. `driven_ms` is where a sandbox's clock stands at the
    start; None on the real one.
    """

    grpc: str
    http: str
    driven_ms: int | None
    otlp_grpc: str | None = None
    otlp_http: str | None = None

    @property
    def sandbox_clock(self) -> str | None:
        """Where a sandbox's clock stands at the start, in ISO 8601."""
        return None if self.driven_ms is None else to_iso(self.driven_ms)
