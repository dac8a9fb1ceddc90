"""What a replay compares: a document as it is kept, with what it is made of, and faults. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from billing.crediting import Wanted
from billing.invoicing import Invoice, TermsFile
from meter.domain.times import to_iso

# Differences of one document that are told.
_TOLD_MAX: Final = 10
_MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """A place of a document's rows where they have one thing, and the document says another."""

    place: str
    kept: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked to be credited of a line."""

    line: int
    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """What a credit note is for: a line of a document, or of None all that was left of it."""

    number: str
    asked: Asked | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDocument:
    """A document as it is kept.

    `invoice` is None where its bytes cannot be read. `terms_version` is None in documents of before
    it was kept. `issue_order` rises from document to document. `credited` is there in a credit note
    that was asked for, and in one that takes a whole document back. `faults` are those of its rows.
    """

    number: str
    contract: str
    version_start_ms: int
    serial: int
    cut_id: int
    terms_version: int | None
    issue_order: int
    document: bytes
    invoice: Invoice | None
    credited: Credited | None
    faults: tuple[RowFault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a replay found: `kind` is what is wrong, `facts` has the words in values."""

    kind: str
    says: str
    facts: Mapping[str, object]


def missing_fault(number: str) -> Fault:
    """Tell of a document whose number was given, and which is not there."""
    says = f"{number} was issued and is not there"
    return Fault(kind="document", says=says, facts={"document": number})


def row_faults(kept: KeptDocument) -> Iterator[Fault]:
    """Yield the faults of a document's rows."""
    for it in kept.faults:
        yield Fault(
            kind="row",
            says=f"{kept.number}, {it.place}: its row has {it.kept}, its document {it.said}",
            facts={
                "document": kept.number,
                "place": it.place,
                "row": it.kept,
                "document_says": it.said,
            },
        )


def terms_faults(number: str, issued: Invoice, replayed: Invoice) -> Iterator[Fault]:
    """Yield the files of terms that are not those by which a document was made."""
    now = {(it.kind, it.name, it.start_ms): it.sha256 for it in replayed.terms}
    for it in issued.terms:
        digest = now.get((it.kind, it.name, it.start_ms))
        if digest != it.sha256:
            yield _terms_fault(number, it, digest)


def document_faults(number: str, issued: bytes, replayed: bytes) -> Iterator[Fault]:
    """Yield where a replayed document says something else than the one that was issued."""
    found = list(islice(_differences(json.loads(issued), json.loads(replayed), ""), _TOLD_MAX))
    if not found and issued != replayed:
        found = [("bytes", "other bytes", "the same values")]
    for place, before, after in found:
        yield Fault(
            kind="document",
            says=f"{number}, {place}: issued {before}, replayed {after}",
            facts={"document": number, "place": place, "issued": before, "replayed": after},
        )


def _terms_fault(number: str, file: TermsFile, digest: str | None) -> Fault:
    is_there = "is not there" if digest is None else f"has SHA-256 {digest or 'unknown'}"
    start = to_iso(file.start_ms)
    return Fault(
        kind="terms",
        says=f"{file.kind} {file.name} from {start} {is_there}; {number} was made by {file.sha256}",
        facts={
            "document": number,
            "file": file.kind,
            "name": file.name,
            "from": start,
            "issued_sha256": file.sha256,
            "sha256": digest,
        },
    )


def _differences(issued: Any, replayed: Any, place: str) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401
    """Yield the places of two values of JSON that differ, with what stands there."""
    if isinstance(issued, dict) and isinstance(replayed, dict):
        for name in sorted(issued.keys() | replayed.keys()):
            inner = f"{place}.{name}" if place else name
            yield from _differences(issued.get(name, _MISSING), replayed.get(name, _MISSING), inner)
    elif isinstance(issued, list) and isinstance(replayed, list):
        for index in range(max(len(issued), len(replayed))):
            one, other = (it[index] if index < len(it) else _MISSING for it in (issued, replayed))
            yield from _differences(one, other, f"{place}[{index}]")
    elif issued != replayed:
        yield place, _word(issued), _word(replayed)


def _word(value: Any) -> str:  # noqa: ANN401
    if value is _MISSING:
        return "nothing"
    if isinstance(value, dict) and "line" in value:
        return f"line {value['line']} ({', '.join(_line_words(value))})"
    return json.dumps(value, ensure_ascii=False)


def _line_words(line: Mapping[str, Any]) -> Iterator[str]:
    for name in ("model", "tier", "token_class", "quantity", "billed"):
        if name in line:
            yield str(line[name])
