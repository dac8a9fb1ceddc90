"""Replay: every document of a month made again, from the journal at its cut and the terms of then.

What it makes is compared with what was issued, byte for byte. Energy and the time of issue are
information, and taken as they were issued; all else is worked out anew: usage, prices, amounts,
what was billed before, taxes, and what a credit gives back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from billing.contracts import BillingPeriod
from billing.correcting import written_off
from billing.crediting import TakenOff, credit_line, credit_lines, credit_note
from billing.documents.canonical import to_json
from billing.drafting import Drafting
from billing.invoicing import DocumentKind, Invoice, issue
from billing.ledger import Ledger
from billing.outstanding import key_of
from billing.periods import Month, Span
from billing.ports import TermsStore
from billing.proving import (
    Fault,
    KeptDocument,
    document_faults,
    missing_fault,
    row_faults,
    terms_faults,
)
from meter.consumption import Consumption
from meter.domain.account import AccountTree
from meter.domain.errors import NotFound, Refused
from meter.toml_file import FileFaults
from meter.usage import UsageFacts, UsageSums

# Documents that are made together.
_BATCH: Final = 500
# Faults that are kept; the rest is only counted.
_FAULTS_MAX: Final = 1_000
_OWN_KINDS: Final = frozenset({DocumentKind.INVOICE, DocumentKind.CREDIT_NOTE})


class RebuiltUsage(UsageFacts, UsageSums, Protocol):
    """Usage as it was made again, read as facts and as sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Just before a document was issued: its order, and the earlier periods (ms) that it names."""

    before: int
    named_ms: frozenset[int]


class FormerLedger(Ledger, Protocol):
    """The ledger as it stood before documents."""

    def move(self, moments: Mapping[str, Moment]) -> None:
        """Go before these documents, by their contracts."""
        ...


class Proofs(Protocol):
    """Reads documents as they are kept."""

    def find_span(self, month: Month) -> Span | None:
        """Return the time that a month's documents bill, that of adjustments with it."""
        ...

    def missing_numbers(self) -> Sequence[str]:
        """Return the numbers whose documents are gone, of any month; some hundred at most."""
        ...

    def documents(self, month: Month) -> Iterator[KeptDocument]:
        """Yield the documents of a month's periods, in the order of their issue."""
        ...

    def find(self, number: str) -> Invoice | None:
        """Return a document as it was issued."""
        ...

    def taken_off(self, number: str, *, before: int) -> Sequence[TakenOff]:
        """Return what credit notes had taken off a document when one of this order was issued."""
        ...


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What came of a replay so far: how many documents, those with faults, and the first faults."""

    document_count: int = 0
    different: set[str] = field(default_factory=set)
    fault_count: int = 0
    faults: list[Fault] = field(default_factory=list)

    def find(self, number: str, faults: Iterable[Fault]) -> None:
        """Take what was found of a document."""
        for fault in faults:
            self.different.add(number)
            self.note(fault)

    def note(self, fault: Fault) -> None:
        """Take a fault."""
        self.fault_count += 1
        if len(self.faults) < _FAULTS_MAX:
            self.faults.append(fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaying:
    """The use case, over what it needs."""

    terms: TermsStore
    proofs: Proofs
    ledger: FormerLedger
    consumption: Consumption
    tree: Callable[[], AccountTree]
    is_sandbox: bool

    def find_span(self, month: Month) -> Span | None:
        """Return the time whose usage a month's documents are of; None where there are none."""
        return self.proofs.find_span(month)

    def look_for_missing(self) -> Replayed:
        """Begin a replay with the documents that are gone, whatever month they were of."""
        replayed = Replayed()
        for number in self.proofs.missing_numbers():
            replayed.note(missing_fault(number))
        return replayed

    def replay(
        self,
        month: Month,
        usage: RebuiltUsage,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Replayed:
        """Make a month's documents again of rebuilt usage; `on_progress` hears how many so far."""
        replayed = self.look_for_missing()
        known: dict[int | None, Drafting | str] = {}
        for batch in _batches(self.proofs.documents(month)):
            version = batch[0].terms_version
            if version not in known:
                known = {version: self._look(version, usage)}
            drafting = known[version]
            for kept in batch:
                replayed.document_count += 1
                replayed.find(kept.number, row_faults(kept))
            if isinstance(drafting, str):
                facts = {"terms_version": version}
                for kept in batch:
                    says = f"{kept.number}: {drafting}"
                    replayed.find(kept.number, [Fault(kind="terms", says=says, facts=facts)])
            else:
                self._replay(batch, drafting, replayed=replayed)
            on_progress(replayed.document_count)
        return replayed

    def _look(self, version: int | None, usage: RebuiltUsage) -> Drafting | str:
        """Return a look at the terms as they were at a version, or why there is none."""
        try:
            terms = self.terms.load(version)
        except FileFaults as faults:
            return f"a book or contract cannot be read any more: {faults}"
        return Drafting(
            terms,
            self.tree(),
            facts=usage,
            sums=usage,
            ledger=self.ledger,
            is_sandbox=self.is_sandbox,
        )

    def _replay(
        self, batch: Sequence[KeptDocument], drafting: Drafting, *, replayed: Replayed
    ) -> None:
        self.ledger.move({it.contract: _moment(it) for it in batch})
        for kept, made in zip(batch, self._make(batch, drafting), strict=True):
            if kept.invoice is None:
                continue
            number = kept.number
            if isinstance(made, str):
                facts = {"document": number}
                replayed.find(number, [Fault(kind="document", says=made, facts=facts)])
                continue
            again = _as_issued(made, kept, kept.invoice)
            replayed.find(number, terms_faults(number, kept.invoice, again))
            replayed.find(number, document_faults(number, kept.document, to_json(again)))

    def _make(self, batch: Sequence[KeptDocument], drafting: Drafting) -> Iterator[Invoice | str]:
        """Yield the drafts that documents were issued from, or why there is none, in order."""
        drafted = [it for it in batch if _is_draft(it)]
        periods = {it.number: _find_period(it, drafting) for it in drafted}
        wanted = [it for it in periods.values() if it is not None]
        made: dict[object, Invoice] = {}
        if wanted:
            for draft in drafting.draft_many(
                wanted, cut_id=batch[0].cut_id, consumption=self.consumption
            ):
                made[draft.period.version.contract] = draft.invoice
        for kept in batch:
            if kept.invoice is None:
                yield "cannot be read"
            elif kept.credited is not None:
                yield self._credit(kept)
            elif (period := _find_period(kept, drafting)) is None:
                yield f"{kept.number}: its contract had no such version when it was issued"
            elif kept.number in periods:
                yield made[kept.contract]
            else:
                yield self._correction(kept.invoice, period, drafting, cut_id=kept.cut_id)

    def _correction(
        self, issued: Invoice, period: BillingPeriod, drafting: Drafting, *, cut_id: int
    ) -> Invoice:
        key = key_of(period)
        made = replace(
            drafting.difference(period, cut_id=cut_id).invoice,
            refers_to=self.ledger.numbers([key]).get(key, ""),
            reason=issued.reason,
        )
        return written_off(made) if issued.kind is DocumentKind.WRITE_OFF else made

    def _credit(self, kept: KeptDocument) -> Invoice | str:
        credited = kept.credited
        assert credited is not None, "only credit notes come here"
        original = self.proofs.find(credited.number)
        assert original is not None, "the database refers to it"
        taken = self.proofs.taken_off(credited.number, before=kept.issue_order)
        if credited.asked is None:
            lines = credit_lines(original, taken=taken)
            return credit_note(original, lines, reason=credited.reason)
        try:
            line = credit_line(
                original, credited.asked.line, wanted=credited.asked.wanted, taken=taken
            )
        except (NotFound, Refused) as error:
            return f"{kept.number}: {error.message}"
        return credit_note(original, [line], reason=credited.reason)


def _named_ms(invoice: Invoice) -> frozenset[int]:
    origins = [*(it.origin for it in invoice.lines), *(it.origin for it in invoice.charges)]
    return frozenset(it.start_ms for it in origins if it is not None)


def _moment(kept: KeptDocument) -> Moment:
    invoice = kept.invoice
    named_ms = frozenset[int]() if invoice is None else _named_ms(invoice)
    return Moment(before=kept.issue_order, named_ms=named_ms)


def _batches(documents: Iterable[KeptDocument]) -> Iterator[list[KeptDocument]]:
    """Yield documents in runs of one cut and version of the terms, each contract once."""
    batch: list[KeptDocument] = []
    contracts: set[str] = set()
    for kept in documents:
        is_alike = bool(batch) and _made_by(batch[0]) == _made_by(kept)
        if batch and (not is_alike or kept.contract in contracts or len(batch) >= _BATCH):
            yield batch
            batch, contracts = [], set()
        batch.append(kept)
        contracts.add(kept.contract)
    if batch:
        yield batch


def _made_by(kept: KeptDocument) -> tuple[int | None, int]:
    return kept.terms_version, kept.cut_id


def _is_draft(kept: KeptDocument) -> bool:
    """Tell whether a document is a period's own, and neither corrects nor credits one."""
    invoice = kept.invoice
    return (
        invoice is not None
        and kept.credited is None
        and invoice.kind in _OWN_KINDS
        and invoice.span.start_ms not in _named_ms(invoice)
    )


def _find_period(kept: KeptDocument, drafting: Drafting) -> BillingPeriod | None:
    """Return a document's period under the version of its contract, as that was when issued."""
    assert kept.invoice is not None, "whoever asks has read it"
    for version in drafting.terms.contracts.versions(kept.contract):
        if version.start_ms == kept.version_start_ms:
            invoice = kept.invoice
            return BillingPeriod(version=version, month=invoice.month, span=invoice.span)
    return None


def _as_issued(made: Invoice, kept: KeptDocument, issued: Invoice) -> Invoice:
    """Return a draft with what is information alone taken from the document that was issued."""
    assert issued.issue is not None, "what is kept was issued"
    again = replace(
        made,
        cut_id=kept.cut_id,
        counted_until_ms=issued.counted_until_ms,
        energy=issued.energy,
        unpriced=(),
    )
    if issued.engine == 1 and not issued.terms:
        # It knew neither a hash of the usage nor the files that it was made by.
        again = replace(again, engine=1, usage_sha256="", terms=())
    return issue(again, number=kept.serial, issue_ms=issued.issue.issue_ms)
