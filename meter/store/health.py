"""What `doctor` asks of the database; it changes nothing, and works with half of the rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from meter.domain.errors import Reason, StoreRefusal
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import LATE_MS_MAX
from meter.domain.times import to_ms, to_time
from meter.health import (
    Connections,
    EngineHealth,
    GapHealth,
    Health,
    Login,
    ProducerHealth,
    Right,
    ShardHealth,
    Standby,
)
from meter.runtime.engine import SERVICE_ROLE, store_faults
from meter.store.rights import MIGRATOR, rights

_LISTED_MAX: Final = 5
_DAY_MS: Final = 24 * 3600 * 1000
_RETIRED: Final = 3
_SETTINGS: Final = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "server_version",
)

_LOGIN: Final = text("""
SELECT current_user::text AS "user", current_database()::text AS database,
       current_setting('server_version_num')::integer AS version,
       EXISTS (SELECT FROM pg_roles WHERE rolname = :role) AS has_service_role,
       EXISTS (SELECT FROM pg_roles WHERE rolname = :owner AND pg_has_role(oid, 'MEMBER'))
           AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS may_migrate,
       pg_is_in_recovery() AS is_standby,
       CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER')
            THEN current_setting('data_directory') END AS data_folder
""")
_MAY_SERVE: Final = text("SELECT pg_has_role(:role, 'MEMBER')")
_CLOCK: Final = text("""
SELECT (SELECT driven FROM installation) AS driven,
       (SELECT driven_time FROM installation) AS driven_time, clock_timestamp() AS now
""")
_RIGHTS: Final = text("""
SELECT n.role, n.privilege, n.name, n.wanted
FROM unnest(CAST(:roles AS text[]), CAST(:privileges AS text[]), CAST(:tables AS text[]),
            CAST(:wanted AS boolean[])) AS n (role, privilege, name, wanted)
WHERE has_table_privilege(n.role, n.name, n.privilege) <> n.wanted ORDER BY 1, 2, 3
""")
_SHARDS: Final = text("""
SELECT s.shard, s.position, s.epoch, s.owner, c.position AS counted,
       1000 * extract(epoch FROM s.lease_until - clock_timestamp()) AS lease_ms,
       (SELECT j.commit_time FROM journal j
        WHERE j.shard = s.shard AND j.position > coalesce(c.position, 0)
        ORDER BY j.position LIMIT 1) AS oldest,
       coalesce((SELECT max(p.position) FROM cut_positions p WHERE p.shard = s.shard), 0) AS cut
FROM shards s LEFT JOIN counting c USING (shard) ORDER BY 1
""")
_CUTS: Final = text("SELECT count(*) AS total, max(cut_time) AS newest FROM cuts")
_PRODUCERS: Final = text("""
SELECT state, count(*) AS total,
       coalesce(sum(greatest(announced_sequence - sequence, 0)), 0)::bigint AS backlog
FROM producers GROUP BY 1
""")
_SILENT: Final = text("""
SELECT account_id, producer, seen_time, greatest(announced_sequence - sequence, 0) AS backlog,
       count(*) OVER () AS total
FROM producers
WHERE state < 3 AND greatest(seen_time, create_time) < :before
ORDER BY coalesce(seen_time, '-infinity'), account_id, producer LIMIT :limit
""")
_GAPS: Final = text("""
SELECT account_id, producer, first_sequence, last_sequence, found_time, count(*) OVER () AS total
FROM producer_gaps WHERE found_time >= :since ORDER BY found_time DESC, 1, 2, 3 LIMIT :limit
""")
_MISSING: Final = text(
    "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0)::bigint FROM producer_gaps"
)
_HELD: Final = text(
    "SELECT outcome, count(*) AS total FROM quarantine WHERE state = 1 GROUP BY 1 ORDER BY 1"
)
_STANDBYS: Final = text("""
SELECT application_name AS name, coalesce(state, '') AS state, coalesce(sync_state, '') AS sync,
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::bigint END AS lag
FROM pg_stat_replication ORDER BY 1
""")
_ENGINES: Final = text("""
SELECT pool, replica, read_time, count(*) OVER () AS total,
       count(*) FILTER (WHERE read_time < :quarter) OVER () AS unread
FROM engine_replicas WHERE read_time >= :day ORDER BY read_time, replica LIMIT :limit
""")
# Claims and reports of a day may be a hundred million, usage objects lie many in a row.
_SOURCES: Final = text("""
SELECT source, max(heard) AS heard FROM (
    SELECT source, claim_time AS heard FROM event_claims
    WHERE claim_time >= :quarter AND source IS NOT NULL
    UNION ALL SELECT source, receive_time FROM observations WHERE receive_time >= :quarter
    UNION ALL SELECT source, receive_time FROM usage_originals WHERE receive_time >= :day
) s GROUP BY 1 ORDER BY 1
""")
_SIZE: Final = text("SELECT pg_database_size(current_database())::bigint")
# Before Postgres 16 there is no second kind of reserve.
_CONNECTIONS: Final = text("""
SELECT current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true), '0')::integer AS most,
       (SELECT coalesce(sum(numbackends), 0)::integer FROM pg_stat_database) AS total,
       extract(epoch FROM max(clock_timestamp() - state_change)
               FILTER (WHERE state LIKE 'idle in transaction%')) AS idle
