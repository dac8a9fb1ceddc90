"""Contracts: who sells to whom, for which accounts, at which book's prices, in which months.

A contract is a row of versions. One version is in force from its start until the next one's, or
until its own end. The nearest contract upward from an account bills its usage, once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from billing.charges import Charge
from billing.money import Currency
from billing.periods import Month, Span, month_span
from billing.price_book import Override
from billing.tax import Tax
from meter.domain.account import AccountTree
from meter.domain.boundary import Boundary


class PriceBy(StrEnum):
    """Which name of a model is sold: the one that was asked for, or the one that answered."""

    REQUESTED = "requested"
    SERVED = "served"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A seller or buyer, as an invoice names it; `tax_id` may be empty."""

    party_id: str
    name: str
    address: tuple[str, ...]
    tax_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingTerms:
    """How a month of a contract is closed.

    Usage is collected for `collect_hours` (0 to 120) after its end. `hold_first` wants the first
    invoice to be approved, and so does `hold_jump` one whose total is more than so many times that
    of the month before; None: however much it is.
    """

    collect_hours: int = 72
    hold_first: bool = False
    hold_jump: Decimal | None = Decimal(3)


CLOSING_DEFAULT: Final = ClosingTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractVersion:
    """A version of a contract, in force in `[start_ms, end_ms)`; an `end_ms` of None: open.

    `covers` are account ids, each with all below it; the first one names the contract's account.
    `energy` is whose energy its invoices tell of; None: of none. `tax` is that of tokens, and of
    charges that have none of their own; None: invoices bear no tax. `bank` are lines as printed.
    `by_account` splits lines by the accounts right below those that are covered. A total without
    tax below `minimum` is carried forward; one that comes to nothing is a document only with
    `zero_documents`.
    """

    contract: str
    start_ms: int
    end_ms: int | None
    zone: ZoneInfo
    currency: Currency
    book: str
    price_by: PriceBy
    covers: tuple[str, ...]
    seller: Party
    buyer: Party
    series: str
    po: str
    terms_days: int
    overrides: tuple[Override, ...]
    energy: Boundary | None = None
    tax: Tax | None = None
    charges: tuple[Charge, ...] = ()
    bank: tuple[str, ...] = ()
    by_account: bool = False
    minimum: Decimal = Decimal(0)
    zero_documents: bool = False
    closing: ClosingTerms = CLOSING_DEFAULT

    def holds_at(self, at_ms: int) -> bool:
        """Tell whether it is in force at an instant."""
        return self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)

    def sold_model(self, model: str, served_model: str) -> str:
        """Return the name under which a request's model is sold."""
        return served_model if self.price_by is PriceBy.SERVED else model


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingPeriod:
    """What one invoice is for: a month in the contract's zone, while the version is in force."""

    version: ContractVersion
    month: Month
    span: Span

    @property
    def is_in_force(self) -> bool:
        """Tell whether the version is in force when the period begins.

        It is not where the version was set to end before, after the period was opened or closed.
        """
        return self.version.holds_at(self.span.start_ms)


