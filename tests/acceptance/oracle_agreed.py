"""What is agreed on, as the oracle reads it: all files of the moment, and what they say of periods.

Instants are ms since 1970, UTC.
"""

import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from tests.acceptance.oracle_accounts import Tree
from tests.acceptance.oracle_bills import Period, Terms, month_of, period_ms
from tests.acceptance.oracle_documents import Extras, read_tax
from tests.acceptance.oracle_terms import ContractVersion, read_books, read_contracts, wall_time

# From then on a contract is open.
_NO_END_YEAR = 9990


class Agreed:
    """Price books and contracts as they are by now."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._books: list[str] = []
        self._contracts: dict[tuple[str, object], str] = {}
        self._terms: Terms | None = None
        self._extras: dict[ContractVersion, Extras] = {}

    def set_book(self, text: str) -> None:
        """Agree on a version of a book."""
        self._books.append(text)
        self._terms = None

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        written = tomllib.loads(text)
        self._contracts[written["contract"], written["from"]] = text
        self._terms = None

    @property
    def terms(self) -> Terms:
        """All that is agreed on."""
        if self._terms is None:
            self._extras = {}
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

    def contract_of(self, period: Period) -> ContractVersion:
        """Return the version of its contract that a period is of."""
        return next(
            it
            for it in self.terms.contracts
            if it.name == period.contract and it.start_ms <= period.start_ms < it.end_ms
        )

    def month_of(self, period: Period) -> str:
        """Return the month that a period is of."""
        return month_of(self.contract_of(period), at_ms=period.start_ms)[0]

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
            wall_time(contract.end_ms, zone=contract.zone).year < _NO_END_YEAR and not later,
        )

    def _text_of(self, written: Mapping[str, Any]) -> str:
        return self._contracts[written["contract"], written["from"]]
