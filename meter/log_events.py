"""Every event that the meter logs: its level, its fields, and what it means.

A line of the log is an event, not a sentence: its name is never made of values, and it has the
fields that stand here and no other. Each may have a traceback, and those of a call have its context
as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How much an event asks for; the names are those of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """An event: its name, its level, the names of its fields, and what it means to a reader.

    The fields are of `FIELDS`, or of those of the package that logs it.
    """

    name: str
    level: Level
    fields: tuple[str, ...] = ()
    meaning: str


# What those events have that belong to a call: filled in as it becomes known.
CONTEXT: Final[Mapping[str, str]] = {
    "rpc": "The call, like `MeterService/RecordUsage`.",
    "key_id": "The id of the API key that it came with; never the key.",
    "account": "The id of the account that it asks for.",
    "producer": "The name of the producer whose stream it is.",
    "trace_id": "The trace that it belongs to, where calls are traced.",
}
FIELDS: Final[Mapping[str, str]] = {
    **CONTEXT,
    "bound": "Which bound of a key or a producer; as in tokenworks_bounds_reached_total.",
    "cause": "What the database said: its code and first words, never with values.",
    "code": "The gRPC status code, like `UNAVAILABLE`.",
    "count": "How many.",
    "epoch": "How often a shard has changed its owner, one more each time.",
    "error_id": "16 hexadecimal digits that the caller was told, too.",
    "events": "How many events.",
    "expiry": "Until when a certificate is valid, in ISO 8601.",
    "fault": "What went wrong, in a sentence.",
    "file": "The path of a file.",
    "line": "The database's timeline: one more after each time that a standby took over.",
    "part": "A part of the journal, by the name of its table.",
    "reason": "The error reason of the wire; see [the list](outcomes.md#error-reasons).",
    "says": "A sentence, as the caller was told it.",
    "seconds": "How long it took, in seconds.",
    "shard": "The number of a shard of the journal.",
    "source": "Who reports, like `envoy`; as in tokenworks_observations_total.",
    "standbys": "application_names of standbys, separated by commas.",
    "submissions": "How many batches and calls.",
    "why": "Why something is put off, in a word or two.",
}

CATALOGUE: Final = (
    LogEvent(
        name="arbiter_refused",
        level=Level.WARNING,
        fields=("fault",),
        meaning="A better report of a request could not take the place of the counted one. It waits"
        " on, and is tried again each second.",
    ),
    LogEvent(
        name="bound_reached",
        level=Level.WARNING,
        fields=("bound", "key_id"),
        meaning="A sender takes more than its share, and waits or is told to. Told once in a while"
        " for each key and bound.",
    ),
    LogEvent(
        name="call_failed",
        level=Level.ERROR,
        fields=("error_id",),
        meaning="A call met a fault that nobody foresaw; the caller has its error_id. With a"
        " traceback: report it.",
    ),
    LogEvent(
        name="call_refused",
        level=Level.WARNING,
        fields=("reason", "code", "says", "cause"),
        meaning="A call or a stream ended in an error. What was not acknowledged before it was not"
        " recorded.",
    ),
    LogEvent(
        name="calls_refused_more",
        level=Level.WARNING,
        fields=("count",),
        meaning="So many more ended in errors than the log has lines for; tokenworks_calls_failed_"
        "total has them all.",
    ),
    LogEvent(
        name="certificate_broken",
        level=Level.ERROR,
        fields=("file", "fault"),
        meaning="The certificate files have changed and cannot be used: what was read before is in"
        " use still. Put whole ones there.",
    ),
    LogEvent(
        name="certificate_invalid",
        level=Level.ERROR,
        fields=("file", "fault"),
        meaning="The server has started with a certificate that is over or has not begun: its"
        " clients refuse it.",
    ),
    LogEvent(
        name="certificate_read",
        level=Level.INFO,
        fields=("expiry",),
        meaning="The certificate files have changed, and new connections have what is in them.",
    ),
    LogEvent(
        name="commit_slow",
        level=Level.WARNING,
        fields=("seconds", "submissions", "events"),
        meaning="A group commit took a second or more. Producers wait for it: look at the"
        " database's disk, at its locks, and at synchronous standbys.",
    ),
    LogEvent(
        name="counting_waits",
        level=Level.WARNING,
        fields=("fault", "cause"),
        meaning="A round of counting failed and comes again in a second; nothing is lost.",
    ),
    LogEvent(
        name="database_changed",
        level=Level.WARNING,
        fields=("line",),
        meaning="Another database answers than before: a standby took over. What it lacks comes"
        " again from producers.",
    ),
    LogEvent(
        name="database_lost",
        level=Level.WARNING,
        fields=("cause",),
        meaning="The database does not answer. Nothing is acknowledged until it is reachable.",
    ),
    LogEvent(
        name="database_reachable",
        level=Level.WARNING,
        meaning="The database answers again.",
    ),
    LogEvent(
        name="database_rolled_back",
        level=Level.WARNING,
        fields=("count",),
        meaning="A stream found the database older than what was acknowledged to it: it was"
        " restored, or a standby took over that was behind. What its producer holds comes again.",
    ),
    LogEvent(
        name="energy_waits",
        level=Level.WARNING,
        fields=("fault", "cause"),
        meaning="What was read of the energy sources is not recorded yet, and will be with the"
        " next reading.",
    ),
    LogEvent(
        name="engines_wait",
        level=Level.WARNING,
        fields=("fault", "cause"),
        meaning="What was read of engines' own counters is not recorded yet, and will be with the"
        " next reading.",
    ),
    LogEvent(
        name="goodbye_not_written",
        level=Level.WARNING,
        fields=("producer", "fault", "cause"),
        meaning="A producer ended in good order and could not be retired: it will be called"
        " silent.",
    ),
    LogEvent(
        name="http_failed",
        level=Level.ERROR,
        meaning="The HTTP port met a fault that nobody foresaw; others are answered. With a"
        " traceback: report it.",
    ),
    LogEvent(
        name="lease_not_renewed",
        level=Level.DEBUG,
        fields=("fault",),
        meaning="The lease of the shard could not be renewed; it is tried again in a second.",
    ),
    LogEvent(
        name="part_ended",
        level=Level.ERROR,
        meaning="A part of the meter died, and the process ends with it, to be started anew. With"
        " a traceback: report it.",
    ),
    LogEvent(
        name="journal_part_dropped",
        level=Level.INFO,
        fields=("part",),
        meaning="A month of the journal left the database: its files stand, and are read instead.",
    ),
    LogEvent(
        name="journal_part_stays",
        level=Level.INFO,
        fields=("part", "why"),
        meaning="A month is old enough to leave the database and may not yet; see"
        " [retention](../operating/retention.md).",
    ),
    LogEvent(
        name="journal_parts_made",
        level=Level.INFO,
        fields=("count",),
        meaning="Parts of the journal were made for the months to come.",
    ),
    LogEvent(
        name="presence_skipped",
        level=Level.DEBUG,
        meaning="What was heard of producers is written a round later: the database is away.",
    ),
    LogEvent(
        name="producer_taken_over",
        level=Level.INFO,
        meaning="A newer instance of a producer opened a stream, and the older one's ended. Two"
        " servers that report under one name do this to each other all the time.",
    ),
    LogEvent(
        name="reports_lost",
        level=Level.ERROR,
        fields=("source", "count"),
        meaning="Reports of a source that hears no answer were not recorded and come no more: the"
        " server stopped while its database was away, or, with a traceback, refused them.",
    ),
    LogEvent(
        name="reports_not_sent",
        level=Level.ERROR,
        meaning="Recording reports met a fault that nobody foresaw: those at hand are lost, the"
        " next go on. With a traceback: report it.",
    ),
    LogEvent(
        name="reports_unreadable",
        level=Level.WARNING,
        fields=("source", "fault", "count"),
        meaning="Reports of which no event could be made. Told once a minute for each fault of a"
        " source; tokenworks_reports_unreadable_total has them all.",
    ),
    LogEvent(
        name="shard_adopted",
        level=Level.WARNING,
        fields=("shard",),
        meaning="Whoever held this shard has died, or hangs: it is fenced, and what lies uncounted"
        " there is counted.",
    ),
    LogEvent(
        name="shard_lost",
        level=Level.WARNING,
        fields=("shard",),
        meaning="Somebody else has taken this server's shard: it was started for the same one, or"
        " this server hung for longer than a lease lasts. It takes another one and goes on.",
    ),
    LogEvent(
        name="shard_not_given_back",
        level=Level.DEBUG,
        fields=("shard",),
        meaning="The database was away at the end: the lease runs out by itself.",
    ),
    LogEvent(
        name="shard_taken",
        level=Level.DEBUG,
        fields=("shard", "epoch"),
        meaning="From now on this server writes this shard of the journal.",
    ),
    LogEvent(
        name="standbys_complete",
        level=Level.INFO,
        meaning="All standbys that acknowledgements wait for are connected again.",
    ),
    LogEvent(
        name="standbys_missing",
        level=Level.WARNING,
        fields=("standbys",),
        meaning="These are not connected: what is recorded is not durable, and producers keep it.",
    ),
    LogEvent(
        name="standbys_not_seen",
        level=Level.DEBUG,
        meaning="How far standbys are is looked at again in a moment: the database is away.",
    ),
    LogEvent(
        name="upkeep_waits",
        level=Level.WARNING,
        fields=("fault", "cause"),
        meaning="The journal's parts could not be made, written into files or dropped; it is tried"
        " again in a minute.",
    ),
    LogEvent(
        name="watch_skipped",
        level=Level.DEBUG,
        meaning="A watcher passes over a round: the database is away.",
    ),
)
