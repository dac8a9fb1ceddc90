"""`Meter`: what a server that runs inference calls."""

import os
import re
import sys
import weakref
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Never, Self, Unpack, cast
from uuid import UUID

from tokenworks.client import limits
from tokenworks.client.certificates import CertificateFiles, KeptCertificates
from tokenworks.client.clock import default_producer, time_ns
from tokenworks.client.connection import Address, Interceptor
from tokenworks.client.events import TEXT_CLASSES, DimensionKey
from tokenworks.client.foreign import Unfit, guarded, items_of
from tokenworks.client.profiles import read_usage
from tokenworks.client.report import Counts, Details, Report, Statistics
from tokenworks.client.reporter import Reporter, SetUp
from tokenworks.client.running import RunningReport
from tokenworks.client.session import Pace
from tokenworks.client.spool import Fsync, WhenFull
from tokenworks.client.spooling import SpoolPlan
from tokenworks.client.usage_counts import Reading
from tokenworks.client.usage_objects import find_usage
from tokenworks.client.vocabulary import Finish, Mode, Quality, Source, TokenClass


class Meter:
    """Reports usage to a Tokenworks meter, and never gets in the way of the server that reports.

    One instance a process, shared by all threads. Nothing is connected, and no thread started,
    before the first event; so it may be made before a server forks its workers. After a fork the
    child reports for itself, as a producer of its own, and leaves the parent's events alone.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7411",
        *,
        api_key: str | None = None,
        producer: str | None = None,
        account: str = "",
        model: str = "",
        tier: str = "",
        served_model: str = "",
        mode: Mode | int = Mode.ONLINE,
        pool: str = "",
        region: str = "",
        buffer_events_max: int = limits.BUFFER_EVENTS_DEFAULT,
        flush_interval_seconds: float = limits.FLUSH_INTERVAL_SECONDS_DEFAULT,
        root_certificates: bytes | None = None,
        ca_certificate: str | Path | None = None,
        client_certificate: str | Path | None = None,
        client_key: str | Path | None = None,
        insecure: bool = False,
        interceptors: Sequence[Interceptor] = (),
        spool: str | Path | None = None,
        fsync: Fsync | str = Fsync.BATCH,
        spool_bytes_max: int = limits.SPOOL_BYTES_MAX_DEFAULT,
        spool_retain_bytes: int = limits.SPOOL_RETAIN_BYTES_DEFAULT,
        when_full: WhenFull | str = WhenFull.DROP_NEWEST,
        source: Source | str | None = None,
    ) -> None:
        """Prepare to report; raises ValueError where an argument is out of its range.

        `target`: `host:port`, or any other gRPC target. `api_key`: visible ASCII characters; None
        where one is bound to the client's certificate.
        `producer`: name of the reporting process, 1–64 characters of [A-Za-z0-9._-], the same
        after a restart and its own for each process; by default that of the host and program.
        `account` to `region`: what events have that do not say otherwise.
        `buffer_events_max`: events that are kept in memory, ≥ 1; the newest are dropped beyond.
        `flush_interval_seconds`: how long an event waits for others, > 0 to 60.
        `root_certificates`: PEM to trust; None for the public ones. `ca_certificate` is a file of
        them, `client_certificate` and `client_key` are what to show a meter that asks for it; files
        are read again when they change. Only a target on this host is spoken to without TLS, and
        only without any of these, unless `insecure`. `interceptors`: of gRPC, around each call.
        `spool`: a folder on this disk; events are in it before they are sent. `fsync`: "batch",
        "never" or "event"; `spool_bytes_max`: its bound, ≥ 16 MiB; `spool_retain_bytes`: what is
        kept of events that are durable, ≥ 0, for a meter that comes back older; `when_full`:
        "drop_newest" or "drop_oldest". A spool that cannot be used raises SpoolUnusable, which is
        a ValueError too and says what to do.
        `source`: "proxy", "asgi" or "litellm" where others report the same requests, too: the meter
        then counts each `request_id` and `attempt` once, whoever reports it. Events without a
        request id, and all events of a client without a source, are counted as they come.
        """
        name = default_producer() if producer is None else producer
        files = (ca_certificate, client_certificate, client_key)
        _check(name, api_key, buffer_events_max, flush_interval_seconds)
        defaults = _checked((account, model, served_model, tier, Mode(mode), pool, region))
        address = Address(
            target=target, api_key=api_key, root_certificates=root_certificates,
            certificates=_keep_certificates(api_key, root_certificates, files), insecure=insecure,
            interceptors=tuple(interceptors),
        )  # fmt: skip
        plan = None if spool is None else SpoolPlan.from_arguments(
            spool, producer=name, fsync=fsync, when_full=when_full,
            bytes_max=spool_bytes_max, retain_bytes=spool_retain_bytes,
        )  # fmt: skip
        set_up = SetUp(
            producer=name, address=address, defaults=defaults, plan=plan, source=_to_source(source),
            pace=Pace(flush_interval=flush_interval_seconds), buffer_events_max=buffer_events_max,
        )  # fmt: skip
        self._waits_for_disk, self._keeps_usage = set_up.waits_for_disk, source is not None
        self._report_through(Reporter(set_up, place=None if plan is None else plan.open()))
        _follow_forks(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.async_close()

    def record(
        self,
        /,
        *unexpected: Never,
        account: str | None = None,
        model: str | None = None,
        tier: str | None = None,
        input: int = 0,  # noqa: A002 - the token class is called so
        cache_read: int = 0,
        cache_write_5m: int = 0,
        cache_write_30m: int = 0,
        cache_write_1h: int = 0,
        cache_write_12h: int = 0,
        output: int = 0,
        reasoning: int = 0,
        tokens: Mapping[TokenClass, int] | None = None,
        end_time: float | datetime | None = None,
        duration_ms: float = 0,
        finish: Finish | int = Finish.COMPLETED,
        quality: Quality | int = Quality.FINAL,
        request_id: str = "",
        attempt: int = 0,
        event_id: UUID | bytes | None = None,
        served_model: str | None = None,
        mode: Mode | int | None = None,
        pool: str | None = None,
        region: str | None = None,
        reported_input_count: int | None = None,
        reported_output_count: int | None = None,
        usage: object = None,
        profile: str = "",
        **unknown: Never,
    ) -> bool:
        """Take down one request that ended; returns at once, True when it was taken.

        Never raises, whatever it is given, and never blocks: only with `fsync="event"` does it
        wait until the event is on disk, together with others that wait. False means that the event
        is lost: the buffer is full, the client is closed, or there is no such argument;
        `statistics` counts which. Values are looked at later: what the wire cannot carry counts as
        invalid and is logged, what the meter does not accept is kept by it in quarantine.

        Counts are disjoint: `input` has no cached tokens in it, `output` no reasoning. `tokens`
        carries the classes without an argument of their own. `end_time`: seconds since 1970 or an
        aware datetime, None is now. `event_id`: 16 bytes. The reported counts are the engine's
        own totals, which the classes must sum to. Ranges are those of the protocol's UsageEvent.
        `usage`: the provider's own object, of which the counts are kept beside these, by a client
        with a source; `profile` says whose it is, see `record_usage`.
        """
        intake = self._intake
        if unexpected or unknown:
            return self._reporter.refuse("unknown_argument")
        if len(intake.pending) >= intake.room and not self._reporter.make_room():
            return False
        # In the order of `events.Raw`. A mapping may change later, so its items are taken now.
        intake.pending.append((
            time_ns(), (account, model, served_model, tier, mode, pool, region),
            input, cache_read, cache_write_5m, cache_write_30m, cache_write_1h, cache_write_12h,
            output, reasoning, None if tokens is None else items_of(tokens),
            end_time, duration_ms, finish, quality, request_id, attempt, event_id,
            reported_input_count, reported_output_count,
            None if usage is None or not self._keeps_usage else find_usage(usage, profile=profile),
        ))  # fmt: skip
        return self._reporter.wait_for_disk() if self._waits_for_disk else True

    def record_usage(
        self,
        /,
        usage: object = None,
        *unexpected: Never,
        profile: str = "",
        **details: Unpack[Details],
    ) -> bool:
        """Take down one request from a provider's usage object; otherwise like `record`.

        `profile` says who made the object, see `tokenworks.client.profiles`; the object may be a
        mapping or have attributes. One that contradicts itself counts as invalid.
        """
        try:
            reading = guarded(read_usage, usage, profile=profile)
        except Unfit as error:
            return self._reporter.refuse(str(error))
        if unexpected or not details.keys() <= Details.__optional_keys__:
            return self._reporter.refuse("unknown_argument")
        counts = _arguments(reading)
        counts["usage"], counts["profile"] = usage, profile
        return self.record(**details, **counts)

    def begin(self, /, *unexpected: Never, **said: Unpack[Report]) -> RunningReport:
        """Begin to report a request that lasts; returns at once and never raises.

        Arguments are those of `record`. Call `update` with what is known meanwhile and `finish` at
        the end, or use it as a context. With a spool the latest counts are on disk within a flush
        interval, and count as partial and failed if the process dies.
        """
        report = self._reporter.reports.begin(said, is_clean=not unexpected)
        self._reporter.start_once()
        return report

    def flush(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Wait until all that was recorded before is durable at the meter.

        False where that takes longer than `timeout_seconds` (≥ 0), or something was dropped
        meanwhile. Never raises.
        """
        return self._reporter.flush(timeout_seconds)

    async def async_flush(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Like `flush`, without holding up the event loop."""
        return await to_thread(self.flush, timeout_seconds)

    def sync(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Wait until all that was recorded before is in the spool, as safe as `fsync` makes it.

        False where that takes longer, or events were dropped. While the disk fails, and without a
        spool, only what is durable at the meter is safe: then it is like `flush`.
        """
        return self._reporter.flush(timeout_seconds, is_for_disk=True)

    async def async_sync(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Like `sync`, without holding up the event loop."""
        return await to_thread(self.sync, timeout_seconds)

    def close(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Flush and stop for good; False where something was lost. Repeating it is harmless.

        It flushes for `timeout_seconds` (≥ 0), and takes some 2 more to stop. Running reports end
        as partial and failed. What stays in the spool is not lost: the next start sends it.
        """
        return self._reporter.close(timeout_seconds)

    async def async_close(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Like `close`, without holding up the event loop."""
        return await to_thread(self.close, timeout_seconds)

    @property
    def statistics(self) -> Statistics:
        """Counts so far, and where the client stands."""
        return self._reporter.statistics

    def _report_through(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._intake = reporter.intake

    def _begin_in_child(self) -> None:
        """Start over after a fork; what is the parent's is kept, unused, rather than destroyed."""
        self._of_parent = self._reporter
        self._report_through(self._of_parent.in_child())


_PRODUCER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_API_KEY: Final = re.compile(r"[!-~]+")
_FLUSH_INTERVAL_SECONDS_MAX: Final = 60
_TEXT_ARGUMENTS: Final = {token_class: token_class.name.lower() for token_class in TEXT_CLASSES}


def _check(
    producer: str, api_key: str | None, buffer_events_max: int, flush_interval_seconds: float
) -> None:
    if not _PRODUCER.fullmatch(producer):
        raise ValueError("producer: 1–64 characters of [A-Za-z0-9._-]")
    if api_key is not None and not _API_KEY.fullmatch(api_key):
        raise ValueError("api_key: visible ASCII characters, at least one")
    if buffer_events_max < 1:
        raise ValueError("buffer_events_max: at least 1")
    if not 0 < flush_interval_seconds <= _FLUSH_INTERVAL_SECONDS_MAX:
        raise ValueError("flush_interval_seconds: above 0, at most 60")


def _keep_certificates(
    api_key: str | None, root_certificates: bytes | None, files: Sequence[str | Path | None]
) -> KeptCertificates | None:
    ca, certificate, key = (None if it is None else Path(it).absolute() for it in files)
    if api_key is None and certificate is None:
        raise ValueError("api_key, or client_certificate and client_key: one of them")
    if ca is None and certificate is None and key is None:
        return None
    if ca is not None and root_certificates is not None:
        raise ValueError("root_certificates and ca_certificate: one of them")
    if (certificate is None) != (key is None):
        raise ValueError("client_certificate and client_key: both or neither")
    return KeptCertificates(CertificateFiles(ca=ca, certificate=certificate, key=key))


def _checked(defaults: DimensionKey) -> DimensionKey:
    for text in defaults:
        # Raises a ValueError of its own where a lone surrogate has no UTF-8.
        if isinstance(text, str) and len(text.encode()) > limits.STRING_CHARACTERS_MAX:
            raise ValueError("account to region: at most 512 bytes each")
    return defaults


def _to_source(source: Source | str | None) -> Source | None:
    if source is None:
        return None
    if source not in list(Source):
        raise ValueError(f"source: one of {', '.join(Source)}, or None")
    return Source(source)


def _arguments(reading: Reading) -> Counts:
    text = {_TEXT_ARGUMENTS[c]: n for c, n in reading.tokens.items() if c in _TEXT_ARGUMENTS}
    counts = Counts(
        reported_input_count=reading.reported_input_count,
        reported_output_count=reading.reported_output_count,
    )
    counts.update(cast("Counts", text))
    other = {c: n for c, n in reading.tokens.items() if c not in _TEXT_ARGUMENTS}
    if other:
        counts["tokens"] = other
    return counts


def _follow_forks(meter: Meter) -> None:
    """Have a child of this process start over; there are no forks on Windows."""
    if sys.platform == "win32":
        return
    reference = weakref.ref(meter)

    def begin_in_child() -> None:
        meter = reference()
        if meter is not None:
            meter._begin_in_child()  # noqa: SLF001 - the rest of the class, outside for its closure

    os.register_at_fork(after_in_child=begin_in_child)
