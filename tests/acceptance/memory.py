"""Usage and documents kept in memory, as the product's rules ask for them: no database."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count

from billing.charging import BilledCharge
from billing.crediting import TakenOff
from billing.difference import BilledLine
from billing.documents.canonical import from_json, to_json
from billing.invoicing import DocumentKind, Invoice, InvoiceLine, issue
from billing.ledger import PeriodKey
from billing.ports import StoredPeriod
from billing.price_book import Price
from billing.rating import LineKey
from meter.domain.account import AccountTree
from meter.usage import UsageFact
from tests.acceptance.oracle_bills import Event
from tests.acceptance.rated_worlds import fact_of


class NoConsumption:
    """Nobody's energy."""

    def energy(self, **_: object) -> Iterator[object]:
        """Yield nothing."""
        return iter(())

    def pues(self, **_: object) -> dict[str, object]:
        """Return nothing."""
        return {}

    def pool_tokens(self, **_: object) -> Sequence[object]:
        """Return nothing."""
        return ()


@dataclass(kw_only=True)
class Kept:
    """A document as it was issued, and by which credit note it was taken back, if any."""

    invoice: Invoice
    voided_by: str = ""

    @property
    def number(self) -> str:
        """Its number."""
        assert self.invoice.issue is not None
        return self.invoice.issue.number


