"""A line's explanation as text and as JSON: the arithmetic written out, down to the journal."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

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
from billing.money import write, write_money
from billing.price_book import MODE_NAMES, class_name, explain
from meter.domain.times import to_time
from meter.domain.tokens import BAND_NAMES

FORMAT: Final = 1
# The text shows so many of each list, from both ends; JSON has all of them.
_ROWS_SHOWN: Final = 12
_INDENT: Final = "  "


def explanation_to_json(explanation: Explanation) -> bytes:
    """Return all of it as canonical JSON: sorted keys, decimals as strings."""
    invoice, line, price = explanation.invoice, explanation.line, explanation.line.price
    document: dict[str, Any] = {
        "format": FORMAT,
        "invoice": title(invoice)[1],
        "line": line.line,
        "model": line.model,
        "tier": line.tier,
        "mode": MODE_NAMES[line.mode],
        "token_class": class_name(line.token_class),
        "tokens": line.token_count,
        "exact": write(line.exact),
        "billed": write_money(line.billed, invoice.currency),
        "residue": write(line.residue),
        "price": {
            "unit_price": write(price.unit_price),
            "base": write(price.base),
            "source": price.source,
            "factors": [{"source": it.source, "value": write(it.value)} for it in price.factors],
            "book": price.book,
            "from": write_time(price.version_start_ms),
        },
        "cut_id": invoice.cut_id,
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


def explanation_to_text(explanation: Explanation) -> bytes:
    """Return it for people to read from top to bottom: what, which price, from what usage."""
    rows = [
        *_what(explanation),
        "",
        *_price(explanation),
        "",
        *_amount(explanation),
        "",
        *_usage(explanation),
        "",
        *_journal(explanation),
    ]
    return "".join(f"{row.rstrip()}\n" for row in rows).encode()


def _what(explanation: Explanation) -> Iterator[str]:
    invoice, line = explanation.invoice, explanation.line
    what = (line.model, line.tier, MODE_NAMES[line.mode], class_label(line.token_class))
    yield f"Invoice {title(invoice)[1]}, line {line.line}: {', '.join(map(printable, what))}"


def _price(explanation: Explanation) -> Iterator[str]:
    price, zone = explanation.line.price, explanation.invoice.version.zone
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


def _amount(explanation: Explanation) -> Iterator[str]:
    line, currency = explanation.line, explanation.invoice.currency
    yield "Amount"
    yield (
        f"{_INDENT}{group_count(line.token_count)} tokens × {write(line.price.unit_price)}"
        f" / 1,000,000 = {write(line.exact)} {currency.code}"
    )
    yield (
        f"{_INDENT}rounded once, halves away from zero: {group_money(line.billed, currency)}"
        f" {currency.code}, {write(line.residue)} left over"
    )


def _usage(explanation: Explanation) -> Iterator[str]:
    shares = explanation.intervals
    yield f"Usage at or below cut {explanation.invoice.cut_id}, by interval (UTC)"
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


def _shortened(rows: Sequence[str]) -> Iterator[str]:
    if len(rows) <= _ROWS_SHOWN:
        yield from rows
        return
    half = _ROWS_SHOWN // 2
    yield from rows[:half]
    yield f"{_INDENT}… {len(rows) - 2 * half:,} more (all of them with --json)"
    yield from rows[-half:]


def _total(count: int, what: str, tokens: int, explanation: Explanation) -> str:
    difference = tokens - explanation.line.token_count
    verdict = "as billed" if difference == 0 else f"{difference:+,} against what was billed"
    return f"{_INDENT}{_count(count, what)}: {_count(tokens, 'token')}, {verdict}"


def _count(count: int, what: str) -> str:
    return f"{group_count(count)} {what}{'' if count == 1 else 's'}"