FROM pg_stat_activity
""")


class LoginStore:
    """Asks who we are, in the login's own role: the service's may be out of reach."""

    def __init__(self, engine: Engine) -> None:
        """Take an engine that takes no role."""
        self._engine = engine

    def login(self) -> Login:
        """Return it; raises Unavailable with the driver's own words."""
        with _own_faults(), self._engine.connect() as connection:
            row = connection.execute(_LOGIN, {"role": SERVICE_ROLE, "owner": MIGRATOR}).one()
            connections = _connections(connection)
            may_serve = False
            if row.has_service_role:
                may_serve = bool(connection.execute(_MAY_SERVE, {"role": SERVICE_ROLE}).scalar())
        return Login(
            user=row.user,
            database=row.database,
            version=row.version,
            has_service_role=row.has_service_role,
            may_serve=may_serve,
            may_migrate=row.may_migrate,
            is_standby=row.is_standby,
            data_folder=row.data_folder,
            connections=connections,
        )


class HealthStore:
    """Reads health, in the meter's role."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def read(self, *, silence_ms: int) -> Health:
        """Return how it stands; who was not heard for `silence_ms` is silent.

        On a driven clock, which stands still and leaps, nobody is.
        """
        with _own_faults(), store_faults(), self._engine.begin() as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            return _read(connection, silence_ms=silence_ms)


def _read(connection: Connection, *, silence_ms: int) -> Health:
    clock = connection.execute(_CLOCK).one()
    now_ms = to_ms(clock.driven_time or clock.now)
    limit = {"limit": _LISTED_MAX}
    producers = connection.execute(_PRODUCERS).all()
    before = {"before": to_time(now_ms - silence_ms)}
    silent = [] if clock.driven else connection.execute(_SILENT, {**before, **limit}).all()
    gaps = connection.execute(_GAPS, {"since": to_time(now_ms - LATE_MS_MAX), **limit}).all()
    ago = {"day": to_time(now_ms - _DAY_MS), "quarter": to_time(now_ms - INTERVAL_MS)}
    engines = connection.execute(_ENGINES, {**ago, **limit}).all()
    shards = connection.execute(_SHARDS).all()
    cuts = connection.execute(_CUTS).one()
    wrong, lacking = _rights(connection)
    return Health(
        is_driven=clock.driven,
        now_ms=now_ms,
        database_ms=to_ms(clock.now),
        settings={
            name: connection.execute(
                text("SELECT current_setting(:name)"), {"name": name}
            ).scalar_one()
            for name in _SETTINGS
        },
        wrong_rights=wrong,
        lacking_rights=lacking,
        shards=[_to_shard(row) for row in shards],
        uncounted_segments=sum(max(0, row.position - (row.counted or 0)) for row in shards),
        cut_count=cuts.total,
        newest_cut_ms=None if cuts.newest is None else to_ms(cuts.newest),
        producer_counts={row.state: row.total for row in producers},
        silent_count=silent[0].total if silent else 0,
        silent=[
            ProducerHealth(
                account_id=row.account_id,
                producer=row.producer,
                seen_ms=None if row.seen_time is None else to_ms(row.seen_time),
                backlog_count=row.backlog,
            )
            for row in silent
        ],
        backlog_count=sum(row.backlog for row in producers if row.state < _RETIRED),
        missing_batches=int(connection.execute(_MISSING).scalar_one()),
        recent_gap_count=gaps[0].total if gaps else 0,
        recent_gaps=[
            GapHealth(
                account_id=row.account_id,
                producer=row.producer,
                first_sequence=row.first_sequence,
                last_sequence=row.last_sequence,
                found_ms=to_ms(row.found_time),
            )
            for row in gaps
        ],
        held_by_outcome={row.outcome: row.total for row in connection.execute(_HELD)},
        standbys=[
            Standby(name=row.name, state=row.state, sync_state=row.sync, lag_bytes=row.lag)
            for row in connection.execute(_STANDBYS)
        ],
        database_bytes=connection.execute(_SIZE).scalar_one(),
        engine_count=engines[0].total if engines else 0,
        unread_count=engines[0].unread if engines else 0,
        engines=[
            EngineHealth(pool=row.pool, replica=row.replica, read_ms=to_ms(row.read_time))
            for row in engines
        ],
        sources_heard_ms={
            row.source: to_ms(row.heard) for row in connection.execute(_SOURCES, ago)
        },
    )


def _connections(connection: Connection) -> Connections:
    row = connection.execute(_CONNECTIONS).one()
    return Connections(
        count_max=row.most,
        count=row.total,
        idle_seconds=None if row.idle is None else float(row.idle),
    )


def _rights(connection: Connection) -> tuple[list[Right], list[Right]]:
    columns = zip(*rights(), strict=True)
    names = ("roles", "privileges", "tables", "wanted")
    values = {name: list(column) for name, column in zip(names, columns, strict=True)}
    found = connection.execute(_RIGHTS, values).all()
    excess, lacking = (
        [Right(row.role, row.privilege, row.name) for row in found if row.wanted is wanted]
        for wanted in (False, True)
    )
    return excess, lacking


def _to_shard(row: Any) -> ShardHealth:  # noqa: ANN401
    return ShardHealth(
        shard=row.shard,
        position=row.position,
        epoch=row.epoch,
        counted_position=row.counted,
        oldest_uncounted_ms=None if row.oldest is None else to_ms(row.oldest),
        cut_position=row.cut,
        owner=row.owner,
        lease_ms=None if row.lease_ms is None else int(row.lease_ms),
    )


@contextmanager
def _own_faults() -> Iterator[None]:
    """Keep the driver's own words: whoever is asked what is wrong has to say it."""
    try:
        yield
    except DBAPIError as error:
        first = str(error.orig).strip().splitlines()[0]
        raise StoreRefusal(Reason.INTERNAL, first) from error
