"""How an installation's database stands: facts, read in one look, without an opinion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meter.engine_drift import EngineDrift


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Connections of the whole database server: how many may be, and how many are.

    `count_max` is without those that are kept for superusers. `idle_seconds` is for how long the
    oldest one does nothing within a transaction, None where there is none, or none is known.
    """

    count_max: int
    count: int
    idle_seconds: float | None


class Right(NamedTuple):
    """What a role may do with a table, in SQL's words."""

    role: str
    verb: str
    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Whom the database takes us for, and whether that one may act as the service.

    `version` is the server's, 150000 to 189999. `has_service_role` is False where the role does not
    exist at all: nothing was ever migrated in this cluster. `data_folder` is where the database
    lies on its machine, None where the login may not know. `may_migrate` is whether it may act as
    the role that owns the schema, False of a superuser, who may do anything anyhow.
    """

    user: str
    database: str
    version: int
    has_service_role: bool
    may_serve: bool
    may_migrate: bool
    is_standby: bool
    data_folder: str | None
    connections: Connections


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHealth:
    """A shard of the journal: its newest position, its owner's epoch, and how far it is counted.

    `counted_position` is None where nobody has ever counted it. `oldest_uncounted_ms` is when the
    first segment was recorded that is not counted yet. `cut_position` is that of the newest cut.
    `owner` is the process that holds it, empty for none; `lease_ms` is for how long it does so
    still, below 0 when that was, None for one that nobody holds for a time.
    """

    shard: int
    position: int
    epoch: int
    counted_position: int | None
    oldest_uncounted_ms: int | None
    cut_position: int
    owner: str = ""
    lease_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerHealth:
    """A producer that is expected to report and has not been heard for some time.

    `seen_ms` is None for one that was registered and never came. `backlog_count` are batches that
    it has announced and not delivered.
    """

    account_id: str
    producer: str
    seen_ms: int | None
    backlog_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GapHealth:
    """Numbers of a producer that were passed over, first and last, and when that was found."""

    account_id: str
    producer: str
    first_sequence: int
    last_sequence: int
    found_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """A standby that is connected; `lag_bytes` is what it has not on its disk, if that is known."""

    name: str
    state: str
    sync_state: str
    lag_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHealth:
    """An engine's page, and when it was read last."""

    pool: str
    replica: str
    read_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All that is looked at; times in ms since 1970.

    `now_ms` is the installation's time (a sandbox's own), `database_ms` the database's.
    `is_driven` is None before the first start. `wrong_rights` are those that a role
    has and should not have, `lacking_rights` those that one lacks.
    `producer_counts` are by state, 1 registered, 2 active, 3 retired. `silent` are the longest
    silent first, at most as many as were asked for, of `silent_count`. `recent_gaps` are those
    found within the time in which late events are taken. Of the `engine_count` engines that were
    read within a day `unread_count` were not for a quarter of an hour, and `engines` are those that
    were read longest ago; `drifts` are of the last complete day. `sources_heard_ms` says by source
    when it was heard last, as far as that was within a day and is seen at once.
    """

    is_driven: bool | None
    now_ms: int
    database_ms: int
    settings: Mapping[str, str]
    wrong_rights: Sequence[Right]
    lacking_rights: Sequence[Right]
    shards: Sequence[ShardHealth]
    uncounted_segments: int
    cut_count: int
    newest_cut_ms: int | None
    producer_counts: Mapping[int, int]
    silent_count: int
    silent: Sequence[ProducerHealth]
    backlog_count: int
    missing_batches: int
    recent_gap_count: int
    recent_gaps: Sequence[GapHealth]
    held_by_outcome: Mapping[int, int]
    standbys: Sequence[Standby]
    database_bytes: int
    engine_count: int = 0
    unread_count: int = 0
    engines: Sequence[EngineHealth] = ()
    drifts: Sequence[EngineDrift] = ()
    sources_heard_ms: Mapping[int, int] = field(default_factory=dict)
