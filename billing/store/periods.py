"""Periods in Postgres: opened when they begin, and closed with all that comes of it at once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Select,
    Text,
    any_,
    func,
    literal,
    select,
    text,
    tuple_,
)

from billing.calendar import Layout, lay_out
from billing.contracts import ContractVersion
from billing.issued import Doing
from billing.ledger import PeriodKey
from billing.period_book import PeriodQuery, TermsMoved
from billing.periods import Month
from billing.ports import PeriodState, StoredPeriod, Terms
from billing.store.contract_locks import hold_contracts, hold_terms
from billing.store.period_rows import add_periods, change_periods, first_day, to_period
from billing.store.periods_held import PeriodsHeld
from billing.store.tables import billing_periods
from meter.audit_log import ChangeLog
from meter.domain.times import to_time
from meter.runtime.engine import store_faults

_NEWEST = """
SELECT p.*
FROM unnest(CAST(:contracts AS text[])) AS wanted (contract)
CROSS JOIN LATERAL (
    SELECT * FROM billing_periods n
    WHERE n.contract = wanted.contract COLLATE "C" ORDER BY period_start DESC LIMIT 1
) p
"""
# Contracts of one look at their newest periods.
_CONTRACTS_MAX = 20_000


class PeriodStore:
    """Reads and changes periods; safe to share between threads."""

    def __init__(self, engine: Engine, *, change_log: ChangeLog, tzdata: str) -> None:
        """Take the engine, the audit log, and the edition of the time zones that is read."""
        self._engine = engine
        self._change_log = change_log
        self._tzdata = tzdata

    def lay_out(
        self, terms: Terms, *, now_ms: int, contracts: Collection[str] | None = None
    ) -> None:
        """Open the periods that have begun, of all contracts or some; raises TermsMoved."""
        names = {it.contract for it in terms.contracts} if contracts is None else set(contracts)
        with store_faults(), self._engine.begin() as connection:
            if hold_terms(connection) != terms.version:
                raise TermsMoved
            ordered = sorted(names)
            for first in range(0, len(ordered), _CONTRACTS_MAX):
                some = ordered[first : first + _CONTRACTS_MAX]
                versions = {it: terms.contracts.versions(it) for it in some}
                self._go_on(connection, versions, now_ms=now_ms)

    def find(
        self, query: PeriodQuery, *, after: PeriodKey | None, limit: int
    ) -> Sequence[StoredPeriod]:
        """Return periods by contract and time, after one of them."""
        order = (billing_periods.c.contract, billing_periods.c.period_start)
        statement = _where(select(billing_periods), query).order_by(*order).limit(limit)
        if after is not None:
            place = (literal(after.contract), literal(to_time(after.start_ms)))
            statement = statement.where(tuple_(*order) > tuple_(*place))
        with store_faults(), self._engine.connect() as connection:
            return [to_period(row) for row in connection.execute(statement)]

    def counts(self, query: PeriodQuery) -> Mapping[PeriodState, int]:
        """Return how many periods there are in each state."""
        count = select(billing_periods.c.state, func.count()).group_by(billing_periods.c.state)
        with store_faults(), self._engine.connect() as connection:
            return {PeriodState(row[0]): row[1] for row in connection.execute(_where(count, query))}

    def open_months(self, *, ended_ms: int) -> Sequence[Month]:
        """Return the months, in order, with an open period that has ended at an instant."""
        query = PeriodQuery(state=PeriodState.OPEN, ended_ms=ended_ms)
        statement = _where(select(billing_periods.c.month).distinct(), query)
        with store_faults(), self._engine.connect() as connection:
            found = connection.execute(statement.order_by(billing_periods.c.month)).scalars()
            return [Month(it.year, it.month) for it in found]

    def open_before(
        self, contracts: Collection[str], month: Month
    ) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the open periods of contracts of earlier months, by time."""
        query = PeriodQuery(contracts=contracts, state=PeriodState.OPEN)
        statement = (
            _where(select(billing_periods), query)
            .where(billing_periods.c.month < first_day(month))
            .order_by(billing_periods.c.contract, billing_periods.c.period_start)
        )
        found: dict[str, list[StoredPeriod]] = {}
        with store_faults(), self._engine.connect() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.contract, []).append(to_period(row))
        return found

    @contextmanager
    def holding(
        self,
        keys: Collection[PeriodKey],
        *,
        terms_version: int,
        doing: Doing,
        skip_locked: bool = False,
    ) -> Iterator[PeriodsHeld]:
        """Hold periods for a transaction that is committed at the block's end.

        Waits for whoever bills the same contracts, or (`skip_locked`) leaves them out. Raises
        TermsMoved.
        """
        with store_faults(), self._engine.begin() as connection:
            if hold_terms(connection) != terms_version:
                raise TermsMoved
            wanted = {it.contract for it in keys}
            held = hold_contracts(connection, wanted, skip_locked=skip_locked)
            yield PeriodsHeld(
                connection,
                [it for it in keys if it.contract in held],
                terms_version=terms_version,
                doing=doing,
                change_log=self._change_log,
            )

    def _go_on(
        self,
        connection: Connection,
        versions: Mapping[str, Sequence[ContractVersion]],
        *,
        now_ms: int,
    ) -> None:
        rows = connection.execute(text(_NEWEST), {"contracts": list(versions)})
        stored = {row.contract: [to_period(row)] for row in rows}
        # From before there were periods it has those of documents, and no edition of zones: months
        # without an invoice, in between, are open still.
        former = [contract for contract, (newest,) in stored.items() if not newest.tzdata]
        stored |= _read_all(connection, former)
        gapped = frozenset(former)
        layouts = [
            lay_out(
                own,
                stored.get(contract, ()),
                now_ms=now_ms,
                tzdata=self._tzdata,
                newest_only=contract not in gapped,
            )
            for contract, own in versions.items()
        ]
        _keep(connection, layouts, now_ms=now_ms)


