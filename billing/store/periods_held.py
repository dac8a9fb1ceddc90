"""What is done to periods in the transaction that holds them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from sqlalchemy import Connection, insert, text

from billing.invoicing import Invoice
from billing.issued import Doing
from billing.ledger import PeriodKey
from billing.period_book import Ending
from billing.ports import StoredPeriod
from billing.store.issuing import issue_all
from billing.store.period_rows import instant, to_period
from billing.store.tables import period_approvals
from meter.audit_log import Change, ChangeLog
from meter.domain.times import to_ms, to_time

_KEYS = """
SELECT {columns} FROM unnest(CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]))
    AS wanted (contract, period_start)
JOIN {table} p ON p.contract = wanted.contract COLLATE "C"
    AND p.period_start = wanted.period_start
ORDER BY p.contract, p.period_start
"""
_PERIODS = _KEYS.format(columns="p.*", table="billing_periods")
_APPROVALS = _KEYS.format(columns="p.*", table="period_approvals")
_END = """
UPDATE billing_periods p
SET state = 'closed', outcome = e.outcome, exception = e.exception, close_time = :now,
    cut_id = e.cut_id
FROM unnest(
    CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]), CAST(:outcomes AS text[]),
    CAST(:exceptions AS text[]), CAST(:cuts AS integer[])
) AS e (contract, period_start, outcome, exception, cut_id)
WHERE p.contract = e.contract COLLATE "C" AND p.period_start = e.period_start AND p.state = 'open'
"""
_SETTLE = """
UPDATE billing_periods p
SET settled_cut_id = s.cut_id, settled_terms = s.terms
FROM unnest(
    CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]), CAST(:cuts AS integer[]),
    CAST(:terms AS bytea[])
) AS s (contract, period_start, cut_id, terms)
WHERE p.contract = s.contract COLLATE "C" AND p.period_start = s.period_start
"""
_REOPEN = """
UPDATE billing_periods
SET state = 'open', outcome = '', exception = '', close_time = NULL, cut_id = NULL,
    settled_cut_id = NULL, settled_terms = NULL
WHERE contract = :contract AND period_start = :start
"""


class PeriodsHeld:
    """Periods that one transaction holds; see `billing.period_book.PeriodsHeld`."""

    def __init__(
        self,
        connection: Connection,
        keys: Collection[PeriodKey],
        *,
        terms_version: int,
        doing: Doing,
        change_log: ChangeLog,
    ) -> None:
        """Read the periods, whose contracts and terms the transaction holds."""
        self._connection = connection
        self._terms_version = terms_version
        self._doing = doing
        self._change_log = change_log
        values = {
            "contracts": [it.contract for it in keys],
            "starts": [instant(it.start_ms) for it in keys],
        }
        # Read after they are held: as whoever held them before has left them.
        self._periods = [to_period(row) for row in connection.execute(text(_PERIODS), values)]
        self._approved: dict[PeriodKey, list[Decimal]] = defaultdict(list)
        for row in connection.execute(text(_APPROVALS), values):
            key = PeriodKey(row.contract, to_ms(row.period_start))
            self._approved[key].append(row.total)

    @property
    def periods(self) -> Sequence[StoredPeriod]:
        """Those that are held, as they are; closed ones too."""
        return self._periods

    @property
    def approved(self) -> Mapping[PeriodKey, Collection[Decimal]]:
        """The totals for which somebody has let invoices go."""
        return self._approved

    def approve(self, period: StoredPeriod, *, total: Decimal, reason: str) -> None:
        """Keep that somebody lets an invoice of this total go."""
        self._connection.execute(
            insert(period_approvals).values(
                contract=period.contract,
                period_start=to_time(period.span.start_ms),
                total=total,
                reason=reason,
                key_id=self._doing.key_id,
                approve_time=to_time(self._doing.now_ms),
            )
        )

    def end(self, endings: Sequence[Ending]) -> Sequence[Invoice | None]:
        """Close periods, at most once a transaction; return what was issued for each."""
        if not endings:
            return []
        ended = self._connection.execute(
            text(_END),
            {
                "now": to_time(self._doing.now_ms),
                "contracts": [it.period.contract for it in endings],
                "starts": [instant(it.period.span.start_ms) for it in endings],
                "outcomes": [it.outcome for it in endings],
                "exceptions": [it.exception for it in endings],
                "cuts": [it.cut_id for it in endings],
            },
        )
        assert ended.rowcount == len(endings), "whoever ends a period holds it, and it is open"
        self._settle(endings)
        drafts = [it.draft for it in endings if it.draft is not None]
        # Last: whoever waits for a number of the same series waits the least.
        issued = iter(
            issue_all(
                self._connection,
                drafts,
                terms_version=self._terms_version,
                now_ms=self._doing.now_ms,
            )
        )
        return [None if it.draft is None else next(issued) for it in endings]

    def reopen(self, period: StoredPeriod) -> None:
        """Open a closed period again; all of it has to be looked at."""
        values = {"contract": period.contract, "start": to_time(period.span.start_ms)}
        self._connection.execute(text(_REOPEN), values)

    def log(self, *changes: Change) -> None:
        """Write into the audit log."""
        self._change_log.write(self._connection, *changes)

    def _settle(self, endings: Sequence[Ending]) -> None:
        settled = [(each, it.cut_id) for it in endings for each in it.settled]
        if settled:
            self._connection.execute(
                text(_SETTLE),
                {
                    "contracts": [it.contract for it, _ in settled],
                    "starts": [instant(it.start_ms) for it, _ in settled],
                    "cuts": [cut_id for _, cut_id in settled],
                    "terms": [it.terms for it, _ in settled],
                },
            )
