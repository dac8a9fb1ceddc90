"""Taking terms in: what they change is told, and what was billed is not changed unasked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from billing.books import PriceBooks
from billing.contracts import ContractVersion, billing_periods
from billing.errors import BillingReason
from billing.invoicing import Invoice
from billing.money import add_up, write_money
from billing.periods import Month
from billing.ports import StoredPeriod, Terms, TermsStore
from billing.price_book import PriceBook
from billing.term_effects import Amount, TermEffects, TermsEffect, Touched, join
from meter.domain.account import invalid_argument
from meter.domain.clock import Clock
from meter.domain.errors import Refused

# Invoices that a refusal names; it says how many more there are.
_NAMED_MAX: Final = 5


class Correct(Protocol):
    """Issues what a closed period comes to by now, less what was billed for it."""

    def __call__(
        self, contract: str, month: Month, *, reason: str, key_id: str
    ) -> Sequence[Invoice]:
        """Return the documents that were issued; none where nothing is left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BookTaken:
    """A version of a book that is there now, and what came of it."""

    book: PriceBook
    is_new: bool
    effects: tuple[TermsEffect, ...]
    corrections: tuple[Invoice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractTaken:
    """A version of a contract that is there now, and what came of it."""

    version: ContractVersion
    is_new: bool
    effects: tuple[TermsEffect, ...]
    corrections: tuple[Invoice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDiff:
    """Who would pay how much more, by contract; and the sums."""

    effects: tuple[TermsEffect, ...]
    totals: tuple[TermsEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingTerms:
    """The use cases, over what they need."""

    terms: TermsStore
    effects: TermEffects
    correct: Correct
    clock: Clock

    def preview_book(self, toml: str) -> tuple[TermsEffect, ...]:
        """Return what a version of a book would change; raises what `import_book` does."""
        before, after, book = self.terms.with_book(toml)
        return self.effects.find(before, after, self.effects.of_book(after, book))

    def preview_contract(self, toml: str) -> tuple[TermsEffect, ...]:
        """Return what a version of a contract would change; raises what `set_contract` does."""
        before, after, version = self.terms.with_contract(toml)
        return self.effects.find(before, after, self.effects.of_contract(before, after, version))

    def import_book(self, toml: str, *, key_id: str, correct_issued: bool) -> BookTaken:
        """Take in a version of a book.

        Raises InvalidArgument (BOOK_INVALID), Refused (BOOK_CHANGED; PERIOD_ISSUED where a closed
        month with an invoice would come to another amount, unless that is to be corrected).
        """
        before, after, book = self.terms.with_book(toml)

        def touch(_: Terms, after: Terms) -> Touched | None:
            return self.effects.of_book(after, book)

        judge = _Judge(self.effects, touch, is_lenient=correct_issued)
        judge.look(before, after)
        book, is_new = self.terms.add_book(
            toml, key_id=key_id, now_ms=self.clock.now_ms(), judge=judge
        )
        reason = f"New prices of {book.book}"
        effects = judge.effects if is_new else ()
        corrections = self._correct(effects, reason=reason, key_id=key_id)
        return BookTaken(book=book, is_new=is_new, effects=effects, corrections=corrections)

    def set_contract(self, toml: str, *, key_id: str, correct_issued: bool) -> ContractTaken:
        """Take in a version of a contract.

        Raises InvalidArgument (CONTRACT_INVALID), Refused (COVER_TAKEN; PERIOD_ISSUED as for a
        book).
        """
        before, after, version = self.terms.with_contract(toml)

        def touch(before: Terms, after: Terms) -> Touched | None:
            return self.effects.of_contract(before, after, version)

        judge = _Judge(self.effects, touch, is_lenient=correct_issued)
        judge.look(before, after)
        version, is_new = self.terms.set_contract(
            toml, key_id=key_id, now_ms=self.clock.now_ms(), judge=judge
        )
        reason = f"New terms of contract {version.contract}"
        effects = judge.effects if is_new else ()
        corrections = self._correct(effects, reason=reason, key_id=key_id)
        return ContractTaken(
            version=version, is_new=is_new, effects=effects, corrections=corrections
        )

    def diff_prices(self, before: PriceBook, after: PriceBook, *, month: Month) -> PriceDiff:
        """Return what a month's usage comes to by two versions, for all who have the first's book.

        Each version is taken to hold all the month. Raises InvalidArgument for versions in two
        currencies.
        """
        if before.currency != after.currency:
            raise invalid_argument("after", f"in {before.currency.code}, as the other version is")
        known = self.terms.load()
        periods = [
            period
            for version in known.contracts
            if version.book == before.book
            for period in billing_periods(version, month)
        ]
        sides: list[Sequence[Amount]] = []
        for book in (before, after):
            always = replace(book, book=before.book, start_ms=0)
            others = (it for it in known.books if it.book != before.book)
            terms = replace(known, books=PriceBooks([*others, always]))
            sides.append(self.effects.amounts(terms, periods))
        found = [
            TermsEffect(
                contract=old.period.version.contract,
                account_id=old.period.version.covers[0],
                month=month,
                currency=before.currency,
                before=old.net,
                after=new.net,
                is_closed=False,
                unpriced_tokens=new.unpriced_tokens,
            )
            for old, new in zip(*sides, strict=True)
            if old.has_usage or new.has_usage
        ]
        effects = join(found)
        return PriceDiff(effects=effects, totals=_total(effects))

    def _correct(
        self, effects: Sequence[TermsEffect], *, reason: str, key_id: str
    ) -> tuple[Invoice, ...]:
        """Issue the difference for each closed month that has an invoice and is otherwise now.

        Whatever stops it, the terms are kept: what is left over, the next close or
        `invoices correct` issues.
        """
        return tuple(
            document
            for it in effects
            if it.numbers
            for document in self.correct(it.contract, it.month, reason=reason, key_id=key_id)
        )


class _Judge:
    """Looks at what terms change before they are kept, and again if that has moved meanwhile.

    A look prices usage and may take its time; under the lock it is done only where it has to be.
    """

    def __init__(
        self,
        effects: TermEffects,
        touch: Callable[[Terms, Terms], Touched | None],
        *,
        is_lenient: bool,
    ) -> None:
        self.effects: tuple[TermsEffect, ...] = ()
        self._find = effects
        self._touch = touch
        self._is_lenient = is_lenient
        self._looked: tuple[int, Mapping[str, Sequence[StoredPeriod]]] | None = None

    def look(self, before: Terms, after: Terms) -> None:
        """Find the effects."""
        touched = self._touch(before, after)
        # Read first: what is closed in between makes another look.
        seen = self._find.closed_periods(touched)
        self.effects = self._find.find(before, after, touched)
        self._looked = (before.version, seen)

    def __call__(self, before: Terms, after: Terms) -> None:
        touched = self._touch(before, after)
        if self._looked != (before.version, self._find.closed_periods(touched)):
            self.look(before, after)
        if not self._is_lenient:
            _refuse_issued(self.effects)


def _refuse_issued(effects: Sequence[TermsEffect]) -> None:
    """Refuse what changes the amount of a closed period that has an invoice."""
    named = [it for it in effects if it.numbers]
    if not named:
        return
    told = [
        f"invoice {', '.join(it.numbers)} of contract {it.contract} for {it.month} has billed"
        f" {write_money(it.before, it.currency)} {it.currency.code}, and it would be"
        f" {write_money(it.after, it.currency)}"
        for it in named[:_NAMED_MAX]
    ]
    more = f"; and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
    raise Refused(
        BillingReason.PERIOD_ISSUED,
        f"These terms change months that were billed: {'; '.join(told)}{more}. See all of it with"
        " `--dry-run`; `--correct` takes them in and issues the differences.",
    )


def _total(effects: Sequence[TermsEffect]) -> tuple[TermsEffect, ...]:
    """Return the sums of effects by currency."""
    found = []
    for currency in sorted({it.currency for it in effects}, key=lambda it: it.code):
        own = [it for it in effects if it.currency == currency]
        found.append(
            replace(
                own[0],
                contract="",
                account_id="",
                before=add_up(it.before for it in own),
                after=add_up(it.after for it in own),
                unpriced_tokens=sum(it.unpriced_tokens for it in own),
                numbers=(),
            )
        )
    return tuple(found)
