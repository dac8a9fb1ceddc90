"""The page that doctor prints: a line for each check, what to do below it, and the audit's sums."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from billing.auditing import InvoiceAudit
from cli.doctor.check import Check, Mark
from meter.counting.auditor import Audit
from meter.domain.times import to_iso

_COLUMNS_MAX: Final = 110
_LABELS: Final = {
    "request_count": "requests",
    "delivered_output_count": "delivered output",
    "estimated_count": "estimated",
}
# What is piped into another program is not wrapped.
_PIPED_COLUMNS: Final = 100_000


def write_checks(checks: Sequence[Check]) -> Iterator[str]:
    """Yield the lines of the page."""
    name_chars = max((len(it.name) for it in checks), default=0)
    for check in checks:
        head = f"  {check.mark:<4}  {check.name:<{name_chars}}  "
        yield from _wrap(check.says, first=head, rest=" " * len(head))
        if check.do and check.mark is not Mark.OK:
            arrow = " " * (len(head) - 2) + "→ "
            yield from _wrap(check.do, first=arrow, rest=" " * len(head))


def write_end(checks: Sequence[Check]) -> str:
    """Return the page's last line: how many are how."""
    failed, warned = (sum(it.mark is mark for it in checks) for mark in (Mark.FAIL, Mark.WARN))
    if failed:
        return f"{failed} failed" + (f", {warned} to look at" if warned else "")
    return f"nothing failed, {warned} to look at" if warned else "all well"


def write_sums(audit: Audit, invoices: InvoiceAudit) -> Iterator[str]:
    """Yield the sums that were compared, one a line, and where they differ."""
    rows = [
        (_LABELS.get(name, name.replace("_", " ")), audit.journal[name], audit.usage[name])
        for name in {**audit.journal, **audit.usage}
        if audit.journal[name] or audit.usage[name]
    ]
    shown = [
        (name, f"{journal:,}", f"{usage:,}", "" if journal == usage else f"{usage - journal:+,}")
        for name, journal, usage in rows
    ]
    if invoices.invoice_count:
        billed, used = invoices.billed_tokens, invoices.used_tokens
        label = f"tokens of {invoices.invoice_count:,} invoice" + "s" * (invoices.invoice_count > 1)
        shown.append((label, f"{billed:,}", f"{used:,}", f"{used - billed:+,}" * (used != billed)))
    name_chars = max((len(row[0]) for row in shown), default=0)
    number_chars = max([len(cell) for row in shown for cell in row[1:3]] + [12])
    yield f"  {'':<{name_chars}}  {'journal':>{number_chars}}  {'usage':>{number_chars}}"
    for place, (name, left, right, apart) in enumerate(shown):
        if invoices.invoice_count and place == len(shown) - 1:
            heads = f"{'billed':>{number_chars}}  {'usage ≤ cut':>{number_chars}}"
            yield f"  {'':<{name_chars}}  {heads}"
        line = f"  {name:<{name_chars}}  {left:>{number_chars}}  {right:>{number_chars}}  {apart}"
        yield line.rstrip()


def write_span(audit: Audit) -> str:
    """Return the line above the sums: what was audited."""
    if audit.until_ms <= audit.since_ms:
        return "audit: nothing was recorded yet"
    return f"audit of {to_iso(audit.since_ms)} to {to_iso(audit.until_ms)}"


def _wrap(words: str, *, first: str, rest: str) -> list[str]:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED_COLUMNS
    return textwrap.wrap(
        words,
        min(columns, _COLUMNS_MAX) if sys.stdout.isatty() else columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
