"""Every Prometheus metric: name, kind, unit, labels, and what it means when it moves."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from meter.domain.metric import Entry

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

TOKENS: Final = Entry(
    name="tokenworks_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("tier", "model", "pool", "token_class"),
    meaning="Tokens counted into usage by this server, without corrections. Its rate is what the"
    " factory puts out.",
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
CORRECTIONS: Final = Entry(
    name="tokenworks_corrections_total",
    kind="counter",
    unit="corrections",
    labels=("kind",),
    meaning="Recorded events that were corrected through this server, by kind (void, replace).",
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
PRODUCERS: Final = Entry(
    name="tokenworks_producers",
    kind="gauge",
    unit="producers",
    labels=("state",),
    meaning="Producers of the installation by state: registered (announced, not heard yet), active,"
    " retired (ended in good order, or by a person).",
)
PRODUCERS_SILENT: Final = Entry(
    name="tokenworks_producers_silent",
    kind="gauge",
    unit="producers",
    labels=(),
    meaning="Producers that are registered or active and have not been heard for longer than"
    " TOKENWORKS_SILENCE_SECONDS. What they did since is unknown, not zero.",
)
PRODUCER_SEEN: Final = Entry(
    name="tokenworks_producer_seen_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("account", "producer"),
    meaning="When a registered or active producer was last heard, in seconds since 1970; 0 for"
    " never. At most 1,000, the longest silent first.",
)
BACKLOG: Final = Entry(
    name="tokenworks_producer_backlog_batches",
    kind="gauge",
    unit="batches",
    labels=(),
    meaning="Batches that producers have announced and that are not recorded yet. They wait with"
    " the producers.",
)
FENCED: Final = Entry(
    name="tokenworks_streams_fenced_total",
    kind="counter",
    unit="streams",
    labels=(),
    meaning="Streams that ended because a newer instance of their producer has opened one. Expected"
    " when a server is replaced; else two servers report under one name.",
)
ROLLBACKS: Final = Entry(
    name="tokenworks_rollbacks_total",
    kind="counter",
    unit="streams",
    labels=(),
    meaning="Streams that found the database older than what was acknowledged to them: it was"
    " restored, or a standby took over that was behind. Each is refilled by its producer.",
)
SANDBOX: Final = Entry(
    name="tokenworks_sandbox",
    kind="gauge",
    unit="installations",
    labels=(),
    meaning="1 where the installation lives on a driven clock: none of it is real. Else 0.",
)
ENERGY: Final = Entry(
    name="tokenworks_energy_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "source"),
    meaning="Energy that the pools' counters measured, by source (dcgm, reported). Each board is in"
    " it once. Attributed and unattributed energy add up to it.",
)
ENERGY_ATTRIBUTED: Final = Entry(
    name="tokenworks_energy_attributed_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "tier"),
    meaning="Measured energy by the tier that it served: at each scrape, in proportion to the"
    " output tokens counted since the one before. SQL has it by whole intervals.",
)
ENERGY_UNATTRIBUTED: Final = Entry(
    name="tokenworks_energy_unattributed_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "reason"),
    meaning="Measured energy that served no tier: gap (samples too far apart), no_tokens (none were"
    " counted since the scrape before).",
)
ENERGY_RESETS: Final = Entry(
    name="tokenworks_energy_counter_resets_total",
    kind="counter",
    unit="resets",
    labels=("pool",),
    meaning="Energy counters that went back, or leapt further than their device can have used. A"
    " driver was loaded anew, a board was changed, or an exporter errs.",
)
ENERGY_GAP: Final = Entry(
    name="tokenworks_energy_gap_seconds_total",
    kind="counter",
    unit="seconds",
    labels=("pool",),
    meaning="Time between samples that lay too far apart, or without known energy, added up over"
    " the pool's devices when the next sample comes.",
)
ENERGY_SCRAPES_FAILED: Final = Entry(
    name="tokenworks_energy_scrapes_failed_total",
    kind="counter",
    unit="scrapes",
    labels=("pool", "reason"),
    meaning="Reads of an exporter that gave less than they should: unreachable, refused (not status"
    " 200), too_large, unreadable (samples without sense; the others are used), no_counters.",
)
POWER_VALID: Final = Entry(
    name="tokenworks_power_valid",
    kind="gauge",
    unit="pools",
    labels=("pool",),
    meaning="1 while each device of the pool that was seen in the last 6 hours has a fresh sample,"
    " and there is one; else 0: ratios of its energy are not to be believed. A sample is fresh for"
    " 4 scrapes, a minute at least; a reported one for 15 minutes. A counter that stands still is"
    " no sample.",
)
ENERGY_LAST_SAMPLE: Final = Entry(
    name="tokenworks_energy_last_sample_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("pool",),
    meaning="When a counter of the pool last moved, in seconds since 1970.",
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
    CORRECTIONS,
    STREAMS,
    MISSING,
    PRODUCERS,
    PRODUCERS_SILENT,
    PRODUCER_SEEN,
    BACKLOG,
    FENCED,
    ROLLBACKS,
    SANDBOX,
    ENERGY,
    ENERGY_ATTRIBUTED,
    ENERGY_UNATTRIBUTED,
    ENERGY_RESETS,
    ENERGY_GAP,
    ENERGY_SCRAPES_FAILED,
    POWER_VALID,
    ENERGY_LAST_SAMPLE,
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
        self.corrections = self._counter(CORRECTIONS)
        self.streams_open = self._gauge(STREAMS)
        self.batches_missing = self._gauge(MISSING)
        self.producers = self._gauge(PRODUCERS)
        self.producers_silent = self._gauge(PRODUCERS_SILENT)
        self.producer_seen = self._gauge(PRODUCER_SEEN)
        self.producer_backlog = self._gauge(BACKLOG)
        self.streams_fenced = self._counter(FENCED)
        self.rollbacks = self._counter(ROLLBACKS)
        self.sandbox = self._gauge(SANDBOX)
        self.energy_joules = self._counter(ENERGY)
        self.energy_attributed = self._counter(ENERGY_ATTRIBUTED)
        self.energy_unattributed = self._counter(ENERGY_UNATTRIBUTED)
        self.energy_resets = self._counter(ENERGY_RESETS)
        self.energy_gap_seconds = self._counter(ENERGY_GAP)
        self.energy_scrapes_failed = self._counter(ENERGY_SCRAPES_FAILED)
        self.power_valid = self._gauge(POWER_VALID)
        self.energy_last_sample = self._gauge(ENERGY_LAST_SAMPLE)

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
