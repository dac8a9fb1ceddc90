"""Documents in the oracle's words: what each bills, for which period, and its taxes. Pure data."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from tests.acceptance.oracle_bills import LineKey, Period, round_half_up


class Tax(NamedTuple):
    """A category and its rate in percent."""

    category: str
    rate: Fraction


class Key(NamedTuple):
    """What a line is for: an account's group, where lines are grouped, and what is sold."""

    group: str
    line: LineKey


class Line(NamedTuple):
    """Tokens of a period and what was billed for them; `origin_ms` is where the period begins."""

    origin_ms: int
    key: Key
    quantity: int
    billed: Fraction


class Charge(NamedTuple):
    """What was billed beside tokens, for the period that begins at `origin_ms`."""

    origin_ms: int
    charge_id: str
    billed: Fraction
    tax: Tax | None


class Credit(NamedTuple):
    """Money off a line (counted from 1) of a document, or given up (line 0); below 0."""

    document: int
    line: int
    amount: Fraction
    tax: Tax | None


@dataclass(kw_only=True)
class Document:
    """A document; `index` is its place among all, `refers_to` that of the one that it corrects."""

    index: int
    kind: str
    period: Period
    lines: tuple[Line, ...] = ()
    charges: tuple[Charge, ...] = ()
    credits: tuple[Credit, ...] = ()
    net: Fraction
    taxes: Mapping[Tax, tuple[Fraction, Fraction]]
    refers_to: int | None = None
    replaces: int | None = None
    is_void: bool = False
    cancels: int | None = None

    @property
    def is_payable(self) -> bool:
        """Whether somebody has to pay it, so that it may be credited or taken back."""
        return not self.is_void and self.kind in {"invoice", "supplementary_invoice"}

    @property
    def total(self) -> Fraction:
        """What is to be paid."""
        return self.net + sum((amount for _, amount in self.taxes.values()), Fraction())


class Closed(NamedTuple):
    """What came of a period."""

    period: Period
    outcome: str
    document: Document | None


class Extras(NamedTuple):
    """What a contract version says beside prices."""

    by_account: bool
    minimum: Fraction
    wants_zero: bool
    tax: Tax | None
    charges: tuple[Mapping[str, Any], ...]
    is_last: bool


@dataclass(kw_only=True)
class Own:
    """What a period comes to: tokens by line, and those without a price."""

    tokens: Counter[Key] = field(default_factory=Counter)
    unpriced: Counter[object] = field(default_factory=Counter)

    @property
    def is_unpriced(self) -> bool:
        """Whether tokens without a price are left."""
        return any(self.unpriced.values())

    @property
    def has_usage(self) -> bool:
        """Whether any tokens are left."""
        return self.is_unpriced or any(self.tokens.values())


def read_tax(written: Mapping[str, Any] | None) -> Tax | None:
    """Return the tax of a table, if there is one."""
    if written is None:
        return None
    return Tax(written["category"], Fraction(written.get("rate", "0")))


def taxes_on(
    taxed: Iterable[tuple[Tax | None, Fraction]], *, currency: str
) -> dict[Tax, tuple[Fraction, Fraction]]:
    """Return basis and amount by tax; each is rounded once."""
    bases: dict[Tax, Fraction] = defaultdict(Fraction)
    for tax, amount in taxed:
        if tax is not None:
            bases[tax] += amount
    return {
        tax: (basis, round_half_up(basis * tax.rate / 100, currency=currency))
        for tax, basis in bases.items()
    }