def lay_out_contract(
    connection: Connection,
    contract: str,
    versions: Sequence[ContractVersion],
    *,
    now_ms: int,
    tzdata: str,
) -> None:
    """Lay out all periods of a contract anew, whose versions this very transaction has changed.

    `versions` are all of them as they are now. The terms are held, and nobody else's.
    """
    stored = _read_all(connection, [contract])
    layout = lay_out(versions, stored.get(contract, ()), now_ms=now_ms, tzdata=tzdata)
    _keep(connection, [layout], now_ms=now_ms)


def _read_all(connection: Connection, contracts: Sequence[str]) -> dict[str, list[StoredPeriod]]:
    """Return all periods of contracts, by time."""
    statement = (
        select(billing_periods)
        .where(billing_periods.c.contract == any_(literal(list(contracts), ARRAY(Text))))
        .order_by(billing_periods.c.contract, billing_periods.c.period_start)
    )
    found: dict[str, list[StoredPeriod]] = {}
    for row in connection.execute(statement) if contracts else ():
        found.setdefault(row.contract, []).append(to_period(row))
    return found


def _keep(connection: Connection, layouts: Sequence[Layout], *, now_ms: int) -> None:
    change_periods(connection, [it for layout in layouts for it in layout.changed])
    add_periods(connection, [it for layout in layouts for it in layout.opened], now_ms=now_ms)


def _where(statement: Select[Any], query: PeriodQuery) -> Select[Any]:
    if query.month is not None:
        statement = statement.where(billing_periods.c.month == first_day(query.month))
    if query.contracts is not None:
        wanted = any_(literal(list(query.contracts), ARRAY(Text)))
        statement = statement.where(billing_periods.c.contract == wanted)
    if query.state is not None:
        statement = statement.where(billing_periods.c.state == query.state.value)
    if query.ended_ms is not None:
        statement = statement.where(billing_periods.c.period_end <= to_time(query.ended_ms))
    return statement
