"""The wording that all documents share: dates where the contract is, grouped numbers, labels."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from billing.invoicing import DocumentKind, Invoice, InvoiceLine
from billing.money import Currency, add_up, write, write_money
from billing.periods import Month, month_start_ms
from billing.price_book import Price, class_name
from billing.rating import Unpriced
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import BAND_NAMES, Mode, TokenClass

PREVIEW: Final = "PREVIEW — not an invoice"
SANDBOX: Final = "SANDBOX — no real month stands behind this"
UNPRICED: Final = "Without a price, and not in the total"
NO_LINES: Final = "Nothing was used in this period."
KIND_TITLES: Final = {
    DocumentKind.INVOICE: "Invoice",
    DocumentKind.SUPPLEMENTARY_INVOICE: "Supplementary invoice",
    DocumentKind.CREDIT_NOTE: "Credit note",
    DocumentKind.WRITE_OFF: "Write-off",
}
# Whose totals somebody pays; the others have no date by which to do so.
PAYABLE: Final = frozenset({DocumentKind.INVOICE, DocumentKind.SUPPLEMENTARY_INVOICE})
_MONTH_NAMES: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_CONTROL_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Overrides and isolates of the direction of writing: they can show a name as another one.
_TURNING: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
# Instants that are written once for many: most documents of a month have them in common.
_KNOWN_MAX: Final = 1024
# So much of a SHA-256 tells any two apart that people compare.
_SHORT_HASH_CHARS: Final = 12
# How the sources of a price name the contract.
_BY_CONTRACT: Final = "contract overrides["


def printable(name: str) -> str:
    """Return a name on one line: what would move the pen is shown as a replacement character."""
    return "".join(
        _REPLACEMENT if it in _TURNING or unicodedata.category(it) in _CONTROL_CATEGORIES else it
        for it in name
    )


def group_count(count: int) -> str:
    """Return a number of tokens in groups of three digits: `1,234,567`."""
    return f"{count:,}"


def group_money(amount: Decimal, currency: Currency) -> str:
    """Return a rounded amount in groups of three, with its currency's decimals: `1,234.50`."""
    return format(Decimal(write_money(amount, currency)), ",f")


def group_price(price: Decimal, currency: Currency) -> str:
    """Return a unit price in groups of three, with its currency's decimals or all that it has."""
    whole, _, fraction = write(price).partition(".")
    fraction = fraction.ljust(currency.exponent, "0")
    return f"{int(whole):,}.{fraction}" if fraction else f"{int(whole):,}"


@lru_cache(_KNOWN_MAX)
def write_time(at_ms: int) -> str:
    """Return an instant for machines: UTC, with milliseconds where there are any."""
    timespec = "milliseconds" if at_ms % 1000 else "seconds"
    return to_time(at_ms).isoformat(timespec=timespec).replace("+00:00", "Z")


def read_time(text: str) -> int:
    """Return the instant (ms) that was written for machines."""
    return to_ms(datetime.fromisoformat(text))


@lru_cache(_KNOWN_MAX)
def date_of(at_ms: int, zone: ZoneInfo) -> date:
    """Return the date of an instant in a zone."""
    return to_time(at_ms).astimezone(zone).date()


def word_date(day: date) -> str:
    """Return a date that nobody reads as another one: `1 November 2026`."""
    return f"{day.day} {_MONTH_NAMES[day.month - 1]} {day.year}"


def word_month(month: Month) -> str:
    """Return a month in words: `October 2026`."""
    return f"{_MONTH_NAMES[month.number - 1]} {month.year}"


def word_minute(at_ms: int, zone: ZoneInfo) -> str:
    """Return the date and the minute of an instant in a zone: `1 November 2026, 09:15`."""
    local = to_time(at_ms).astimezone(zone)
    return f"{word_date(local)}, {local:%H:%M}"


def word_start(at_ms: int, zone: ZoneInfo) -> str:
    """Return from when on: the date alone where the day begins, else with the minute."""
    day = date_of(at_ms, zone)
    return word_date(day) if date_of(at_ms - 1, zone) < day else word_minute(at_ms, zone)


def period_dates(invoice: Invoice) -> tuple[date, date]:
    """Return the dates of the period's first and last moment, where the contract is."""
    zone, span = invoice.version.zone, invoice.span
    return date_of(span.start_ms, zone), date_of(span.end_ms - 1, zone)


def word_period(invoice: Invoice) -> str:
    """Return the period: `October 2026`, or both ends of a part of a month, last day included."""
    zone, span, month = invoice.version.zone, invoice.span, invoice.month
    month_ms = month_start_ms(month, zone), month_start_ms(month.next(), zone)
    if (span.start_ms, span.end_ms) == month_ms:
        return word_month(month)
    _, last = period_dates(invoice)
    ends_with_day = date_of(span.end_ms, zone) > last
    end = word_date(last) if ends_with_day else word_minute(span.end_ms, zone)
    return f"{word_start(span.start_ms, zone)} – {end}"


def title(invoice: Invoice) -> tuple[str, str]:
    """Return what the document is, and its number; a preview has none."""
    kind = KIND_TITLES[invoice.kind]
    if invoice.issue is not None:
        return kind, invoice.issue.number
    is_plain = invoice.kind is DocumentKind.INVOICE
    return "Preview" if is_plain else f"Preview of a {kind.lower()}", "no number"


def name_of(invoice: Invoice) -> str:
    """Return what stands at the head of each page: `Invoice NG-2026-000042`, or `Preview`."""
    kind, number = title(invoice)
    return kind if invoice.issue is None else f"{kind} {number}"


