"""Producers in Postgres: their numbers, their instances and gaps, and when each was last heard.

Every time here is the database's own, in a sandbox the driven one: the clock of a server may jump
as it likes, and several servers agree.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, case, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from meter.audit_log import Action, Change
from meter.domain.errors import Overloaded, Reason
from meter.domain.event import Origin
from meter.domain.limits import ACCOUNT_PRODUCERS_MAX, INSTANCE_BYTES, SEEN_METRICS_MAX
from meter.domain.times import to_ms
from meter.journal.protocol import ProducerState
from meter.journal.session import Seen
from meter.producers import (
    Hearing,
    Opening,
    Presence,
    Producer,
    ProducerQuery,
    Standing,
    Summary,
    add_up,
)
from meter.runtime.engine import store_faults
from meter.store.audit_log import ChangeLog
from meter.store.installation import installation_time
from meter.store.producer_list import (
    CLOCK,
    EXPECTED,
    SILENT,
    find_ms,
    get_producer,
    list_producers,
)
from meter.store.producer_openings import end_all, open_all
from meter.store.tables import producer_gaps, producer_instances, producers

_NOW: Final = installation_time(func.clock_timestamp())
# What a commit wrote just now is not written again. A producer that a commit holds is passed over:
# that commit says that it was heard, too, but not what was announced: that is told again. What is
# returned is as it was when the statement began.
_WRITE: Final = text(
    f"""
    WITH now AS MATERIALIZED (SELECT {CLOCK} AS time), told AS (
        SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:names AS text[]),
            CAST(:instances AS bytea[]), CAST(:announced AS bigint[]), CAST(:ages AS float8[]))
            AS n (account_id, producer, instance, announced, age)
    ), free AS MATERIALIZED (
        SELECT p.account_id, p.producer
        FROM producers p JOIN told USING (account_id, producer), now
        WHERE p.state <> {Standing.ACTIVE} OR p.seen_time IS NULL
            OR now.time - told.age * interval '1 second' > p.seen_time + interval '1 second'
            OR told.announced > greatest(p.announced_sequence, p.sequence)
        ORDER BY 1, 2 FOR NO KEY UPDATE OF p SKIP LOCKED
    ), written AS (
        UPDATE producers p SET state = {Standing.ACTIVE},
            seen_time = greatest(p.seen_time, now.time - told.age * interval '1 second'),
            announced_sequence = greatest(p.announced_sequence, told.announced)
        FROM now, told JOIN free USING (account_id, producer)
        WHERE p.account_id = told.account_id AND p.producer = told.producer
            AND p.instance = told.instance AND told.age IS NOT NULL
        RETURNING p.account_id, p.producer
    )
    SELECT told.account_id, told.producer, told.instance AS own, p.instance, p.sequence,
        p.instance = told.instance OR EXISTS (
            SELECT FROM producer_instances i WHERE i.account_id = told.account_id
                AND i.producer = told.producer AND i.instance = told.instance) AS is_known,
        p.instance <> told.instance OR told.announced <= greatest(p.announced_sequence, p.sequence)
            OR w.producer IS NOT NULL AS is_told
    FROM told JOIN producers p USING (account_id, producer)
        LEFT JOIN written w USING (account_id, producer)
    """  # noqa: S608
)
_SUMMARY: Final = text(
    f"""
    WITH now AS MATERIALIZED (SELECT {CLOCK} AS time)
    SELECT p.account_id, p.state, count(*) AS producers, count(*) FILTER (WHERE {SILENT}) AS silent,
        min(greatest(p.seen_time, p.create_time)) AS heard_until,
        sum(greatest(p.announced_sequence - p.sequence, 0)) AS backlog
    FROM producers p, now GROUP BY p.account_id, p.state
    """  # noqa: S608
)
_SEEN: Final = text(
    f"""
    SELECT account_id, producer, seen_time FROM producers p WHERE {EXPECTED}
    ORDER BY seen_time NULLS FIRST LIMIT {SEEN_METRICS_MAX}
    """  # noqa: S608
)


class ProducerStore:
    """Opens, ends and watches producers; each method is a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def open_producer(
        self,
        origin: Origin,
        *,
        first_sequence: int,
        missing_from: int = 0,
        announced_sequence: int = 0,
        may_be_new: bool = True,
    ) -> ProducerState:
        """Make `origin.instance` the newest one and return the state; records a gap.

        `announced_sequence` is what this server has heard and may not have written yet. An instance
        that a newer one has followed changes nothing: the state that is returned then names the
        newer one. Raises Overloaded for a name that is new, unless it `may_be_new`.
        """
        opening = Opening(
            origin=origin,
            first_sequence=first_sequence,
            missing_from=missing_from,
            announced_sequence=announced_sequence,
            may_be_new=may_be_new,
        )
        with store_faults(), self._engine.begin() as connection:
            (state,) = open_all(connection, [opening], waits=True)
            if state is None:
                raise _too_many()
            return state

    def open_producers(self, openings: Sequence[Opening]) -> Sequence[ProducerState | None]:
        """Do it for several, each at most once; None for one that has to be opened alone.

        Somebody holds that one's row, or it is new and may not be.
        """
        with store_faults(), self._engine.begin() as connection:
            return open_all(connection, openings, waits=False)

    def is_known(self, origin: Origin) -> bool:
        """Tell whether an instance has ever opened its producer."""
        mine = select(producer_instances.c.instance).filter_by(
            account_id=origin.account_id, producer=origin.producer, instance=origin.instance
        )
        with store_faults(), self._engine.connect() as connection:
            return connection.execute(mine).first() is not None

    def end_producer(self, origin: Origin) -> None:
        """Retire a producer that has ended in good order: its newest instance, without backlog."""
        with store_faults(), self._engine.begin() as connection:
            end_all(connection, [origin], waits=True)

    def end_producers(self, origins: Sequence[Origin]) -> Sequence[bool | None]:
        """Do it for several, each at most once: True for each, None for one that is held."""
        with store_faults(), self._engine.begin() as connection:
            return end_all(connection, origins, waits=False)

    def write_presences(
        self, presences: Sequence[Presence]
    ) -> Mapping[tuple[str, str, bytes], Seen]:
        """Write when streams were heard, and return what is on disk, by account, name, instance.

        One statement, which waits for no commit. A stream whose row is gone is absent.
        """
        values = {
            "accounts": [each.account_id for each in presences],
            "names": [each.producer for each in presences],
            "instances": [each.instance for each in presences],
            "announced": [each.announced_sequence for each in presences],
            "ages": [each.heard_seconds for each in presences],
        }
        with store_faults(), self._engine.begin() as connection:
            rows = connection.execute(_WRITE, values).all()
        return {
            (row.account_id, row.producer, bytes(row.own)): Seen(
                instance=bytes(row.instance),
                sequence=row.sequence,
                is_known=row.is_known,
                is_told=row.is_told,
            )
            for row in rows
        }

    def summarize(self, *, silence_ms: int | None) -> Summary:
        """Add all producers up; `silence_ms` None calls nobody silent."""
        with store_faults(), self._engine.begin() as connection:
            rows = connection.execute(_SUMMARY, {"silence_ms": silence_ms}).all()
            seen = connection.execute(_SEEN).all()
            missing = _missing_count(connection)
        counts: Counter[Standing] = Counter()
        hearings: dict[str, list[Hearing]] = {}
        for row in rows:
            counts[Standing(row.state)] += row.producers
            if row.state != Standing.RETIRED:
                heard = Hearing(
                    silent_count=row.silent,
                    heard_until_ms=to_ms(row.heard_until),
                    expected_count=row.producers,
                )
                hearings.setdefault(row.account_id, []).append(heard)
        return Summary(
            counts=counts,
            hearings={owner: add_up(each) for owner, each in hearings.items()},
            backlog_count=sum(int(row.backlog) for row in rows if row.state != Standing.RETIRED),
            missing_count=missing,
            seen={(row.account_id, row.producer): find_ms(row.seen_time) for row in seen},
        )

    def list_producers(self, query: ProducerQuery, *, silence_ms: int | None) -> Sequence[Producer]:
        """Return producers by account and name; `silence_ms` None calls nobody silent."""
        with store_faults(), self._engine.connect() as connection:
            return list_producers(connection, query, silence_ms=silence_ms)

    def register(
        self, account_id: str, name: str, *, edge: bool, silence_ms: int | None, by: str
    ) -> Producer:
        """Expect a producer from now on, at the edge or not; an active one stays active."""
        row = _new_row(account_id=account_id, producer=name)
        is_retired = producers.c.state == Standing.RETIRED
        anew = {
            "state": case((is_retired, Standing.REGISTERED), else_=producers.c.state),
            "create_time": case((is_retired, _NOW), else_=producers.c.create_time),
            "edge": edge,
        }
        statement = upsert(producers).values(**row, edge=edge)
        statement = statement.on_conflict_do_update(
            index_elements=[producers.c.account_id, producers.c.producer],
            set_=anew,
            where=or_(is_retired, producers.c.edge.is_distinct_from(edge)),
        )
        with store_faults(), self._engine.begin() as connection:
            changed = connection.execute(statement.returning(_NOW)).scalar_one_or_none()
            if changed is not None:
                detail = {"account": account_id, "edge": edge}
                change = Change(
                    at_ms=to_ms(changed),
                    key_id=by,
                    action=Action.PRODUCER_REGISTER,
                    subject=name,
                    detail=detail,
                )
                ChangeLog().write(connection, change)
            return get_producer(connection, account_id, name, silence_ms=silence_ms)

    def retire(self, account_id: str, name: str, *, by: str) -> Producer:
        """Expect a producer no more; raises NotFound (PRODUCER_NOT_FOUND)."""
        statement = (
            update(producers)
            .filter_by(account_id=account_id, producer=name)
            .where(producers.c.state != Standing.RETIRED)
            .values(state=Standing.RETIRED)
        )
        with store_faults(), self._engine.begin() as connection:
            changed = connection.execute(statement.returning(_NOW)).scalar_one_or_none()
            if changed is not None:
                change = Change(
                    at_ms=to_ms(changed),
                    key_id=by,
                    action=Action.PRODUCER_RETIRE,
                    subject=name,
                    detail={"account": account_id},
                )
                ChangeLog().write(connection, change)
            return get_producer(connection, account_id, name, silence_ms=None)


def _too_many() -> Overloaded:
    return Overloaded(
        Reason.OVERLOADED,
        f"The keys of this account have {ACCOUNT_PRODUCERS_MAX:,} producers that are expected."
        " Retire those that are gone: tokenworks producers retire.",
        bound="producers",
    )


def _new_row(*, account_id: str, producer: str) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "producer": producer,
        # No process draws 16 zero bytes: whoever opens follows nobody.
        "instance": bytes(INSTANCE_BYTES),
        "sequence": 0,
        "digests": b"",
        "state": Standing.REGISTERED,
        "announced_sequence": 0,
        "key_id": "",
        "create_time": _NOW,
    }


def _missing_count(connection: Connection) -> int:
    spans = producer_gaps.c.last_sequence - producer_gaps.c.first_sequence + 1
    return int(connection.execute(select(func.coalesce(func.sum(spans), 0))).scalar_one())
