"""What a close did, as its command tells of it."""

from collections.abc import Iterable
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.invoices.summaries import summary_to_json
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import engine_service_pb2, usage_pb2

OUTCOME_WORDS: Final = {
    pb.CLOSE_OUTCOME_UNSPECIFIED: "-",
    pb.CLOSE_OUTCOME_ISSUED: "issued",
    pb.CLOSE_OUTCOME_DRAFTED: "would be issued",
    pb.CLOSE_OUTCOME_ALREADY_ISSUED: "issued before",
    pb.CLOSE_OUTCOME_NO_USAGE: "no usage",
    pb.CLOSE_OUTCOME_ZERO: "comes to nothing",
    pb.CLOSE_OUTCOME_CARRIED: "carried forward",
    pb.CLOSE_OUTCOME_HELD_UNPRICED: "held: no price",
    pb.CLOSE_OUTCOME_HELD_DRIFT: "held: sums have drifted",
    pb.CLOSE_OUTCOME_HELD_ENGINES: "held: engines counted otherwise",
    pb.CLOSE_OUTCOME_HELD_FIRST: "held: first invoice",
    pb.CLOSE_OUTCOME_HELD_JUMP: "held: far above the last",
    pb.CLOSE_OUTCOME_HELD_EARLIER: "held: earlier month open",
    pb.CLOSE_OUTCOME_COLLECTING: "collecting",
    pb.CLOSE_OUTCOME_NOT_ENDED: "not ended",
    pb.CLOSE_OUTCOME_LATE_AFTER_FINAL: "late, after the final invoice",
}
_HELD: Final = frozenset(
    {
        pb.CLOSE_OUTCOME_HELD_UNPRICED,
        pb.CLOSE_OUTCOME_HELD_DRIFT,
        pb.CLOSE_OUTCOME_HELD_ENGINES,
        pb.CLOSE_OUTCOME_HELD_FIRST,
        pb.CLOSE_OUTCOME_HELD_JUMP,
        pb.CLOSE_OUTCOME_HELD_EARLIER,
        pb.CLOSE_OUTCOME_LATE_AFTER_FINAL,
    }
)
_APPROVABLE: Final = frozenset({pb.HOLD_REASON_ENGINES, pb.HOLD_REASON_FIRST, pb.HOLD_REASON_JUMP})
_WAITING: Final = _HELD | {pb.CLOSE_OUTCOME_COLLECTING, pb.CLOSE_OUTCOME_NOT_ENDED}
# All that is due, whichever month it is of.
DUE: Final = "due"
# What a table of many says in full; JSON and `billing periods` have all.
_ROWS_MAX: Final = 100
_NAMES_MAX: Final = 10


def waits(answer: pb.CloseMonthResponse) -> tuple[int, int]:
    """Return how many periods wait that were to be closed, and how many there are.

    Of all that is due, what is not due yet waits for nobody.
    """
    counts = {it.outcome: it.count for it in answer.counts}
    waiting = _HELD if answer.month == DUE else _WAITING
    return sum(n for outcome, n in counts.items() if outcome in waiting), sum(counts.values())


def print_answer(answer: pb.CloseMonthResponse) -> None:
    """Print what became of periods, and what those wait for that are not closed."""
    if answer.periods:
        print_periods(answer.periods[:_ROWS_MAX], title=answer.month)
    else:
        nothing = "nothing" if answer.month == DUE else "no contract is in force"
        click.echo(f"{answer.month}: {nothing}")
    _, count = waits(answer)
    if count > min(len(answer.periods), _ROWS_MAX):
        told = (f"{it.count:,} {OUTCOME_WORDS[it.outcome]}" for it in answer.counts)
        click.echo(f"{count:,} periods: {', '.join(told)}")
    if answer.uncovered:
        click.echo(f"no contract bills the usage of: {', '.join(answer.uncovered)}")


def print_periods(periods: Iterable[pb.ClosedPeriod], *, title: str) -> None:
    """Print periods, a row each, and below what is to be done about some."""
    rows = [
        [
            it.invoice.number or "-",
            it.invoice.contract,
            it.invoice.account,
            f"{it.invoice.total} {it.invoice.currency}" if it.invoice.currency else "-",
            f"{it.invoice.month}: {word}" if title == DUE else word,
        ]
        for it in periods
        for word in [OUTCOME_WORDS[it.outcome]]
    ]
    print_table(["number", "contract", "account", "total", title], rows)
    for period in periods:
        for line in _remarks(period):
            click.echo(f"{period.invoice.contract}: {line}")


