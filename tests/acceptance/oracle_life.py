"""What the documents of many months come to, step by step, from what was reported and agreed.

Every question is answered from scratch, event by event, in fractions: nothing is kept but what was
reported, what the files say, and what was issued. Instants are ms since 1970, UTC.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from fractions import Fraction

from tests.acceptance.oracle_accounts import Tree, parent_at
from tests.acceptance.oracle_agreed import Agreed
from tests.acceptance.oracle_bills import (
    PRICE_UNIT_TOKENS,
    Event,
    Period,
    Rated,
    covered_accounts,
    interval_start_ms,
    line_key,
    line_order,
    period_ms,
    price_event,
    round_half_up,
)
from tests.acceptance.oracle_documents import (
    Charge,
    Closed,
    Credit,
    Document,
    Key,
    Line,
    Own,
    Tax,
    read_tax,
    taxes_on,
)
from tests.acceptance.oracle_terms import (
    ContractVersion,
    first_instant_ms,
)


class Life:
    """Reports, agreements and documents, in the order in which they happened."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.documents: list[Document] = []
        # What came of each period that is closed.
        self.closed: dict[Period, str] = {}
        self._carried: dict[Period, set[str]] = {}
        self.agreed = Agreed(tree)
        self._events: list[tuple[int, Event]] = []
        self._own: dict[Period, Own] | None = None
        # What events are priced at, by the terms as they are.
        self._rated: dict[str, list[Rated]] = {}

    def report(self, *events: Event) -> None:
        """Count events."""
        self._events += [(1, event) for event in events]
        self._own = None

    def take_back(self, event: Event) -> None:
        """Count an event off again."""
        self._events.append((-1, event))
        self._own = None

    def set_book(self, text: str) -> None:
        """Agree on a version of a book."""
        self.agreed.set_book(text)
        self._own, self._rated = None, {}

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        self.agreed.set_contract(text)
        self._own, self._rated = None, {}

    def close(self, month: str, *, months: Iterable[str]) -> list[Closed]:
        """Close a month; `months` are all before it that may be open, oldest first."""
        found = []
        for contract, period, _ in self.agreed.periods(month):
            if period in self.closed:
                outcome = self.closed[period]
                outcome = "already issued" if outcome == "issued" else outcome
                found.append(Closed(period, outcome, None))
                continue
            earlier = (
                it
                for before in months
                for _, it, _ in self.agreed.periods(before)
                if before < month
            )
            if any(
                it.contract == period.contract and it not in self.closed and self._of(it).has_usage
                for it in earlier
            ):
                found.append(Closed(period, "held earlier", None))
                continue
            found.append(self._close(contract, period, month=month))
        return found

    def correct(self, period: Period, *, write_off: bool) -> Document | None:
        """Issue what a closed period comes to beyond what was billed, or write it off.

        None where nothing is left, or where some of it has no price.
        """
        lines, charges = self._late(period)
        amounts = [*(it.billed for it in lines), *(it.billed for it in charges)]
        if self._of(period).is_unpriced or not amounts or not (write_off or any(amounts)):
            return None
        net = sum(amounts, Fraction())
        first = self._first_document(period)
        kind = "credit_note" if net < 0 else "supplementary_invoice"
        credited: tuple[Credit, ...] = ()
        if write_off:
            kind = "write_off"
            tax = self.agreed.extras(self.agreed.contract_of(period)).tax
            taxed: dict[Tax | None, Fraction] = defaultdict(Fraction)
            for own, amount in [
                *((tax, it.billed) for it in lines),
                *((it.tax or tax, it.billed) for it in charges),
            ]:
                taxed[own] += amount
            credited = tuple(Credit(-1, 0, -amount, own) for own, amount in taxed.items())
        return self._issue(
            kind, period, lines=lines, charges=charges, credited=credited, refers_to=first
        )

    def is_unpriced(self, period: Period) -> bool:
        """Tell whether some of a period's usage has no price."""
        return self._of(period).is_unpriced

    def left(self, document: Document, line: int) -> Fraction:
        """Return what credits have left of a line of tokens, counted from 1."""
        billed = document.lines[line - 1].billed
        return billed + sum(
            (
                credit.amount
                for other in self.documents
                for credit in other.credits
                if (credit.document, credit.line) == (document.index, line)
            ),
            Fraction(),
        )

    def credit(self, document: Document, line: int, *, amount: Fraction) -> Document:
        """Credit some of a line of tokens."""
        assert 0 < amount <= self.left(document, line)
        tax = self.agreed.extras(self.agreed.contract_of(document.period)).tax
        return self._issue(
            "credit_note",
            document.period,
            credited=(Credit(document.index, line, -amount, tax),),
            refers_to=document.index,
        )

    def void(self, document: Document) -> Document:
        """Take a document back, and open its period."""
        tax = self.agreed.extras(self.agreed.contract_of(document.period)).tax
        taken = [
            Credit(document.index, number, -self.left(document, number), tax)
            for number, _ in enumerate(document.lines, 1)
        ]
        charges = len(document.lines)
        taken += [
            Credit(document.index, charges + number, -it.billed, it.tax)
            for number, it in enumerate(document.charges, 1)
        ]
        note = self._issue(
            "credit_note",
            document.period,
            credited=tuple(it for it in taken if it.amount),
            refers_to=document.index,
        )
        note.cancels = document.index
        document.is_void = True
        self.closed.pop(document.period, None)
        return note

    def _close(self, contract: ContractVersion, period: Period, *, month: str) -> Closed:
        extras = self.agreed.extras(contract)
        before = sorted(
            it
            for it in self.closed
            if it.contract == period.contract and it.start_ms < period.start_ms
        )
        if any(self._of(it).is_unpriced for it in (period, *before)):
            return Closed(period, "held", None)
        lines = self._difference(period)
        charges: list[Charge] = []
        for it in before:
            late, carried = self._late(it)
            lines += late
            charges += carried
        own = self._charges(period, charges)
        charges += own
        amounts = [*(it.billed for it in lines), *(it.billed for it in charges)]
        net = sum(amounts, Fraction())
        end_ms = period_ms(contract, month=month)[1]
        is_final = extras.is_last and end_ms == contract.end_ms
        if not any(amounts) and not extras.wants_zero:
            self.closed[period] = "zero" if lines or charges else "no usage"
        elif 0 < net < extras.minimum and not is_final:
            self.closed[period] = "carried"
            self._carried[period] = {it.charge_id for it in own}
        else:
            self.closed[period] = "issued"
            document = self._issue(
                "credit_note" if net < 0 else "invoice",
                period,
                lines=lines,
                charges=charges,
                replaces=self._replaceable(period),
            )
            return Closed(period, "issued", document)
        return Closed(period, self.closed[period], None)

    def _replaceable(self, period: Period) -> int | None:
        """Return the newest void document of a period that none replaces."""
        replaced = {it.replaces for it in self.documents}
        return max(
            (
                it.index
                for it in self.documents
                if it.period == period and it.is_void and it.index not in replaced
            ),
            default=None,
        )

    def _issue(
        self,
        kind: str,
        period: Period,
        *,
        lines: Iterable[Line] = (),
        charges: Iterable[Charge] = (),
        credited: tuple[Credit, ...] = (),
        refers_to: int | None = None,
        replaces: int | None = None,
    ) -> Document:
        contract = self.agreed.contract_of(period)
        tax = self.agreed.extras(contract).tax
        # What has no tax of its own bears that of the contract as it is when it is billed.
        lines = tuple(lines)
        charges = tuple(it if it.tax else it._replace(tax=tax) for it in charges)
        taxed = [(tax, it.billed) for it in lines]
        taxed += [(it.tax, it.billed) for it in charges]
        taxed += [(it.tax, it.amount) for it in credited]
        document = Document(
            index=len(self.documents),
            kind=kind,
            period=period,
            lines=lines,
            charges=charges,
            credits=credited,
            net=sum((amount for _, amount in taxed), Fraction()),
            taxes=taxes_on(taxed, currency=contract.currency),
            refers_to=refers_to,
            replaces=replaces,
        )
        self.documents.append(document)
        return document

    def _charges(self, period: Period, borne: Iterable[Charge] = ()) -> list[Charge]:
        """Return what a period bears beside tokens and no document, nor `borne`, has billed."""
        contract = self.agreed.contract_of(period)
        extras = self.agreed.extras(contract)
        month = self.agreed.month_of(period)
        start_ms, end_ms = period_ms(contract, month=month)
        billed = [
            charge
            for document in self.documents
            if not document.is_void and document.period.contract == contract.name
            for charge in document.charges
        ]
        billed += borne
        ever = {it.charge_id for it in billed}
        this_month = {
            it.charge_id
            for it in billed
            if self.agreed.month_of(Period(contract.name, it.origin_ms)) == month
        }
        found = []
        for written in extras.charges:
            on = written.get("on")
            is_borne = written["id"] in (this_month if on is None else ever)
            is_due = on is None or start_ms <= _midnight_ms(on, contract) < end_ms
            if is_due and not is_borne:
                exact = Fraction(written.get("quantity", "1")) * Fraction(written["price"])
                amount = round_half_up(exact, currency=contract.currency)
                tax = read_tax(written.get("tax"))
                found.append(Charge(period.start_ms, written["id"], amount, tax))
        return found

    def _late(self, period: Period) -> tuple[list[Line], list[Charge]]:
        """Return what a closed period has left over: what moves no money is not there."""
        lines = [
            it
            for it in self._difference(period)
            if it.billed or it.quantity * it.key.line.unit_price
        ]
        # What it bore when it was carried forward, and no document bears by now.
        carried = self._carried.get(period, set()) if self.closed[period] == "carried" else set()
        return lines, [it for it in self._charges(period) if it.charge_id in carried]

    def _difference(self, period: Period) -> list[Line]:
        """Return what a period comes to by now, less what was billed for it, line by line."""
        now = self._of(period).tokens
        billed: dict[Key, list[Line]] = defaultdict(list)
        for document in self.documents:
            if not document.is_void and document.period.contract == period.contract:
                for line in document.lines:
                    if line.origin_ms == period.start_ms:
                        billed[line.key].append(line)
        currency = self._currency(period)
        found = []
        for key in sorted({*now, *billed}, key=lambda it: (it.group, *line_order(it.line))):
            whole = round_half_up(
                now[key] * key.line.unit_price / PRICE_UNIT_TOKENS, currency=currency
            )
            quantity = now[key] - sum(it.quantity for it in billed[key])
            rest = whole - sum((it.billed for it in billed[key]), Fraction())
            if rest or quantity:
                found.append(Line(period.start_ms, key, quantity, rest))
        return found

    def _currency(self, period: Period) -> str:
        return next(it.currency for it in self.agreed.terms.contracts if it.name == period.contract)

    def _first_document(self, period: Period) -> int | None:
        return next(
            (
                it.index
                for it in self.documents
                if it.period == period
                and not it.is_void
                and it.kind != "write_off"
                and it.cancels is None
                and it.refers_to is None
            ),
            None,
        )

    def _of(self, period: Period) -> Own:
        if self._own is None:
            self._own = defaultdict(Own)
            for sign, event in self._events:
                self._count(event, sign=sign)
        return self._own[period]

    def _count(self, event: Event, *, sign: int) -> None:
        assert self._own is not None
        terms = self.agreed.terms
        if event.request_id not in self._rated:
            self._rated[event.request_id] = price_event(event, terms=terms) or []
        for rated in self._rated[event.request_id]:
            own = self._own[rated.period]
            group = ""
            if self.agreed.extras(rated.setting.contract).by_account:
                group = self._group(event, rated.setting.contract)
            if rated.price is None:
                own.unpriced[rated.key] += sign * rated.quantity
            else:
                line = line_key(rated.key, price=rated.price, setting=rated.setting)
                own.tokens[Key(group, line)] += sign * rated.quantity

    def _group(self, event: Event, contract: ContractVersion) -> str:
        """Return the account right below the covered one, or that itself."""
        covered = covered_accounts(contract, tree=self.tree)
        at_ms = interval_start_ms(event.end_ms)
        place, below = event.account, event.account
        while place not in covered:
            above = parent_at(self.tree, place, at_ms=at_ms)
            assert above is not None, "somebody above is covered"
            place, below = above, place
        return below


def _midnight_ms(on: date, contract: ContractVersion) -> int:
    midnight = datetime.fromisoformat(on.isoformat())
    return first_instant_ms(midnight, zone=contract.zone)
