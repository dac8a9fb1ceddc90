"""How a run looks while it lasts, and what is printed at its end."""

import json
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.simulate.site.closing import PRICES, Result
from cli.simulate.site.history import (
    MJ_OF_JOULE,
    MJ_OF_KWH,
    MJ_OF_MWH,
    History,
    Rates,
    percentile,
    rates_between,
)
from cli.simulate.site.orders import Orders
from cli.simulate.site.size import TIERS, Tier

NOTHING: Final = "–"
_SECOND_MS: Final = 1_000
_MILLION: Final = 1_000_000
_CENT: Final = Decimal("0.01")
# Live rates are those of so many moments back.
_RATE_MOMENTS: Final = 3


def render(history: History, *, orders: Orders, now_ms: int) -> RenderableType:
    """Return the screen of now."""
    head = Text.assemble(
        (f"a site of {orders.size.label}", "bold"),
        f"   {write_progress(history, orders=orders, now_ms=now_ms)}",
    )
    latest = history.latest
    lines = Table.grid(padding=(0, 3, 0, 0))
    for name, text, style in _lines(history, orders=orders):
        lines.add_row(Text(name, "dim"), Text(text, style))
    parts: list[RenderableType] = [head, Text(""), lines]
    rates = _latest_rates(history)
    if rates is not None:
        parts += [Text(""), _tier_table(history)]
    if latest.trouble and latest.open_count < orders.size.server_count:
        parts += [Text(""), Text(f"streams broke, and are opened again: {latest.trouble}", "red")]
    return Group(*parts)


def write_progress(history: History, *, orders: Orders, now_ms: int) -> str:
    """Return how far a run is, in words."""
    latest = history.latest
    if not latest.begin_ms:
        return f"opening streams: {latest.open_count:,} of {orders.size.server_count:,}"
    seconds = (now_ms - latest.begin_ms) / _SECOND_MS
    if seconds < orders.seconds:
        return f"{_clock(seconds)} of {_clock(orders.seconds)}"
    return f"all is sent; {latest.held_batches:,} batches wait for their acks"


def write_line(history: History, *, orders: Orders, now_ms: int) -> str:
    """Return the state of a run as one line, for whoever has no terminal."""
    parts = [write_progress(history, orders=orders, now_ms=now_ms)]
    if history.latest.begin_ms:
        parts += [text for _, text, _ in _lines(history, orders=orders)]
    return " | ".join(parts)


def to_json(result: Result, history: History, *, orders: Orders) -> str:
    """Return the end of a run for programs: tokens and mJ as integers, money as text."""
    latest, truth = history.latest, result.truth
    return json.dumps(
        {
            "site": orders.size.text,
            "seconds": orders.seconds,
            "producers": orders.size.server_count,
            "truth": str(orders.truth),
            "closes": not result.faults,
            "faults": result.faults,
            "events": {"sent": truth.events.total(), "counted": result.counted_events.total()},
            "tokens": {"sent": truth.tokens.total(), "counted": result.counted.total()},
            "lost": result.lost,
            "doubled": result.doubled,
            "energy_mj": {
                "counters": truth.energy_mj.total(),
                "measured": sum(result.energy.pools_mj.values()),
                "site_meters": truth.facility_mj,
                "site_measured": result.energy.facility_mj,
            },
            "money": {tier: str(amount) for tier, amount in result.previewed.items()},
            "oracle_money": {tier: str(amount) for tier, amount in result.money.items()},
            "tiers": {tier.name: dict(_tier_facts(result, tier)) for tier in TIERS},
            "ack_ms": {
                name: percentile(history.ack_ms, part)
                for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
            },
            "resent_batches": latest.resent_batches,
            "broken_streams": latest.broken_streams,
            "set_aside_events": latest.set_aside_events,
            "load_processor_seconds": round(latest.processor_seconds, 3),
        }
    )


def summary_rows(result: Result) -> list[list[str]]:
    """Return the table of a run's end: a row a tier, and one of all."""
    rows = []
    for tier in TIERS:
        events, tokens, output, energy_mj = _sums(result, tier)
        money = result.previewed[tier.name]
        rows.append([tier.name, *_row(events, tokens, output, energy_mj, money)])
    events, tokens, output, _ = (
        sum(column) for column in zip(*(_sums(result, tier) for tier in TIERS), strict=True)
    )
    money = sum(result.previewed.values(), Decimal(0))
    rows.append(
        [
            "all, at the site’s meters",
            *_row(events, tokens, output, result.energy.facility_mj, money),
        ]
    )
    return rows


def closing_lines(result: Result, history: History, *, orders: Orders) -> Iterator[str]:
    """Yield the sentences below the table."""
    latest, truth = history.latest, result.truth
    p50, p99 = percentile(history.ack_ms, 0.5), percentile(history.ack_ms, 0.99)
    # Fewer than were ordered, where it was ended by Ctrl-C.
    seconds = latest.sealed_batches / orders.size.server_count
    yield (
        f"{truth.events.total() / max(seconds, 1):,.0f} events/s for {_clock(seconds)} from"
        f" {orders.size.server_count:,} producers, acknowledged after {_ms(p50)} (p50), {_ms(p99)}"
        " (p99)"
    )
    yield (
        f"the load took {latest.processor_seconds:,.1f} s of a processor:"
        f" {latest.processor_seconds / max(truth.events.total(), 1) * _MILLION:.3f} s a million"
        " events"
    )
    if latest.broken_streams:
        yield (
            f"streams broke {latest.broken_streams:,} times, {latest.resent_batches:,} batches went"
            f" out again; the last time: {latest.trouble}"
        )
    if latest.set_aside_events:
        outcomes = ", ".join(sorted(latest.set_aside_outcomes))
        yield f"{latest.set_aside_events:,} events were set aside: {outcomes}"
    yield f"truth files in {orders.truth}"
    for fault in result.faults:
        yield f"DIFFERENT  {fault}"
    if result.faults:
        return
    yield (
        f"energy: {truth.energy_mj.total():,} mJ by the counters = measured;"
        f" {truth.facility_mj:,} at the site’s meters = measured"
    )
    yield (
        f"sent = counted: {truth.tokens.total():,} tokens of {truth.events.total():,} requests;"
        " lost 0, doubled 0; previews = own calculation:"
        f" {sum(result.money.values(), Decimal(0)):,} USD"
    )