def _remarks(period: pb.ClosedPeriod) -> Iterable[str]:
    """Return what somebody has to know or do, a line each."""
    contract, month = period.invoice.contract, period.invoice.month
    for it in period.unpriced:
        yield (
            f"no price for {it.token_count:,} tokens of {it.model}, tier {it.tier},"
            f" {_class_name(it)}, prompts {it.band}, first at {it.first_time.ToJsonString()}"
        )
    if period.earlier_month:
        yield (
            f"close {period.earlier_month} first, it has usage:"
            f" tokenworks billing close {period.earlier_month}"
        )
    if pb.HOLD_REASON_DRIFT in period.holds:
        yield "what was added up is not what is counted: tokenworks doctor --audit"
    yield from map(_describe, period.engine_holds)
    if _APPROVABLE.intersection(period.holds):
        yield (
            "look at it, and let it go:"
            f" tokenworks invoices approve {contract} {month} --reason WHY"
        )
    if period.outcome == pb.CLOSE_OUTCOME_COLLECTING:
        yield f"{_waits_for(period)}closed at {format_time(period.due_time)} at the latest"
    if period.outcome == pb.CLOSE_OUTCOME_LATE_AFTER_FINAL:
        yield (
            "bill it, or write it off:"
            f" tokenworks invoices correct {contract} {month} --reason WHY [--write-off]"
        )
    if period.exception:
        yield f"closed {period.exception}"


def _describe(it: pb.EngineHold) -> str:
    """Return what engines counted otherwise, in words."""
    kind = _kind_of(it).replace("_", " ")
    more = "more" if it.ppm > 0 else "fewer"
    of = f" of {it.model}" if it.model else ""
    count = abs(it.engine_tokens - it.metered_tokens)
    return (
        f"the engines of {it.pool} counted {count:,} {kind} tokens{of} {more} than were metered"
        f" ({it.ppm:+,} ppm): tokenworks usage drift"
    )


def _kind_of(it: pb.EngineHold) -> str:
    name = engine_service_pb2.EngineTokenKind.Name(it.kind)
    return name.removeprefix("ENGINE_TOKEN_KIND_").lower()


def _waits_for(period: pb.ClosedPeriod) -> str:
    if not period.waits_for:
        return ""
    more = len(period.waits_for) - _NAMES_MAX
    named = ", ".join(period.waits_for[:_NAMES_MAX])
    return f"waits for {named}" + (f" and {more} more; " if more > 0 else "; ")


def _class_name(unpriced: pb.Unpriced) -> str:
    return usage_pb2.TokenClass.Name(unpriced.token_class).removeprefix("TOKEN_CLASS_").lower()


def to_json(answer: pb.CloseMonthResponse) -> dict[str, object]:
    """Return what a close did as JSON has it."""
    return {
        "month": answer.month,
        "cut_id": answer.cut_id or None,
        "periods": [period_to_json(it) for it in answer.periods],
        "counts": {outcome_name(it.outcome): it.count for it in answer.counts},
        "uncovered": list(answer.uncovered),
    }


def period_to_json(period: pb.ClosedPeriod) -> dict[str, object]:
    """Return what became of a period as JSON has it."""
    return {
        "outcome": outcome_name(period.outcome),
        "invoice": summary_to_json(period.invoice),
        "unpriced": [
            {
                "model": each.model,
                "tier": each.tier,
                "token_class": _class_name(each),
                "band": each.band,
                "tokens": each.token_count,
                "first_time": each.first_time.ToJsonString(),
            }
            for each in period.unpriced
        ],
        "earlier_month": period.earlier_month or None,
        "holds": [pb.HoldReason.Name(it).removeprefix("HOLD_REASON_") for it in period.holds],
        "engine_holds": [
            {
                "pool": it.pool,
                "model": it.model or None,
                "kind": _kind_of(it),
                "engine_tokens": it.engine_tokens,
                "metered_tokens": it.metered_tokens,
                "drift_ppm": it.ppm,
            }
            for it in period.engine_holds
        ],
        "waits_for": list(period.waits_for),
        "due_time": period.due_time.ToJsonString() if period.HasField("due_time") else None,
        "exception": period.exception or None,
    }


def outcome_name(outcome: pb.CloseOutcome.ValueType) -> str:
    """Return an outcome as JSON names it."""
    return pb.CloseOutcome.Name(outcome).removeprefix("CLOSE_OUTCOME_")
