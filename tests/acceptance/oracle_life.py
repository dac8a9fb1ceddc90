"""What the documents of many months come to, step by step, from what was reported and agreed.

Every question is answered from scratch, event by event, in fractions: nothing is kept but what was
reported, what the files say, and what was issued. Instants are ms since 1970, UTC.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from tests.acceptance.oracle_accounts import Tree, parent_at
from tests.acceptance.oracle_bills import (
    PRICE_UNIT_TOKENS,
    Event,
    Period,
    Rated,
    Terms,
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
    Extras,
    Key,
    Line,
    Own,
    read_tax,
    taxes_on,
)
from tests.acceptance.oracle_terms import (
    ContractVersion,
    first_instant_ms,
    read_books,
    read_contracts,
    wall_time,
)


class Life:
    """Reports, agreements and documents, in the order in which they happened."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.documents: list[Document] = []
        self.closed: set[Period] = set()
        self._voided: dict[Period, int] = {}
        self._books: list[str] = []
        self._contracts: dict[tuple[str, object], str] = {}
        self._events: list[tuple[int, Event]] = []
        self._terms: Terms | None = None
        self._own: dict[Period, Own] | None = None
        # Of the terms as they are: what events are priced at, and what files say beside prices.
        self._rated: dict[str, list[Rated]] = {}
        self._extras: dict[ContractVersion, Extras] = {}

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
        self._books.append(text)
        self._terms = self._own = None

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        written = tomllib.loads(text)
        self._contracts[written["contract"], written["from"]] = text
        self._terms = self._own = None

    @property
    def terms(self) -> Terms:
        """All that is agreed on."""
        if self._terms is None:
            self._rated, self._extras = {}, {}
            contracts = read_contracts(self._contracts.values())
            self._terms = Terms(self.tree, books=read_books(self._books), contracts=contracts)
        return self._terms

    def periods(self, month: str) -> list[tuple[ContractVersion, Period, int]]:
        """Return version, period and its end for each that a month is billed as, in order."""
        found = []
        for contract in self.terms.contracts:
            start_ms, end_ms = period_ms(contract, month=month)
            if start_ms < end_ms:
                found.append((contract, Period(contract.name, start_ms), end_ms))
        return found

    def close(self, month: str, *, months: Iterable[str]) -> list[Closed]:
        """Close a month; `months` are all before it that may be open, oldest first."""
        found = []
        for contract, period, _ in self.periods(month):
            if period in self.closed:
                found.append(Closed(period, "already issued", None))
                continue
            earlier = (
                it for before in months for _, it, _ in self.periods(before) if before < month
            )
            if any(
                it.contract == period.contract and it not in self.closed and self._of(it).has_usage
                for it in earlier
            ):
                found.append(Closed(period, "held earlier", None))
                continue
            found.append(self._close(contract, period, month=month))
        return found

    def correct(
        self, contract: ContractVersion, period: Period, *, write_off: bool
    ) -> Document | None:
        """Issue what a closed period comes to beyond what was billed, or write it off."""
        lines = self._difference(period)
        if not lines:
            return None
        net = sum((line.billed for line in lines), Fraction())
        first = self._first_document(period)
        if write_off:
            credit = Credit(-1, 0, -net, self.extras(contract).tax)
            return self._issue(
                "write_off", period, contract, lines=lines, credited=(credit,), refers_to=first
            )
        kind = "credit_note" if net < 0 else "supplementary_invoice"
        return self._issue(kind, period, contract, lines=lines, refers_to=first)

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

    def credit(
        self, contract: ContractVersion, document: Document, line: int, *, amount: Fraction
    ) -> Document:
        """Credit some of a line of tokens."""
        assert 0 < amount <= self.left(document, line)
        tax = self.extras(contract).tax
        return self._issue(
            "credit_note",
            document.period,
            contract,
            credited=(Credit(document.index, line, -amount, tax),),
            refers_to=document.index,
        )

    def void(self, contract: ContractVersion, document: Document) -> Document:
        """Take a document back, and open its period."""
        tax = self.extras(contract).tax
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
            contract,
            credited=tuple(it for it in taken if it.amount),
            refers_to=document.index,
        )
        note.cancels = document.index
        document.is_void = True
        self.closed.discard(document.period)
        self._voided[document.period] = document.index
        return note

    def extras(self, contract: ContractVersion) -> Extras:
        """Return what the contract's file says beside prices."""
        terms = self.terms
        if contract not in self._extras:
            self._extras[contract] = self._read_extras(contract, terms.contracts)
        return self._extras[contract]

    def _read_extras(
        self, contract: ContractVersion, contracts: Iterable[ContractVersion]
    ) -> Extras:
        written = next(
            it
            for it in map(tomllib.loads, self._contracts.values())
            if it["contract"] == contract.name
            and read_contracts([self._text_of(it)])[0].start_ms == contract.start_ms
        )
        document = written.get("document", {})
        later = any(
            it.name == contract.name and it.start_ms > contract.start_ms for it in contracts
        )
        return Extras(
            document.get("group_by") == "account",
            Fraction(document.get("minimum", "0")),
            document.get("zero", False),
            read_tax(written.get("tax")),
            tuple(written.get("charges", ())),
            wall_time(contract.end_ms, zone=contract.zone).year < 9990 and not later,
        )

    def _text_of(self, written: Mapping[str, Any]) -> str:
        return self._contracts[written["contract"], written["from"]]

    def _close(self, contract: ContractVersion, period: Period, *, month: str) -> Closed:
        extras = self.extras(contract)
        before = sorted(it for it in self.closed if it.contract == period.contract and it != period)
        own = self._difference(period)
        late = [line for it in before for line in self._difference(it)]
        if any(self._of(it).is_unpriced for it in (period, *before)):
            return Closed(period, "held", None)
        charges = tuple(self._charges(contract, month=month, extras=extras))
        lines = [*own, *late]
        amounts = [*(it.billed for it in lines), *(it.billed for it in charges)]
        net = sum(amounts, Fraction())
        self.closed.add(period)
        replaces = self._voided.get(period)
        if not lines and not charges and not self._of(period).has_usage:
            return Closed(period, "no usage", None)
        if not any(amounts) and not extras.wants_zero:
            return Closed(period, "zero", None)
        end_ms = period_ms(contract, month=month)[1]
        is_final = extras.is_last and end_ms == contract.end_ms
        if 0 <= net < extras.minimum and not is_final:
            return Closed(period, "carried", None)
        self._voided.pop(period, None)
        kind = "credit_note" if net < 0 else "invoice"
        document = self._issue(
            kind, period, contract, lines=lines, charges=charges, replaces=replaces
        )
        return Closed(period, "issued", document)

    def _issue(
        self,
        kind: str,
        period: Period,
        contract: ContractVersion,
        *,
        lines: Iterable[Line] = (),
        charges: tuple[Charge, ...] = (),
        credited: tuple[Credit, ...] = (),
        refers_to: int | None = None,
        replaces: int | None = None,
    ) -> Document:
        lines = tuple(lines)
        tax = self.extras(contract).tax
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

    def _charges(
        self, contract: ContractVersion, *, month: str, extras: Extras
    ) -> Iterator[Charge]:
        """Return what the month bears beside tokens and no document has billed yet."""
        start_ms, end_ms = period_ms(contract, month=month)
        billed = {
            charge.charge_id
            for document in self.documents
            if not document.is_void
            and document.period.contract == contract.name
            and self._month_of(document.period) == month
            for charge in document.charges
        }
        for written in extras.charges:
            on = written.get("on")
            if on is not None:
                at_ms = _midnight_ms(on, contract)
                if not start_ms <= at_ms < end_ms:
                    continue
            if written["id"] in billed:
                continue
            exact = Fraction(written.get("quantity", "1")) * Fraction(written["price"])
            tax = read_tax(written.get("tax")) or extras.tax
            yield Charge(written["id"], round_half_up(exact, currency=contract.currency), tax)

    def _month_of(self, period: Period) -> str:
        contract = next(
            it
            for it in self.terms.contracts
            if it.name == period.contract and it.start_ms <= period.start_ms < it.end_ms
        )
        wall = wall_time(period.start_ms, zone=contract.zone)
        return f"{wall:%Y-%m}"

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
            if rest or quantity * key.line.unit_price or (quantity and not billed[key]):
                found.append(Line(period.start_ms, key, quantity, rest))
        return found

    def _currency(self, period: Period) -> str:
        return next(it.currency for it in self.terms.contracts if it.name == period.contract)

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
        terms = self.terms
        if event.request_id not in self._rated:
            self._rated[event.request_id] = price_event(event, terms=terms) or []
        for rated in self._rated[event.request_id]:
            own = self._own[rated.period]
            own.has_usage = True
            group = ""
            if self.extras(rated.setting.contract).by_account:
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