class Contracts:
    """All versions of all contracts; never changes."""

    __slots__ = ("_covering", "_versions", "_written")

    def __init__(self, versions: Iterable[ContractVersion] = ()) -> None:
        """Take versions as they were written; each ends where its contract's next one begins."""
        self._written: dict[str, dict[int, ContractVersion]] = {}
        self._versions: dict[str, tuple[ContractVersion, ...]] = {}
        self._covering: dict[str, list[ContractVersion]] = {}
        for version in versions:
            written = self._written.setdefault(version.contract, {})
            assert version.start_ms not in written, "one version an instant"
            written[version.start_ms] = version
        for contract in sorted(self._written):
            self._take(contract)

    def __iter__(self) -> Iterator[ContractVersion]:
        for contract in sorted(self._versions):
            yield from self._versions[contract]

    def having(self, versions: Iterable[ContractVersion]) -> "Contracts":
        """Return these contracts with more versions, or others that begin when theirs do.

        Takes no longer than the versions, and to copy what is known of all.
        """
        changed = Contracts()
        changed._written = dict(self._written)
        changed._versions = dict(self._versions)
        changed._covering = dict(self._covering)
        by_contract: dict[str, dict[int, ContractVersion]] = {}
        for version in versions:
            known = self._written.get(version.contract, {})
            written = by_contract.setdefault(version.contract, dict(known))
            written[version.start_ms] = version
        for contract, written in by_contract.items():
            changed._forget(contract)
            changed._written[contract] = written
            changed._take(contract)
        return changed

    def among(self, account_ids: Iterable[str]) -> "Contracts":
        """Return only the contracts that name some of these accounts, all versions of each."""
        named = {it.contract for each in account_ids for it in self._covering.get(each, ())}
        return Contracts(it for contract in named for it in self._written[contract].values())

    def versions(self, contract: str) -> Sequence[ContractVersion]:
        """Return a contract's versions, oldest first; empty for one that is unknown."""
        return self._versions.get(contract, ())

    def covering(self, account_id: str, at_ms: int) -> list[ContractVersion]:
        """Return the versions that name this very account at an instant; two would be a fault."""
        return [it for it in self._covering.get(account_id, ()) if it.holds_at(at_ms)]

    def find_billing(
        self, tree: AccountTree, account_id: str, at_ms: int
    ) -> ContractVersion | None:
        """Return the version that bills an account's usage at an instant: the nearest upward."""
        for account in tree.ancestry(account_id, at_ms=at_ms):
            covering = self.covering(account.account_id, at_ms)
            if covering:
                return covering[0]
        return None

    def clashes(self, version: ContractVersion) -> list[tuple[str, ContractVersion]]:
        """Return the accounts that other contracts cover at some time that this version does.

        The version may be a new one; it ends where its contract's next one begins.
        """
        others = (it for it in self.versions(version.contract) if it.start_ms != version.start_ms)
        version = next(it for it in _ended([*others, version]) if it.start_ms == version.start_ms)
        return [
            (account_id, other)
            for account_id in version.covers
            for other in self._covering.get(account_id, ())
            if other.contract != version.contract and _meet(version, other)
        ]

    def _take(self, contract: str) -> None:
        """Know the versions of a contract as they were written."""
        self._versions[contract] = _ended(list(self._written[contract].values()))
        for version in self._versions[contract]:
            for account_id in version.covers:
                # Never added to: a copy may share the list.
                self._covering[account_id] = [*self._covering.get(account_id, ()), version]

    def _forget(self, contract: str) -> None:
        for account_id in {it for version in self.versions(contract) for it in version.covers}:
            others = [it for it in self._covering[account_id] if it.contract != contract]
            self._covering[account_id] = others


def billing_periods(version: ContractVersion, month: Month) -> list[BillingPeriod]:
    """Return what a month is billed as under a version: one period, or none outside its time."""
    span = month_span(month, version.zone).meet(version.start_ms, version.end_ms)
    return [] if span is None else [BillingPeriod(version=version, month=month, span=span)]


def accounts_below(tree: AccountTree, roots: Sequence[str], span: Span) -> frozenset[str]:
    """Return the accounts that lie in these subtrees at any time of a span."""
    instants = [span.start_ms, *tree.later_moves_ms(span.start_ms, end_ms=span.end_ms)]
    return frozenset(
        below for at_ms in instants for root in roots for below in tree.subtree(root, at_ms=at_ms)
    )


def _ended(versions: list[ContractVersion]) -> tuple[ContractVersion, ...]:
    if len(versions) == 1:
        return tuple(versions)
    versions = sorted(versions, key=lambda it: it.start_ms)
    ended = []
    for place, version in enumerate(versions):
        next_ms = versions[place + 1].start_ms if place + 1 < len(versions) else None
        ends = [it for it in (version.end_ms, next_ms) if it is not None]
        end_ms = min(ends, default=None)
        # Most are as they were written, and copying is what takes time with many.
        ended.append(version if version.end_ms == end_ms else replace(version, end_ms=end_ms))
    return tuple(ended)


def _meet(first: ContractVersion, second: ContractVersion) -> bool:
    ends_after = first.end_ms is None or second.start_ms < first.end_ms
    return ends_after and (second.end_ms is None or first.start_ms < second.end_ms)
