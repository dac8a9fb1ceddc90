"""Every Prometheus metric: name, kind, unit, labels, and what it means when it moves."""

from typing import Final

from prometheus_client import CollectorRegistry

from meter import energy_metrics, engine_metrics
from meter.domain.limits import LAG_SAMPLES_MAX
from meter.domain.metric import Entry, Joining
from meter.domain.outcome import Outcome
from meter.energy_metrics import EnergyMetrics
from meter.engine_metrics import EngineMetrics
from meter.series import TRUNCATED, Exposition

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# How late an event is: from its end on, until it is counted.
LAG_SECONDS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)

TOKENS: Final = Entry(
    name="tokenworks_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("tier", "model", "pool", "token_class"),
    meaning="Tokens counted into usage by this server, without corrections. Its rate is what the"
    " factory puts out.",
)
REQUESTS: Final = Entry(
    name="tokenworks_requests_total",
    kind="counter",
    unit="requests",
    labels=("tier", "model", "pool", "finish"),
    meaning="Requests counted into usage by this server, without corrections, by how they ended"
    " (delivered, cancelled, failed).",
)
REPORT_LAG: Final = Entry(
    name="tokenworks_report_lag_seconds",
    kind="histogram",
    unit="seconds",
    labels=("pool",),
    meaning="From the end of a request to when it was counted, by pool. Of rounds of more than"
    f" {LAG_SAMPLES_MAX:,} events, so many are looked at, evenly taken.",
)
REPORTS: Final = Entry(
    name="tokenworks_events_total",
    kind="counter",
    unit="events",
    labels=("outcome",),
    meaning="Events decided, by outcome. Anything but RECORDED and DUPLICATE waits in quarantine.",
)
OBSERVATIONS: Final = Entry(
    name="tokenworks_observations_total",
    kind="counter",
    unit="reports",
    labels=("source", "result"),
    meaning="Reports of requests that several may report, by who reports and by what became of"
    " them: counted, duplicate (sent again), observed (the request was counted by another report),"
    " set_aside (in quarantine).",
)
CONFLICTS: Final = Entry(
    name="tokenworks_observation_conflicts_total",
    kind="counter",
    unit="reports",
    labels=("source",),
    meaning="Reports of requests that were counted by another report with more or fewer tokens.",
)
WAITING: Final = Entry(
    name="tokenworks_observations_waiting",
    kind="gauge",
    unit="reports",
    labels=(),
    meaning="Reports, better than the counted ones of their requests, that wait to take their"
    " place.",
)
UNREADABLE: Final = Entry(
    name="tokenworks_reports_unreadable_total",
    kind="counter",
    unit="reports",
    labels=("source",),
    meaning="Reports of which no event could be made, by source. The log says why.",
)
REPORTS_HELD: Final = Entry(
    name="tokenworks_reports_held",
    kind="gauge",
    unit="reports",
    labels=("source",),
    joining=Joining.SUM,
    meaning="Reports held in memory until they are recorded, of sources that hear no answer and"
    " send none again. What is held when the process dies is lost.",
)
SOURCE_HEARD: Final = Entry(
    name="tokenworks_source_heard_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("source",),
    meaning="When this server heard of a source last, in seconds since 1970.",
)
CALLS: Final = Entry(
    name="tokenworks_calls_failed_total",
    kind="counter",
    unit="calls",
    labels=("reason",),
    meaning="Calls and streams that ended in an error, by reason.",
)
BOUNDS: Final = Entry(
    name="tokenworks_bounds_reached_total",
    kind="counter",
    unit="times",
    labels=("bound",),
    meaning="How often somebody was held back or refused at a bound of one API key or producer:"
    " calls, events (of calls at a time), streams, openings, producers, batches, dimensions. The"
    " log names the key. [What the bounds are](../operating/threat-model.md#bounds).",
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
    joining=Joining.SUM,
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
    joining=Joining.SUM,
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
SHARD_LEASES: Final = Entry(
    name="tokenworks_shard_leases",
    kind="gauge",
    unit="shards",
    labels=(),
    meaning="Shards of the journal that a server holds: how many servers of the installation live."
    " Each of them shows the same.",
)
LEASE_TAKEOVERS: Final = Entry(
    name="tokenworks_lease_takeovers_total",
    kind="counter",
    unit="shards",
    labels=(),
    meaning="Shards that this server adopted, since whoever held them died or hung. What lay"
    " uncounted in them is counted.",
)
STANDBYS_MISSING: Final = Entry(
    name="tokenworks_standbys_missing",
    kind="gauge",
    unit="standbys",
    labels=(),
    meaning="Standbys that must have what is acknowledged and do not follow. While there are any,"
    " producers keep all that they report.",
)
BUILD_INFO: Final = Entry(
    name="tokenworks_build_info",
    kind="gauge",
    unit="servers",
    labels=("version", "factory_version"),
    meaning="1, with this server's version, and that of the factory's description in force (0"
    " without any).",
)
CERTIFICATE_EXPIRY: Final = Entry(
    name="tokenworks_certificate_expiry_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("certificate",),
    joining=Joining.MIN,
    meaning="When a certificate in use expires, in seconds since 1970: the first of the server's"
    " chain (server), the last of the clients' authorities (client_ca). A new one on disk that"
    " cannot be used leaves it as it is.",
)
SANDBOX: Final = Entry(
    name="tokenworks_sandbox",
    kind="gauge",
    unit="installations",
    labels=(),
    meaning="1 where the installation lives on a driven clock: none of it is real. Else 0.",
)
CATALOGUE: Final = (
    TOKENS,
    REQUESTS,
    REPORT_LAG,
    REPORTS,
    OBSERVATIONS,
    CONFLICTS,
    WAITING,
    UNREADABLE,
    REPORTS_HELD,
    SOURCE_HEARD,
    CALLS,
    BOUNDS,
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
    SHARD_LEASES,
    LEASE_TAKEOVERS,
    STANDBYS_MISSING,
    CERTIFICATE_EXPIRY,
    SANDBOX,
    BUILD_INFO,
    TRUNCATED,
    *energy_metrics.CATALOGUE,
    *engine_metrics.CATALOGUE,
)


class Metrics:
    """The catalogue's metrics on a page of their own."""

    def __init__(self) -> None:
        """Make them all."""
        self.page = page = Exposition()
        self.tokens = page.counter(TOKENS)
        self.requests = page.counter(REQUESTS)
        self.report_lag = page.counted_histogram(REPORT_LAG, buckets=LAG_SECONDS)
        self.events = page.counter(REPORTS)
        # Of a series that begins with its first event, Prometheus sees no increase, and no alert
        # would tell of that one.
        self.events.labels(Outcome.REQUEST_ID_REUSED.name)
        self.observations = page.counter(OBSERVATIONS)
        self.observation_conflicts = page.counter(CONFLICTS)
        self.observations_waiting = page.plain_gauge(WAITING)
        self.reports_unreadable = page.counter(UNREADABLE)
        self.reports_held = page.gauge(REPORTS_HELD)
        self.source_heard = page.gauge(SOURCE_HEARD)
        self.calls_failed = page.counter(CALLS)
        self.bounds = page.counter(BOUNDS)
        self.commit_seconds = page.histogram(COMMIT, buckets=_SECONDS)
        self.ack_seconds = page.histogram(ACK, buckets=_SECONDS)
        self.counting_lag = page.plain_gauge(LAG)
        self.counting_behind = page.plain_gauge(BEHIND)
        self.buffer_bytes = page.plain_gauge(BUFFER)
        # It changes with every batch, and is looked at when a page is made.
        self._buffered_bytes = 0
        self.buffer_bytes.set_function(lambda: self._buffered_bytes)
        self.quarantine_held = page.plain_gauge(QUARANTINE)
        self.corrections = page.counter(CORRECTIONS)
        self.streams_open = page.plain_gauge(STREAMS)
        self.batches_missing = page.plain_gauge(MISSING)
        self.producers = page.gauge(PRODUCERS)
        self.producers_silent = page.plain_gauge(PRODUCERS_SILENT)
        self.producer_seen = page.gauge(PRODUCER_SEEN)
        self.producer_backlog = page.plain_gauge(BACKLOG)
        self.streams_fenced = page.plain_counter(FENCED)
        self.rollbacks = page.plain_counter(ROLLBACKS)
        self.shard_leases = page.plain_gauge(SHARD_LEASES)
        self.standbys_missing = page.plain_gauge(STANDBYS_MISSING)
        self.lease_takeovers = page.plain_counter(LEASE_TAKEOVERS)
        self.certificate_expiry = page.gauge(CERTIFICATE_EXPIRY)
        self.build_info = page.gauge(BUILD_INFO)
        self.sandbox = page.plain_gauge(SANDBOX)
        self.energy = EnergyMetrics(page)
        self.engines = EngineMetrics(page)

    @property
    def registry(self) -> CollectorRegistry:
        """What the page is made of."""
        return self.page.registry

    def committed(self, *, seconds: float, submissions: int, events: int) -> None:  # noqa: ARG002
        """Note a group's commit."""
        self.commit_seconds.observe(seconds)

    def buffered(self, size_bytes: int) -> None:
        """Note how much waits."""
        self._buffered_bytes = size_bytes
