"""The meter as a process: from settings to a server that runs until it is asked to stop."""

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from sqlalchemy.exc import DBAPIError

import billing.app
import meter.app
import migrations
from cli.closers import make_closers
from cli.process import CommandError, Exit, format_sandbox, report_progress
from cli.settings import Settings, is_loopback
from cli.traces import tracing
from meter.certificates import CertificateFault
from meter.crew import Crew
from meter.domain.errors import MeterError, Reason, Refused, Unavailable
from meter.domain.times import to_iso, to_ms
from meter.hosting import MakeResident
from meter.options import Addresses, JobOptions, MeterOptions
from meter.runtime.sessions import refuse_shared_sessions
from meter.sources.places import Places, read_places
from meter.toml_file import FileFaults

_log = logging.getLogger("tokenworks")
# A group of events is many objects that live for a moment, in no circles. Python's own threshold,
# 700 objects, has them looked through some times each: a fifth of what a report costs.
_OBJECTS_BEFORE_COLLECTION: Final = 50_000


class StopRequest:
    """Turns the first SIGINT or SIGTERM in the block into a request to stop; later ones do nothing.

    Before a meter runs the request is a KeyboardInterrupt, afterwards it stops the meter. So what
    stops can always finish, and nobody has to press Ctrl-C twice.
    """

    def __init__(self) -> None:
        self.requested = False
        self.notify: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        self._previous = {
            each: signal.signal(each, self._take) for each in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each, handler in self._previous.items():
            # A process that was asked to stop is left in peace until it has ended.
            signal.signal(each, signal.SIG_IGN if self.requested else handler)

    def ignore_further(self) -> None:
        """From now on everything stops anyway."""
        self.requested = True

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            return
        self.requested = True
        if self.notify is None:
            raise KeyboardInterrupt
        self.notify()


def refuse_exposure(settings: Settings) -> None:
    """End the command when other machines would reach the meter in the clear."""
    certificate = "TOKENWORKS_TLS_CERTIFICATE and TOKENWORKS_TLS_KEY"
    is_grpc_tls, is_http_tls = settings.tls_certificate is not None, settings.http_tls
    addresses = [
        (settings.grpc_address, is_grpc_tls, certificate),
        (settings.http_address, is_http_tls, f"{certificate}, and TOKENWORKS_HTTP_TLS"),
    ]
    if settings.otlp:
        addresses += [
            (settings.otlp_grpc_address, is_grpc_tls, certificate),
            (settings.otlp_http_address, is_http_tls, f"{certificate}, and TOKENWORKS_HTTP_TLS"),
        ]
    for address, is_tls, needed in addresses:
        if not is_tls and not settings.insecure and not is_loopback(address):
            raise CommandError(
                f"{address} can be reached from other machines without TLS: set {needed}, or allow"
                " it with --insecure",
                code=Exit.REFUSED,
            )


def make_options(settings: Settings, *, database_url: str, key_pepper: bytes) -> MeterOptions:
    """What the meter is told; ends the command when the file of sources cannot be used."""
    sandbox_clock = settings.sandbox_clock
    return MeterOptions(
        database_url=database_url,
        grpc_address=settings.grpc_address,
        http_address=settings.http_address,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
        http_tls=settings.http_tls,
        connection_age_seconds=settings.connection_age_seconds,
        key_pepper=key_pepper,
        tiers=settings.tiers,
        shard=settings.shard,
        buffer_bytes_max=settings.buffer_bytes_max,
        calls_per_second_max=settings.calls_per_second_max,
        sandbox_clock_ms=None if sandbox_clock is None else to_ms(sandbox_clock),
        silence_seconds=settings.silence_seconds,
        durable_standbys=settings.durable_standbys,
        energy_sources=settings.energy_sources,
        energy_scrape_seconds=settings.energy_scrape_seconds,
        energy_collect_seconds=settings.energy_collect_seconds,
        otlp_traces_endpoint=settings.otlp_traces_endpoint,
        archive_folder=settings.archive_folder,
        journal_retention_days=settings.journal_retention_days,
        otlp=settings.otlp,
        otlp_grpc_address=settings.otlp_grpc_address,
        otlp_http_address=settings.otlp_http_address,
        places=_read_sources(settings.sources_file),
        engines=settings.engines,
        engine_drift_hold_ppm=settings.engine_drift_hold_ppm,
    )


def _read_sources(path: Path | None) -> Places:
    if path is None:
        return Places()
    try:
        return read_places(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", code=Exit.USAGE) from error
    except FileFaults as error:
        raise CommandError(error.describe(str(path)), code=Exit.USAGE) from error


def check_ports(settings: Settings) -> None:
    """End the command, naming the flag to change, when a port is taken already."""
    _check_port(settings.grpc_address, flag="--grpc-address")
    _check_port(settings.http_address, flag="--http-address")
    if settings.otlp:
        _check_port(settings.otlp_grpc_address, flag="TOKENWORKS_OTLP_GRPC_ADDRESS")
        _check_port(settings.otlp_http_address, flag="TOKENWORKS_OTLP_HTTP_ADDRESS")


def run_meter(
    options: MeterOptions,
    *,
    customer_metrics_max: int,
    stop: StopRequest,
    ready: Callable[[Addresses], None],
    crew: Crew | None = None,
) -> None:
    """Serve until `stop`; `ready` is called in a thread of its own once calls are answered.

    So many customers have metrics of their own. One of several workers has a `crew`.

    Raises CommandError when it cannot listen, the database lives on another clock, or it does not
    answer at the start, or is behind a pooler that shares sessions.
    """
    job = JobOptions(
        database_url=options.database_url,
        tiers=options.tiers,
        archive_folder=options.archive_folder,
        otlp_traces_endpoint=options.otlp_traces_endpoint,
        engine_drift_hold_ppm=options.engine_drift_hold_ppm,
    )
    make_billing = partial(
        billing.app.make_resident,
        customer_metrics_max=customer_metrics_max,
        make_closers=make_closers(job),
    )
    try:
        refuse_shared_sessions(options.database_url)
        with tracing(options.otlp_traces_endpoint):
            asyncio.run(
                _serve(options, make_billing=make_billing, stop=stop, ready=ready, crew=crew)
            )
    except Refused as error:
        raise CommandError(error.message, code=Exit.REFUSED) from error
    except MeterError as error:
        raise CommandError(error.message) from error
    except CertificateFault as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        flags = "--grpc-address, --http-address or the settings of OTLP"
        raise CommandError(f"{error}: choose another place with {flags}") from error
    _log.info("meter_stopped")


async def _serve(
    options: MeterOptions,
    *,
    make_billing: MakeResident,
    stop: StopRequest,
    ready: Callable[[Addresses], None],
    crew: Crew | None,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    addresses: asyncio.Future[Addresses] = loop.create_future()

    async def announce() -> None:
        driven_ms = (await addresses).driven_ms
        if driven_ms is not None:
            report_progress(_sandbox_banner(driven_ms))
        _spare_collections()
        # In a thread, for it may call the server, which answers on this one.
        await asyncio.to_thread(ready, addresses.result())
        told = {
            "version": version_of("tokenworks"),
            "grpc": addresses.result().grpc,
            "http": addresses.result().http,
            "driven_ms": driven_ms,
        }
        _log.info("meter_started", extra=told)

    def ask() -> None:
        _log.info("meter_stopping")
        stopping.set()

    stop.notify = lambda: loop.call_soon_threadsafe(ask)
    serving = asyncio.ensure_future(
        meter.app.serve(
            options,
            stopping=stopping,
            ready=addresses.set_result,
            residents=[make_billing],
            find_missing=partial(_find_missing, options.database_url),
            crew=crew,
        )
    )
    announcing = asyncio.ensure_future(announce())
    await asyncio.wait({serving, announcing}, return_when=asyncio.FIRST_COMPLETED)
    if announcing.done() and announcing.exception() is not None:
        stopping.set()
    try:
        await serving
    finally:
        stop.ignore_further()
        announcing.cancel()
    if announcing.done() and not announcing.cancelled():
        announcing.result()


def _spare_collections() -> None:
    """Have what is loaded left out of collections of garbage, and what comes looked at less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)


def _find_missing(database_url: str) -> Sequence[str]:
    """Return what this version needs and the schema lacks; raises Unavailable."""
    try:
        standing = migrations.look(database_url)
    except DBAPIError as error:
        raise Unavailable(Reason.STORE_UNAVAILABLE, "The database does not answer.") from error
    if standing.is_too_new:
        return [f"what was taken away by {', '.join(standing.newer)}"]
    return standing.missing_pre


def _sandbox_banner(driven_ms: int) -> str:
    lines = [
        format_sandbox(to_iso(driven_ms)),
        "It stands still until `tokenworks billing clock --to TIME`. Nothing in it is real.",
    ]
    rule = "*" * max(map(len, lines))
    return "\n".join([rule, *lines, rule])


def _check_port(address: str, *, flag: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"{address} is taken: choose another with {flag}") from error
        raise CommandError(f"{address} cannot be listened to ({error}): see {flag}") from error