class Memory:
    """Usage and documents, as the product's rules ask for them."""

    def __init__(self, tree: AccountTree) -> None:
        self.tree = tree
        self.documents: list[Kept] = []
        self.closed: dict[PeriodKey, StoredPeriod] = {}
        self.cut_id = 1
        self._facts: list[tuple[int, UsageFact]] = []
        self._numbers = count(1)

    def add(self, event: Event, *, sign: int) -> None:
        """Count an event, or count it off again."""
        self._facts.append((self.cut_id, fact_of(event, sign=sign)))

    def take_cut(self) -> int:
        """Take a cut; what is counted after it carries a later one."""
        self.cut_id += 1
        return self.cut_id - 1

    def keep(self, draft: Invoice, *, issue_ms: int) -> Invoice:
        """Issue a draft, and keep it as it can be read back."""
        issued = issue(draft, number=next(self._numbers), issue_ms=issue_ms)
        assert from_json(to_json(issued)) == issued, "a document is kept whole"
        self.documents.append(Kept(invoice=issued))
        return issued

    # What the drafting asks of usage.

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield facts of intervals."""
        starts = sorted({it.interval_start_ms for _, it in self._facts})
        edges = [*(it for it in starts if start_ms <= it < end_ms), end_ms]
        if len(edges) > 1:
            yield from self.sums(account_ids=account_ids, edges_ms=edges, cut_id=cut_id)

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield facts added up between edges."""
        wanted, added = set(account_ids), dict[object, UsageFact]()
        for cut, fact in self._facts:
            at_ms = fact.interval_start_ms
            is_in = edges_ms[0] <= at_ms < edges_ms[-1] and fact.account_id in wanted
            if is_in and (cut_id is None or cut <= cut_id):
                start_ms = max(it for it in edges_ms if it <= at_ms)
                key = (fact.account_id, start_ms, fact.model, fact.served_model, fact.tier)
                key = (*key, fact.mode, fact.band)  # type: ignore[assignment]
                before = added.get(key, replace(fact, tokens={}, request_count=0))
                tokens = {
                    it: before.tokens.get(it, 0) + fact.tokens.get(it, 0)
                    for it in {**before.tokens, **fact.tokens}
                }
                added[key] = replace(before, interval_start_ms=start_ms, tokens=tokens)
        found = sorted(added.values(), key=lambda it: (it.account_id, it.interval_start_ms))
        for fact in found:
            tokens = {it: n for it, n in fact.tokens.items() if n}
            if tokens:
                yield replace(fact, tokens=tokens)

    def latest_cuts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """Return each account's newest cut in a span."""
        found: dict[str, int] = {}
        for cut, fact in self._facts:
            if start_ms <= fact.interval_start_ms < end_ms and fact.account_id in account_ids:
                found[fact.account_id] = max(cut, found.get(fact.account_id, 0))
        return found

    def drifted(self, **_: object) -> frozenset[str]:
        """Return nobody."""
        return frozenset()

    def accounts_with_usage(self, **_: object) -> frozenset[str]:
        """Return all accounts with usage."""
        return frozenset(it.account_id for _, it in self._facts)

    def counted_until_ms(self) -> int:
        """Return no time in particular."""
        return 0

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return nothing."""
        return {}

    def is_counted(self, _: Mapping[int, int]) -> bool:
        """Tell that all is."""
        return True

    # What it asks of documents.

    def closed_periods(self, contracts: Collection[str]) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return closed periods."""
        found: dict[str, list[StoredPeriod]] = defaultdict(list)
        for key in sorted(self.closed):
            if key.contract in contracts:
                found[key.contract].append(self.closed[key])
        return found

    def billed(
        self, periods: Collection[PeriodKey], *, before: str = ""
    ) -> Mapping[PeriodKey, Sequence[BilledLine]]:
        """Return lines by the period that they are for."""
        assert not before
        found: dict[PeriodKey, list[BilledLine]] = defaultdict(list)
        for kept in self._standing():
            for line in kept.invoice.lines:
                own = kept.invoice.span.start_ms
                start_ms = own if line.origin is None else line.origin.start_ms
                key = PeriodKey(kept.invoice.version.contract, start_ms)
                if key in periods:
                    found[key].append(_billed(kept, line))
        return found

    def billed_charges(
        self, contracts: Collection[str], *, since_ms: int
    ) -> Mapping[str, Sequence[BilledCharge]]:
        """Return charges by contract."""
        found: dict[str, list[BilledCharge]] = defaultdict(list)
        for kept in self._standing():
            invoice = kept.invoice
            if invoice.version.contract in contracts and invoice.span.start_ms >= since_ms:
                for it in invoice.charges:
                    own = invoice.span.start_ms
                    start_ms = own if it.origin is None else it.origin.start_ms
                    found[invoice.version.contract].append(BilledCharge(it.charge_id, start_ms))
        return found

    def prices(self, lines: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], Price]:
        """Return the prices of lines."""
        return {
            (kept.number, line.line): line.price
            for kept in self.documents
            for line in kept.invoice.lines
            if (kept.number, line.line) in lines
        }

    def replaceable(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return void documents that none replaces."""
        replaced = {it.invoice.replaces for it in self.documents}
        return {
            _key(it.invoice): it.number
            for it in self.documents
            if it.voided_by and it.number not in replaced and _key(it.invoice) in periods
        }

    def numbers(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return the newest documents of periods."""
        return {
            _key(it.invoice): it.number
            for it in self._standing()
            if not it.invoice.refers_to
            and it.invoice.kind is not DocumentKind.WRITE_OFF
            and _key(it.invoice) in periods
        }

    def last_nets(self, _: Collection[PeriodKey]) -> Mapping[PeriodKey, Decimal]:
        """Return nothing: no contract of a story minds jumps."""
        return {}

    def taken_off(self, number: str) -> list[TakenOff]:
        """Return what credit notes took off a document."""
        return [
            TakenOff(line=it.number_line, token_count=it.token_count, amount=-it.amount)
            for kept in self.documents
            for it in kept.invoice.credits
            if it.number == number
        ]

    def _standing(self) -> Iterator[Kept]:
        return (it for it in self.documents if not it.voided_by)


def _key(invoice: Invoice) -> PeriodKey:
    return PeriodKey(invoice.version.contract, invoice.span.start_ms)


def _billed(kept: Kept, line: InvoiceLine) -> BilledLine:
    return BilledLine(
        key=LineKey(
            group=line.group,
            model=line.model,
            tier=line.tier,
            mode=line.mode,
            token_class=line.token_class,
            above=line.price.above,
            window=line.price.window,
            book=line.price.book,
            version_start_ms=line.price.version_start_ms,
            unit_price=line.price.unit_price,
        ),
        number=kept.number,
        line=line.line,
        token_count=line.token_count,
        billed=line.billed,
    )
