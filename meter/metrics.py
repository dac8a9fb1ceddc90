"""Every Prometheus metric: name, kind, unit, labels, and what it means when it moves."""

from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A metric; `name` is as Prometheus shows it, without a histogram's suffixes."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str


TOKENS: Final = Entry(
    name="tokenworks_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("tier", "model", "pool", "token_class"),
    meaning="Tokens counted into usage by this server. Its rate is the factory's output.",
)
REPORTS: Final = Entry(
    name="tokenworks_events_total",
    kind="counter",
    unit="events",
    labels=("outcome",),
    meaning="Events decided, by outcome. Anything but RECORDED and DUPLICATE waits in quarantine.",
)
CALLS: Final = Entry(
    name="tokenworks_calls_failed_total",
    kind="counter",
    unit="calls",
    labels=("reason",),
    meaning="Calls and streams that ended in an error, by reason.",
)
COMMIT: Final = Entry(
    name="tokenworks_commit_seconds",
    kind="histogram",
    unit="seconds",
    labels=(),
    meaning="Time of one group commit of the journal. Rises with a slow disk or database.",
)
ACK: Final = Entry(
    name="tokenworks_ack_seconds",
    kind="histogram",
    unit="seconds",
    labels=("form",),
    meaning="Time from a batch's or call's arrival to its answer, by form (stream, call).",
)
LAG: Final = Entry(
    name="tokenworks_counting_lag_segments",
    kind="gauge",
    unit="segments",
    labels=(),
    meaning="Segments of the journal that are not counted yet. Grows when counting falls behind.",
)
BEHIND: Final = Entry(
    name="tokenworks_counting_behind_seconds",
    kind="gauge",
    unit="seconds",
    labels=(),
    meaning="How long ago the oldest uncounted segment was recorded; 0 when all is counted.",
)
BUFFER: Final = Entry(
    name="tokenworks_buffer_bytes",
    kind="gauge",
    unit="bytes",
    labels=(),
    meaning="Bytes that wait for their commit. At its bound, calls are refused as OVERLOADED.",
)
QUARANTINE: Final = Entry(
    name="tokenworks_quarantine_held",
    kind="gauge",
    unit="entries",
    labels=(),
    meaning="Entries in quarantine that wait for a person to release or reject them.",
)
STREAMS: Final = Entry(
    name="tokenworks_streams_open",
    kind="gauge",
    unit="streams",
    labels=(),
    meaning="Producers connected now.",
)
MISSING: Final = Entry(
    name="tokenworks_batches_missing",
    kind="gauge",
    unit="batches",
    labels=(),
    meaning="Batch numbers that producers passed over: usage that was lost before it came here.",
)
CATALOGUE: Final = (
    TOKENS,
    REPORTS,
    CALLS,
    COMMIT,
    ACK,
    LAG,
    BEHIND,
    BUFFER,
    QUARANTINE,
    STREAMS,
    MISSING,
)


class Metrics:
    """The catalogue's metrics in a registry of their own."""

    def __init__(self) -> None:
        """Make them all."""
        self.registry = CollectorRegistry()
        self.tokens = self._counter(TOKENS)
        self.events = self._counter(REPORTS)
        self.calls_failed = self._counter(CALLS)
        self.commit_seconds = self._histogram(COMMIT)
        self.ack_seconds = self._histogram(ACK)
        self.counting_lag = self._gauge(LAG)
        self.counting_behind = self._gauge(BEHIND)
        self.buffer_bytes = self._gauge(BUFFER)
        self.quarantine_held = self._gauge(QUARANTINE)
        self.streams_open = self._gauge(STREAMS)
        self.batches_missing = self._gauge(MISSING)

    def committed(self, *, seconds: float, submissions: int, events: int) -> None:  # noqa: ARG002
        """Note a group's commit."""
        self.commit_seconds.observe(seconds)

    def buffered(self, size_bytes: int) -> None:
        """Note how much waits."""
        self.buffer_bytes.set(size_bytes)

    def _counter(self, entry: Entry) -> Counter:
        return Counter(entry.name, entry.meaning, entry.labels, registry=self.registry)

    def _gauge(self, entry: Entry) -> Gauge:
        return Gauge(entry.name, entry.meaning, entry.labels, registry=self.registry)

    def _histogram(self, entry: Entry) -> Histogram:
        return Histogram(
            entry.name, entry.meaning, entry.labels, registry=self.registry, buckets=_SECONDS
        )