def _lines(history: History, *, orders: Orders) -> Iterator[tuple[str, str, str]]:
    """Yield name, text and style of what is said of the whole site."""
    latest = history.latest
    recent = history.recent_ack_ms
    yield (
        "sent",
        (
            f"{history.sent_per_second:,.0f} events/s, {latest.sealed_events:,} in all from"
            f" {latest.open_count:,} streams"
        ),
        "cyan",
    )
    yield (
        "recorded",
        (
            f"{history.acknowledged_per_second:,.0f} events/s,"
            f" ack {_ms(percentile(recent, 0.5))} (p50) {_ms(percentile(recent, 0.99))} (p99),"
            f" {latest.held_batches:,} batches held"
        ),
        "cyan",
    )
    if not history.moments:
        return
    last = history.moments[-1]
    behind = (last.asked_ms - last.counted.until_ms) / _SECOND_MS
    yield "counted", f"{last.counted.event_count:,}, {behind:,.1f} s behind", "cyan"
    rates = _latest_rates(history)
    if rates is None:
        return
    yield (
        "power",
        f"{rates.megawatts:,.4g} MW at the site’s meters, of {orders.size.label}",
        "yellow",
    )
    yield (
        "tokens",
        (
            f"{rates.tokens / rates.seconds:,.0f} a second, {rates.output / rates.seconds:,.0f}"
            f" generated: {rates.tokens_per_joule:.4f} a joule"
        ),
        "green",
    )
    yield (
        "revenue",
        f"${rates.dollars_per_hour:,.0f} an hour, ${rates.dollars_per_mwh:,.0f} a MWh",
        "magenta",
    )


def _latest_rates(history: History, tier: Tier | None = None) -> Rates | None:
    moments = history.moments[-_RATE_MOMENTS:]
    if len(moments) < 2:  # noqa: PLR2004 - a rate is of two
        return None
    return rates_between(moments[0], moments[-1], tier)


def _tier_table(history: History) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = ("tier", "$/M", "events/s", "tokens/s", "MW", "tokens/J", "$/h", "$/MWh", "$ so far")
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left")
    counted = history.moments[-1].counted
    for tier in TIERS:
        rates = _latest_rates(history, tier)
        assert rates is not None, "there are rates of all tiers, or of none"
        so_far = PRICES[tier.name] * counted.token_count(tier.name) / _MILLION
        table.add_row(
            tier.name,
            str(tier.price),
            f"{rates.events / rates.seconds:,.0f}",
            f"{rates.tokens / rates.seconds:,.0f}",
            f"{rates.megawatts:,.4g}",
            f"{rates.tokens_per_joule:.4f}",
            f"{rates.dollars_per_hour:,.0f}",
            f"{rates.dollars_per_mwh:,.0f}",
            f"{so_far:,.2f}",
        )
    return table


def _sums(result: Result, tier: Tier) -> tuple[int, int, int, int]:
    """Return a tier's requests, tokens, generated tokens and mJ, as the meter has them."""
    keys = [key for key in result.counted if key.tier == tier.name]
    return (
        result.counted_events[tier.name],
        sum(result.counted[key] for key in keys),
        sum(result.counted[key] for key in keys if key.token_class in ("output", "reasoning")),
        result.energy.pools_mj.get(tier.pool, 0),
    )


def _row(events: int, tokens: int, output: int, energy_mj: int, money: Decimal) -> list[str]:
    return [
        f"{events:,}",
        f"{tokens:,}",
        f"{output:,}",
        f"{energy_mj / MJ_OF_KWH:,.2f}",
        f"{output * MJ_OF_JOULE / energy_mj:.4f}" if energy_mj else NOTHING,
        f"{money:,.2f}",
        f"{_per_mwh(money, energy_mj):,}" if energy_mj else NOTHING,
    ]


def _tier_facts(result: Result, tier: Tier) -> Iterator[tuple[str, object]]:
    events, tokens, output, energy_mj = _sums(result, tier)
    yield "events", events
    yield "tokens", tokens
    yield "output_tokens", output
    yield "energy_mj", energy_mj
    if energy_mj:
        yield "tokens_per_joule", round(output * MJ_OF_JOULE / energy_mj, 6)
        yield "usd_per_mwh", str(_per_mwh(result.previewed[tier.name], energy_mj))


def _per_mwh(money: Decimal, energy_mj: int) -> Decimal:
    return (money * MJ_OF_MWH / energy_mj).quantize(_CENT, rounding=ROUND_HALF_UP)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def _ms(milliseconds: int | None) -> str:
    return NOTHING if milliseconds is None else f"{milliseconds:,} ms"
