"""`Meter`: what a server that runs inference calls."""

import atexit
import logging
import os
import re
import sys
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import Final, Never, Self, TypedDict, Unpack, cast
from uuid import UUID

from tokenworks.client import limits
from tokenworks.client.clock import default_producer, monotonic, new_instance, time_ns
from tokenworks.client.connection import Address, Interceptor
from tokenworks.client.events import TEXT_CLASSES, DimensionKey
from tokenworks.client.foreign import Unfit, guarded
from tokenworks.client.profiles import Reading, read_usage
from tokenworks.client.report import Details, Statistics
from tokenworks.client.retry import Backoff
from tokenworks.client.sender import Identity, Intake, Pace, Sender
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import Finish, Mode, Quality, State, TokenClass


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
        api_key: str,
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
        insecure: bool = False,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        """Prepare to report; raises ValueError where an argument is out of its range.

        `producer`: name of the reporting process, 1–64 characters of [A-Za-z0-9._-], the same
        after a restart and its own for each process; by default that of the host and program.
        `account` to `region`: what events have that do not say otherwise.
        `buffer_events_max`: events that are kept, ≥ 1; the newest are dropped beyond.
        `flush_interval_seconds`: how long an event waits for others, > 0 to 60.
        `root_certificates`: PEM to trust; None for the public ones. Only a target on this host is
        spoken to without TLS, unless `insecure`.
        """
        self._producer = default_producer() if producer is None else producer
        if not _PRODUCER.fullmatch(self._producer):
            raise ValueError("producer: 1–64 characters of [A-Za-z0-9._-]")
        if not _API_KEY.fullmatch(api_key):
            raise ValueError("api_key: visible ASCII characters, at least one")
        if buffer_events_max < 1:
            raise ValueError("buffer_events_max: at least 1")
        if not 0 < flush_interval_seconds <= _FLUSH_INTERVAL_SECONDS_MAX:
            raise ValueError("flush_interval_seconds: above 0, at most 60")
        self._address = Address(
            target=target,
            api_key=api_key,
            root_certificates=root_certificates,
            insecure=insecure,
            interceptors=tuple(interceptors),
        )
        for text in (account, model, served_model, tier, pool, region):
            # Raises a ValueError of its own where a lone surrogate has no UTF-8.
            if len(text.encode()) > limits.STRING_CHARACTERS_MAX:
                raise ValueError("account to region: at most 512 bytes each")
        self._defaults: DimensionKey = (
            account, model, served_model, tier, Mode(mode), pool, region,
        )  # fmt: skip
        self._buffer_events_max = buffer_events_max
        self._pace = Pace(flush_interval=flush_interval_seconds)
        self._closed = False
        self._begin()
        _follow_forks(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def record(
        self,
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
        **unknown: Never,
    ) -> bool:
        """Take down one request that ended; returns at once, True when it was taken.

        Never blocks and never raises, whatever it is given. False means that the event is lost:
        the buffer is full, the client is closed, or there is no such argument; `statistics` counts
        which. Values are looked at later: what the wire cannot carry counts as invalid and is
        logged, what the meter does not accept is kept by it in quarantine.

        Counts are disjoint: `input` has no cached tokens in it, `output` no reasoning. `tokens`
        carries the classes without an argument of their own. `end_time`: seconds since 1970 or an
        aware datetime, None is now. `event_id`: 16 bytes. The reported counts are the engine's
        own totals, which the classes must sum to. Ranges are those of the protocol's UsageEvent.
        """
        intake = self._intake
        if unexpected or unknown:
            return self._refuse("unknown_argument")
        if len(intake.pending) >= intake.room and not self._make_room():
            return False
        # In the order of `events.Raw`. A mapping may change later, so its items are taken now.
        intake.pending.append((
            time_ns(), (account, model, served_model, tier, mode, pool, region),
            input, cache_read, cache_write_5m, cache_write_30m, cache_write_1h, cache_write_12h,
            output, reasoning, None if tokens is None else _items(tokens),
            end_time, duration_ms, finish, quality, request_id, attempt, event_id,
            reported_input_count, reported_output_count,
        ))  # fmt: skip
        return True

    def record_usage(
        self,
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
            return self._refuse(str(error))
        if unexpected or not details.keys() <= Details.__optional_keys__:
            return self._refuse("unknown_argument")
        return self.record(**details, **_arguments(reading))

    def flush(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Wait until all that was recorded before is durable; False where that takes longer."""
        sender = self._sender
        if sender is None:
            return not self._intake.pending
        flush = sender.flush()
        flush.done.wait(timeout_seconds)
        return flush.reached

    def close(self, timeout_seconds: float = limits.CLOSE_SECONDS_DEFAULT) -> bool:
        """Flush and stop for good; False where something was lost. Repeating it is harmless."""
        deadline = monotonic() + timeout_seconds
        with self._lock:
            self._closed = True
            self._intake.room = 0
            sender = self._sender
        if sender is None:
            return True
        if sender.is_running:
            self.flush(timeout_seconds)
            sender.stop(timeout_seconds=max(deadline - monotonic(), limits.EXIT_SECONDS_MAX))
        atexit.unregister(self._exit)
        return sender.lost_count == 0 and not sender.is_running

    @property
    def statistics(self) -> Statistics:
        """Counts so far, and where the client stands."""
        sender, pending_count = self._sender, len(self._intake.pending)
        if sender is None:
            return Statistics(
                dropped=self._tally.dropped,
                invalid=self._tally.invalid,
                state=State.CLOSED if self._closed else State.IDLE,
            )
        stream = sender.stream
        recorded = sender.taken_count + pending_count
        acknowledged = stream.acknowledged_event_count
        return Statistics(
            recorded=recorded,
            acknowledged=acknowledged,
            held=recorded - acknowledged - sender.unfit_count - sender.lost_count,
            set_aside=stream.set_aside_event_count,
            dropped=self._tally.dropped,
            invalid=self._tally.invalid,
            resent=stream.resent_count,
            gaps=stream.gap_count,
            state=sender.state,
        )

    def _begin(self) -> None:
        """Set everything up that belongs to one process."""
        self._intake = Intake()
        self._tally = Tally()
        self._lock = RLock()
        self._sender: Sender | None = None
        self._instance = new_instance()

    def _begin_in_child(self) -> None:
        """Start over after a fork: the parent goes on under its name and sends what it holds.

        Its threads do not exist here, and its connection must not be touched, not even to close
        it; so the sender is kept, unused, rather than destroyed.
        """
        self._of_parent = self._sender
        self._begin()
        # A name of our own: two instances under one name would stop each other.
        self._producer = f"{self._producer[:55]}.{self._instance.hex()[:8]}"

    def _make_room(self) -> bool:
        """Decide for a caller that found no room: the first one starts the sender."""
        if self._sender is None:
            self._start_once()
        if self._intake.room > len(self._intake.pending):
            return True
        self._tally.drop()
        return False

    def _start_once(self) -> None:
        with self._lock:
            if self._sender is None and not self._closed:
                self._sender = self._started()

    def _started(self) -> Sender | None:
        sender = Sender(
            self._intake,
            tally=self._tally,
            address=self._address,
            identity=Identity(
                producer=self._producer, instance=self._instance, defaults=self._defaults
            ),
            buffer_events_max=self._buffer_events_max,
            pace=self._pace,
            backoff=Backoff(),
        )
        try:
            sender.start()
        except RuntimeError as error:
            # No thread to be had: the process is at its limit, or about to end.
            self._intake.room = 0
            _LOG.error("sender_not_started detail=%s", error)
            return None
        atexit.register(self._exit)
        return sender

    def _exit(self) -> None:
        """Give what is held a last chance when the process ends."""
        self.close(limits.EXIT_SECONDS_MAX)

    def _refuse(self, kind: str) -> bool:
        self._tally.refuse(kind)
        if self._sender is None:
            # It is the sender that writes the log.
            self._start_once()
        return False


_LOG: Final = logging.getLogger("tokenworks.client")
_PRODUCER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_API_KEY: Final = re.compile(r"[!-~]+")
_FLUSH_INTERVAL_SECONDS_MAX: Final = 60
_TEXT_ARGUMENTS: Final = {token_class: token_class.name.lower() for token_class in TEXT_CLASSES}


class _Counts(TypedDict, total=False):
    """The arguments of `record` that say tokens."""

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_30m: int
    cache_write_1h: int
    cache_write_12h: int
    output: int
    reasoning: int
    tokens: Mapping[TokenClass, int]
    reported_input_count: int
    reported_output_count: int


def _arguments(reading: Reading) -> _Counts:
    text = {_TEXT_ARGUMENTS[c]: n for c, n in reading.tokens.items() if c in _TEXT_ARGUMENTS}
    counts = _Counts(
        reported_input_count=reading.reported_input_count,
        reported_output_count=reading.reported_output_count,
    )
    counts.update(cast("_Counts", text))
    other = {c: n for c, n in reading.tokens.items() if c not in _TEXT_ARGUMENTS}
    if other:
        counts["tokens"] = other
    return counts


def _items(tokens: Mapping[TokenClass, int]) -> object:
    try:
        return guarded(lambda: tuple(tokens.items()))
    except Unfit:
        return "unreadable"


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
