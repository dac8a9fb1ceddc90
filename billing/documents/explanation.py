"""A line's explanation as text and as JSON: the arithmetic written out, down to the journal."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.documents.format import (
    class_label,
    group_count,
    group_money,
    printable,
    title,
    word_start,
    write_time,
)
from billing.explanation import Explanation, IntervalShare
from billing.invoicing import ChargeLine, CreditLine, InvoiceLine
from billing.money import Currency, write, write_money
from billing.price_book import MODE_NAMES, Price, class_name, explain
from meter.domain.times import to_time
from meter.domain.tokens import BAND_NAMES

FORMAT: Final = 1
# The text shows so many of each list, from both ends; JSON has all of them.
_ROWS_SHOWN: Final = 12
_INDENT: Final = "  "


def explanation_to_json(explanation: Explanation) -> bytes:
    """Return all of it as canonical JSON: sorted keys, decimals as strings."""
    line = explanation.line
    document: dict[str, Any] = {
        "format": FORMAT,
        "invoice": title(explanation.invoice)[1],
        "line": line.line,
        **_line_to_json(explanation),
        "cut_id": explanation.invoice.cut_id,
        "intervals": [
            {
                "account": it.account_id,
                "start_time": write_time(it.interval_start_ms),
                "band": BAND_NAMES[it.band],
                "tokens": it.token_count,
            }
            for it in explanation.intervals
        ],
        "segments": [
            {
                "shard": it.shard,
                "position": it.position,
                "events": it.event_count,
                "tokens": it.token_count,
            }
            for it in explanation.segments
        ],
        "closed": explanation.is_closed,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return f"{text}\n".encode()


def _line_to_json(explanation: Explanation) -> dict[str, Any]:
    line, currency = explanation.line, explanation.invoice.currency
    if isinstance(line, ChargeLine):
        return {
            "charge": line.charge_id,
            "quantity": write(line.quantity),
            "unit": line.unit,
            "unit_price": write(line.unit_price),
            "exact": write(line.exact),
            "billed": write_money(line.billed, currency),
            "residue": write(line.residue),
        }
    if isinstance(line, CreditLine):
        return {
            "credits": {"invoice": line.number, "line": line.number_line},
            "tokens": line.token_count,
            "billed": write_money(line.amount, currency),
        }
    price, after, before = line.price, explanation.after_cut_id, explanation.before
    lines = [
        {
            "invoice": it.number,
            "line": it.line,
            "tokens": it.token_count,
            "billed": write(it.billed),
        }
        for it in before
    ]
    return {
        "model": line.model,
        "tier": line.tier,
        "mode": MODE_NAMES[line.mode],
        "token_class": class_name(line.token_class),
        "tokens": line.token_count,
        "exact": write(line.exact),
        "billed": write_money(line.billed, currency),
        "residue": write(line.residue),
        "price": {
            "unit_price": write(price.unit_price),
            "base": write(price.base),
            "source": price.source,
            "factors": [{"source": it.source, "value": write(it.value)} for it in price.factors],
            "book": price.book,
            "from": write_time(price.version_start_ms),
        },
        # Left out where it is all of a period's usage, as most often.
        **({"after_cut_id": after} if after else {}),
        **({"before": lines} if lines else {}),
        **({"month": str(line.origin.month)} if line.origin else {}),
    }


def explanation_to_text(explanation: Explanation) -> bytes:
    """Return it for people to read from top to bottom: what, which price, from what usage."""
    line, currency = explanation.line, explanation.invoice.currency
    if isinstance(line, ChargeLine):
        rows = [_head(explanation, line.text), "", *_charge(line, currency)]
    elif isinstance(line, CreditLine):
        rows = [_head(explanation, line.text), "", *_credit(line, currency)]
    else:
        rows = [
            _head(explanation, *_names(line)),
            "",
            *_price(line.price, explanation.invoice.version.zone),
            "",
            *_amount(line, currency, is_less=bool(explanation.before)),
            "",
            *_usage(explanation),
            "",
            *_journal(explanation),
            *_before(explanation),
        ]
    return "".join(f"{row.rstrip()}\n" for row in rows).encode()


def _head(explanation: Explanation, *what: str) -> str:
    names = ", ".join(map(printable, what))
    return f"Invoice {title(explanation.invoice)[1]}, line {explanation.line.line}: {names}"


def _names(line: InvoiceLine) -> Iterator[str]:
    yield from (line.model, line.tier, MODE_NAMES[line.mode], class_label(line.token_class))
    if line.origin is not None:
        yield f"for {line.origin.month}"


def _charge(line: ChargeLine, currency: Currency) -> Iterator[str]:
    unit = f" {printable(line.unit)}" if line.unit else ""
    yield "Amount, as the contract has it"
    yield (
        f"{_INDENT}{write(line.quantity)}{unit} × {write(line.unit_price)} = {write(line.exact)}"
        f" {currency.code}"
    )
    yield _rounded(line.billed, line.residue, currency)


def _credit(line: CreditLine, currency: Currency) -> Iterator[str]:
    amount = f"{group_money(line.amount, currency)} {currency.code}"
    if not line.number:
        yield f"Given up: {amount}"
        return
    yield f"Taken off line {line.number_line} of {line.number}"
    tokens = "" if line.token_count is None else f", for {_count(line.token_count, 'token')} of it"
    yield f"{_INDENT}{amount}{tokens}"


def _price(price: Price, zone: ZoneInfo) -> Iterator[str]:
    since = word_start(price.version_start_ms, zone)
    yield f"Price per 1,000,000 tokens, by book {price.book} in its version from {since}"
    steps = [("", price.base, price.source), *(("× ", it.value, it.source) for it in price.factors)]
    if price.factors:
        steps.append(("= ", price.unit_price, "unit price"))
    texts = [f"{sign}{write(value)}" for sign, value, _ in steps]
    width = max(map(len, texts))
    for text, (_, _, source) in zip(texts, steps, strict=True):
        yield f"{_INDENT}{text.rjust(width)}   {printable(source)}"
    if price.factors:
        yield f"{_INDENT}{explain(price)}"


def _amount(line: InvoiceLine, currency: Currency, *, is_less: bool) -> Iterator[str]:
    yield "Amount"
    yield (
        f"{_INDENT}{group_count(line.token_count)} tokens × {write(line.price.unit_price)}"
        f" / 1,000,000 = {write(line.exact)} {currency.code}"
    )
    if line.origin is None and not is_less:
        yield _rounded(line.billed, line.residue, currency)
        return
    yield (
        f"{_INDENT}all tokens at this price, rounded once, less what was billed of them before:"
        f" {group_money(line.billed, currency)} {currency.code}"
    )


def _rounded(billed: Decimal, residue: Decimal, currency: Currency) -> str:
    return (
        f"{_INDENT}rounded once, halves away from zero: {group_money(billed, currency)}"
        f" {currency.code}, {write(residue)} left over"
    )


def _usage(explanation: Explanation) -> Iterator[str]:
    shares = explanation.intervals
    after = f" and above cut {explanation.after_cut_id}" if explanation.after_cut_id else ""
    yield f"Usage at or below cut {explanation.invoice.cut_id}{after}, by interval (UTC)"
    width = max((len(it.account_id) for it in shares), default=0)

    def row(share: IntervalShare) -> str:
        start = to_time(share.interval_start_ms)
        return (
            f"{_INDENT}{start:%Y-%m-%d %H:%M}  {share.account_id.ljust(width)}"
            f"  {BAND_NAMES[share.band]:<6}{group_count(share.token_count):>18}"
        )

    yield from _shortened([row(it) for it in shares])
    yield _total(len(shares), "interval", sum(it.token_count for it in shares), explanation)


def _journal(explanation: Explanation) -> Iterator[str]:
    segments = explanation.segments
    yield "Journal, by shard and position"
    yield from _shortened(
        [
            f"{_INDENT}{it.shard}/{it.position:<12}{_count(it.event_count, 'event'):>18}"
            f"{group_count(it.token_count):>18}"
            for it in segments
        ]
    )
    yield _total(len(segments), "segment", sum(it.token_count for it in segments), explanation)


def _before(explanation: Explanation) -> Iterator[str]:
    if not explanation.before:
        return
    yield ""
    yield "Less what was billed of it before"
    for it in explanation.before:
        yield f"{_INDENT}{it.number}, line {it.line}{group_count(it.token_count):>18}"


def _shortened(rows: Sequence[str]) -> Iterator[str]:
    if len(rows) <= _ROWS_SHOWN:
        yield from rows
        return
    half = _ROWS_SHOWN // 2
    yield from rows[:half]
    yield f"{_INDENT}… {len(rows) - 2 * half:,} more (all of them with --json)"
    yield from rows[-half:]


def _total(count: int, what: str, tokens: int, explanation: Explanation) -> str:
    assert isinstance(explanation.line, InvoiceLine), "only tokens are of usage"
    before = sum(it.token_count for it in explanation.before)
    difference = tokens - before - explanation.line.token_count
    verdict = "as billed" if difference == 0 else f"{difference:+,} against what was billed"
    less = f", less {group_count(before)} billed before" if before else ""
    return f"{_INDENT}{_count(count, what)}: {_count(tokens, 'token')}{less}, {verdict}"


def _count(count: int, what: str) -> str:
    return f"{group_count(count)} {what}{'' if count == 1 else 's'}"