def facts(invoice: Invoice) -> list[tuple[str, str]]:
    """Return what stands in the head beside the parties: labels, and what is said under each."""
    version = invoice.version
    terms = {0: "on receipt", 1: "1 day"}.get(version.terms_days, f"{version.terms_days} days")
    found = [title(invoice), ("Period", f"{word_period(invoice)}, {version.zone.key}")]
    if invoice.issue is not None:
        found.append(("Issued", word_date(date_of(invoice.issue.issue_ms, version.zone))))
    if invoice.kind in PAYABLE:
        if invoice.issue is None:
            found.append(("Terms", terms))
        else:
            found.append(("Due", f"{word_date(invoice.issue.due)} ({terms})"))
    if version.po:
        found.append(("PO", printable(version.po)))
    if invoice.refers_to:
        found.append(("Corrects", invoice.refers_to))
    if invoice.replaces:
        found.append(("Replaces", f"{invoice.replaces}, which is void"))
    if invoice.reason:
        found.append(("Reason", printable(invoice.reason)))
    return found


def class_label(token_class: TokenClass) -> str:
    """Return a token class in words: `cache write 5m`."""
    return class_name(token_class).replace("_", " ")


def group_by_model(lines: Sequence[InvoiceLine]) -> Iterator[tuple[str, Sequence[InvoiceLine]]]:
    """Yield each model with its lines, in the order of the invoice."""
    for model, of_model in groupby(lines, key=lambda line: line.model):
        yield model, tuple(of_model)


def has_batch(invoice: Invoice) -> bool:
    """Tell whether any line was served as a batch, so that the mode is worth a word."""
    return any(line.mode is Mode.BATCH for line in invoice.lines)


def subtotal(lines: Sequence[InvoiceLine]) -> Decimal:
    """Return the sum of billed lines."""
    return add_up(line.billed for line in lines)


def total_label(invoice: Invoice) -> str:
    """Return what the total is called: a preview's will change."""
    return "Total so far" if invoice.issue is None else "Total"


def word_due(invoice: Invoice) -> str:
    """Return what is to be done about the total, and until when."""
    if invoice.issue is None:
        return "Total so far"
    if invoice.total > 0 and invoice.kind in PAYABLE:
        return f"Due on {word_date(invoice.issue.due)}"
    return "Nothing is due" if invoice.total == 0 else "In your favour"


def notes(invoice: Invoice) -> Mapping[int, str]:
    """Return by line what tells it from others of its class: prompt, window, contract, price date.

    The date is there only where the price of a class changed in the period.
    """
    versions: defaultdict[object, set[int]] = defaultdict(set)
    for line in invoice.lines:
        versions[_sold_as(line)].add(line.price.version_start_ms)
    found = {}
    for line in invoice.lines:
        words = [*_words(line.price)]
        if len(versions[_sold_as(line)]) > 1:
            start = word_start(line.price.version_start_ms, invoice.version.zone)
            words.append(f"price from {start}")
        found[line.line] = " · ".join(words)
    return found


def note_unpriced(key: Unpriced, zone: ZoneInfo) -> tuple[str, str]:
    """Return which requests have no price: tier, mode, class, length of prompt; since when."""
    mode = ("batch",) if key.mode is Mode.BATCH else ()
    prompt = f"prompts of {BAND_NAMES[key.band]} tokens"
    which = " · ".join((printable(key.tier), *mode, class_label(key.token_class), prompt))
    return which, f"since {word_start(key.first_ms, zone)}"


def word_rounding(invoice: Invoice) -> str:
    """Return how amounts were rounded, and what that left over in sum."""
    left = "nothing"
    if invoice.residue:
        left = f"{write(abs(invoice.residue))} {invoice.currency.code}"
    outcome = f"added {left}" if invoice.residue < 0 else f"left {left} over"
    return f"Each line is rounded once, half up; rounding {outcome}."


def word_counted(invoice: Invoice) -> str:
    """Return until when a preview has counted, and what that means."""
    zone = invoice.version.zone
    until = word_minute(invoice.counted_until_ms, zone)
    return f"Counted until {until} ({zone.key}). What is counted later will change it."


def word_held(invoice: Invoice) -> str:
    """Return what holds the invoice: keys that have no price, one or more."""
    count = len(invoice.unpriced)
    keys, them = ("1 key has", "it has") if count == 1 else (f"{count:,} keys have", "they have")
    return f"{keys} no price: this account’s invoice is held until {them} one."


def word_source(invoice: Invoice) -> tuple[str, str]:
    """Return what the document was made from, for whoever checks it: the contract, the rest."""
    version = invoice.version
    start = word_start(version.start_ms, version.zone)
    cut = "" if invoice.cut_id is None else f" · cut {invoice.cut_id}"
    usage = f" · usage {invoice.usage_sha256[:_SHORT_HASH_CHARS]}" if invoice.usage_sha256 else ""
    return (
        f"Contract {version.contract}, version of {start} · account {invoice.account_id}",
        f"Price book {version.book}{cut} · engine {invoice.engine}{usage}",
    )


def _sold_as(line: InvoiceLine) -> tuple[int, str, str, str, Mode, TokenClass]:
    start_ms = 0 if line.origin is None else line.origin.start_ms
    return start_ms, line.group, line.model, line.tier, line.mode, line.token_class


def _words(price: Price) -> Iterator[str]:
    if price.above:
        yield f"prompts from {group_count(price.above)} tokens"
    if price.window:
        yield f"window {printable(price.window)}"
    if price.source.startswith(_BY_CONTRACT):
        yield "contract price"
    for factor in price.factors:
        if factor.source.startswith(_BY_CONTRACT):
            yield f"contract factor {write(factor.value)}"
