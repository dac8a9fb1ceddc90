"""Settings: the one reading of the environment and of the settings file.

A flag goes before the environment, the environment before the file, the file before the default.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from cli import setting_values as kinds
from cli.setting_sources import Given, find_faults, gather
from meter.domain.limits import RATE_WINDOW_SECONDS
from meter.options import (
    CONNECTION_AGE_SECONDS,
    OTLP_GRPC_ADDRESS,
    OTLP_HTTP_ADDRESS,
    EnergySource,
    EnginePlace,
)

PREFIX = "TOKENWORKS_"
CONFIG = "TOKENWORKS_CONFIG"
_MEBIBYTE = 1024 * 1024
# When a change of a setting counts.
_AFTER_A_RESTART = "after a restart"
_NEXT_COMMAND = "with the next command"
_AT_ONCE = "at once, where the file is another; a new name after a restart"
is_loopback = kinds.is_loopback


class SettingsError(Exception):
    """The settings cannot be used; the message has one line for each fault."""


def _setting(
    name: str,
    parse: Callable[[object], object],
    *,
    default: object,
    meaning: str,
    is_secret: bool = False,
    counts: str = _AFTER_A_RESTART,
) -> Any:  # noqa: ANN401  a field of the class
    told = {"env": f"{PREFIX}{name.upper()}", "parse": parse, "help": meaning, "counts": counts}
    return field(default=default, repr=not is_secret, metadata=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command and the process are told from outside, each value checked."""

    database_url: str | None = _setting(
        "database_url",
        kinds.read_database_url,
        default=None,
        meaning="The Postgres to use (15 to 18): postgresql://user:password@host:port/database."
        " It may name several host:port, separated by commas: the one that takes writes is used"
        " ([high availability](../operating/postgres-ha.md)). Without it `up` starts its own,"
        " and `serve` refuses to start.",
        is_secret=True,
    )
    pg_bin: Path | None = _setting(
        "pg_bin",
        kinds.read_path,
        default=None,
        meaning="Folder of the Postgres programs that `up` starts, instead of the embedded ones.",
    )
    grpc_address: str = _setting(
        "grpc_address",
        kinds.read_address,
        default="127.0.0.1:7411",
        meaning="Where the meter listens for gRPC, host:port. Port 0 is any free one.",
    )
    http_address: str = _setting(
        "http_address",
        kinds.read_address,
        default="127.0.0.1:7412",
        meaning="Where the meter listens for HTTP (metrics, health and reports), host:port.",
    )
    otlp: bool = _setting(
        "otlp",
        kinds.read_boolean,
        default=False,
        meaning="Whether traces and logs of OpenTelemetry are taken, as usage that engines and"
        " gateways report: at otlp_grpc_address and otlp_http_address, and at the other two"
        " addresses. [Sources](sources.md).",
    )
    otlp_grpc_address: str = _setting(
        "otlp_grpc_address",
        kinds.read_address,
        default=OTLP_GRPC_ADDRESS,
        meaning="Where OTLP is taken by gRPC, host:port; all that grpc_address serves is served"
        " there, too.",
    )
    otlp_http_address: str = _setting(
        "otlp_http_address",
        kinds.read_address,
        default=OTLP_HTTP_ADDRESS,
        meaning="Where OTLP is taken by HTTP, host:port: /v1/traces and /v1/logs.",
    )
    sources_file: Path | None = _setting(
        "sources_file",
        kinds.read_existing_file,
        default=None,
        meaning="File (TOML) that says where each source of usage has the account, the tier and"
        " the rest, and what a report gets that names none. [The file](sources-file.md).",
    )
    tls_certificate: Path | None = _setting(
        "tls_certificate",
        kinds.read_existing_file,
        default=None,
        meaning="File with the server's certificate chain (PEM); gRPC is then TLS only. It and"
        " its key are read again when they change. [TLS](../operating/tls.md).",
        counts=_AT_ONCE,
    )
    tls_key: Path | None = _setting(
        "tls_key",
        kinds.read_existing_file,
        default=None,
        meaning="File with the certificate's private key (PEM).",
        counts=_AT_ONCE,
    )
    tls_client_ca: Path | None = _setting(
        "tls_client_ca",
        kinds.read_existing_file,
        default=None,
        meaning="File with the authorities (PEM) of clients: who speaks gRPC, or reports by HTTP,"
        " has to show a certificate of theirs. [Clients'"
        " certificates](../operating/tls.md#mutual-tls).",
        counts=_AT_ONCE,
    )
    http_tls: bool = _setting(
        "http_tls",
        kinds.read_boolean,
        default=False,
        meaning="Whether HTTP is served over TLS too, with the same certificate; metrics and health"
        " without one of the client's.",
    )
    connection_age_seconds: int = _setting(
        "connection_age_seconds",
        kinds.read_integer(minimum=2, maximum=86_400),
        default=CONNECTION_AGE_SECONDS,
        meaning="For how long a gRPC connection lives, in seconds, until its client has to come"
        " anew and show a certificate that is valid then.",
    )
    insecure: bool = _setting(
        "insecure",
        kinds.read_boolean,
        default=False,
        meaning="Allows to listen to, or to send an API key to, another machine without TLS.",
    )
    key_pepper_file: Path | None = _setting(
        "key_pepper_file",
        kinds.read_existing_file,
        default=None,
        meaning="File with 32 bytes or more as hexadecimal digits, the key of the API keys'"
        " hashes. All servers of an installation share it; who loses it loses all API keys."
        " `up` makes its own, `serve` needs one.",
    )
    tiers: tuple[str, ...] = _setting(
        "tiers",
        kinds.read_tiers,
        default=("free", "medium", "high", "premium", "ultra"),
        meaning="The tiers that this installation sells, separated by commas. Events of others"
        " are set aside.",
    )
    shard: int | None = _setting(
        "shard",
        kinds.read_integer(minimum=0, maximum=32_767),
        default=None,
        meaning="The shard of the journal that this process begins with, taken over from"
        " whoever has it. Without it the lowest that nobody has: right for replicas.",
    )
    workers: int = _setting(
        "workers",
        kinds.read_integer(minimum=1, maximum=64),
        default=1,
        meaning="How many processes serve, at the same addresses: each a meter with a shard of its"
        " own. 1 with shard or sandbox_clock. [Workers](../operating/workers.md).",
    )
    buffer_bytes_max: int = _setting(
        "buffer_bytes_max",
        kinds.read_integer(minimum=_MEBIBYTE, maximum=64 * 1024 * _MEBIBYTE),
        default=256 * _MEBIBYTE,
        meaning="Bytes that may wait for their commit; more is refused with OVERLOADED.",
    )
    calls_per_second_max: int = _setting(
        "calls_per_second_max",
        kinds.read_integer(minimum=1, maximum=1_000_000),
        default=1_000,
        meaning="Calls that one API key may make in a second; what is above is held back, then"
        " refused with OVERLOADED. A core makes some two thousand with one event each: report"
        " several in a call, or by a stream, before raising this."
        " [All bounds](../operating/threat-model.md#bounds).",
    )
    sandbox_clock: datetime | None = _setting(
        "sandbox_clock",
        kinds.read_instant,
        default=None,
        meaning="Makes a sandbox of an empty database: it lives on a driven clock, which begins"
        " at this instant (2026-10-01T00:00:00Z) and stands still until `tokenworks billing"
        " clock --to` moves it. Later starts need the setting too, and any instant will do. A"
        " database that has lived on the real clock refuses it."
        " [What it is for](../operating/sandbox.md).",
    )
    silence_seconds: int = _setting(
        "silence_seconds",
        kinds.read_integer(minimum=10, maximum=86_400),
        default=60,
        meaning="For how long a producer that is registered or active may be unheard, in"
        " seconds, before it is called silent. In a sandbox nobody is."
        " [Silence and gaps](../operating/producers.md).",
    )
    durable_standbys: tuple[str, ...] = _setting(
        "durable_standbys",
        kinds.read_standbys,
        default=(),
        meaning="The standbys of the database, by their application_name and separated by"
        " commas, that must have a batch on disk before producers forget it. One that is not"
        " connected holds all of them back. Without any, what the database has recorded is"
        " durable. [What durable means](../operating/producers.md#what-durable-means).",
    )
    energy_sources: tuple[EnergySource, ...] = _setting(
        "energy_sources",
        kinds.read_energy_sources,
        default=(),
        meaning="Where energy is read, separated by commas: pool=URL for dcgm-exporter's page"
        " of a node (`h100=http://node-1:9400/metrics`), pool=nvml for the GPUs of the meter's"
        " own machine. A pool may have many. Or pool=static:WATTS, a rating of the whole pool,"
        " for one of which nothing is measured. [How to set it up](../operating/energy.md).",
    )
    energy_scrape_seconds: int = _setting(
        "energy_scrape_seconds",
        kinds.read_integer(minimum=1, maximum=3600),
        default=15,
        meaning="How often the energy sources are read, in seconds. In a sandbox they are read"
        " at each edge of an interval instead.",
    )
    energy_collect_seconds: int = _setting(
        "energy_collect_seconds",
        kinds.read_integer(minimum=1, maximum=3600),
        default=30,
        meaning="How often the exporters look at their boards, in seconds: dcgm-exporter's"
        " `--collect-interval`. Four times this, and four times energy_scrape_seconds, must"
        f" fit into the {RATE_WINDOW_SECONDS} seconds of the recording rules.",
    )
    engines: tuple[EnginePlace, ...] = _setting(
        "engines",
        kinds.read_engines,
        default=(),
        meaning="Where inference engines show their own counters, separated by commas: pool=URL"
        " for the page of each replica (`h100=http://node-1:8000/metrics`), read every"
        " energy_scrape_seconds and compared with usage."
        " [Reconciliation](../operating/reconciliation.md).",
    )
    engine_drift_hold_ppm: int | None = _setting(
        "engine_drift_hold_ppm",
        kinds.read_integer(minimum=1, maximum=1_000_000),
        default=None,
        meaning="Invoices are held that bill a model of which engines counted, in their period,"
        " by so many millionths more or less than was metered. Without it none is held for that."
        " [Holding invoices](../operating/reconciliation.md#holding-invoices).",
    )
    journal_retention_days: int | None = _setting(
        "journal_retention_days",
        kinds.read_integer(minimum=35, maximum=3650),
        default=None,
        meaning="After so many days a month of the journal leaves the database for"
        " archive_folder. Without it all of it stays. [Retention](../operating/retention.md).",
    )
    archive_folder: Path | None = _setting(
        "archive_folder",
        kinds.read_path,
        default=None,
        meaning="Folder with the months that left the database, as Parquet; jobs and all"
        " servers see the same one. Needs `tokenworks[parquet]`.",
    )
    customer_metrics_max: int = _setting(
        "customer_metrics_max",
        kinds.read_integer(minimum=0, maximum=100),
        default=0,
        meaning="How many customers have a series of their own in"
        " tokenworks_customer_tokens_total: those that took the most in the last hour, by the"
        " names of their contracts. 0: the metric is off. Whoever reads the metrics reads the"
        " names.",
    )
    log_level: str = _setting(
        "log_level",
        kinds.read_log_level,
        default="info",
        meaning=f"What is logged: one of {', '.join(kinds.LOG_LEVELS)}.",
    )
    log_format: str = _setting(
        "log_format",
        kinds.read_log_format,
        default="text",
        meaning="How the log is written: text, or json, an object a line."
        " [Its events](log-events.md).",
    )
    otlp_traces_endpoint: str | None = _setting(
        "otlp_traces_endpoint",
        kinds.read_collector_url,
        default=None,
        meaning="Where traces are sent by OTLP over gRPC, http://host:4317 or https://…; needs"
        " the extra `otel`. Without it nothing is traced. [Traces](../operating/traces.md).",
    )
    server: str | None = _setting(
        "server",
        kinds.read_text,
        default=None,
        meaning="The meter that commands speak to: host:port, which means TLS unless it is this"
        " machine, or https://host:port or http://host:port. Without it, the one of the"
        " credentials file.",
        counts=_NEXT_COMMAND,
    )
    api_key: str | None = _setting(
        "api_key",
        kinds.read_text,
        default=None,
        meaning="The API key that commands use. Without it, the one of the credentials file,"
        " which is only ever sent to that file's own server.",
        is_secret=True,
        counts=_NEXT_COMMAND,
    )
    credentials_file: Path | None = _setting(
        "credentials_file",
        kinds.read_existing_file,
        default=None,
        meaning="File that `up` wrote, with server and API key, instead of the one in the"
        " nearest .tokenworks folder, from the current folder upward.",
        counts=_NEXT_COMMAND,
    )
    ca_certificate: Path | None = _setting(
        "ca_certificate",
        kinds.read_existing_file,
        default=None,
        meaning="File with the certificates (PEM) that commands trust instead of the system's.",
        counts=_NEXT_COMMAND,
    )
    client_certificate: Path | None = _setting(
        "client_certificate",
        kinds.read_existing_file,
        default=None,
        meaning="File with the certificate chain (PEM) that commands show a meter which asks"
        " for one. An API key that is bound to its name need not be sent then.",
        counts=_NEXT_COMMAND,
    )
    client_key: Path | None = _setting(
        "client_key",
        kinds.read_existing_file,
        default=None,
        meaning="File with that certificate's private key (PEM).",
        counts=_NEXT_COMMAND,
    )


def read_settings(
    *, config: Path | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """Read all settings; `flags` holds those of the command line, None for one not given.

    Raises SettingsError with every fault at once: unknown names, wrong values, half a pair.
    """
    faults: list[str] = []
    given = _gather(config, flags=flags or {}, faults=faults)
    values: dict[str, Any] = {}
    for each in fields(Settings):
        assert each.default is not MISSING
        if each.name in given:
            source, value = given[each.name]
            try:
                values[each.name] = each.metadata["parse"](value)
            except ValueError as error:
                faults.append(f"{source}: {error}")
    faults.extend(find_faults(values, given=given))
    if faults:
        raise SettingsError("\n".join(faults))
    return Settings(**values)


def find_sources(config: Path | None) -> dict[str, str]:
    """Return by name where what is set comes from, flags apart; what is wrong is passed over."""
    given = _gather(config, flags={}, faults=[])
    return {name: source for name, (source, _) in given.items()}


def _gather(
    config: Path | None, *, flags: Mapping[str, object], faults: list[str]
) -> dict[str, Given]:
    """Return what is set, by the settings' names; what is wrong is added to the faults."""
    environment = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    config_name = environment.pop(CONFIG, None)
    if config is None and config_name is not None:
        config = Path(config_name)
    names = {each.metadata["env"]: each.name for each in fields(Settings)}
    return gather(config, environment, flags=flags, names=names, faults=faults)
