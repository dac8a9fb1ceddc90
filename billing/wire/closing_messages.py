"""What came of months, as messages."""

from typing import Final

from billing.close_result import Closed, CloseResult, Outcome
from billing.collecting import Stage
from billing.contracts import BillingPeriod
from billing.holds import Hold
from billing.months import PeriodTold
from billing.wire.messages import to_summary, to_timestamp, to_unpriced
from meter.engine_drift import EngineDrift, TokenKind
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import engine_service_pb2

# All that is due, whichever month it is of.
DUE: Final = "due"
_OUTCOMES: Final = {
    Outcome.ISSUED: pb.CLOSE_OUTCOME_ISSUED,
    Outcome.DRAFTED: pb.CLOSE_OUTCOME_DRAFTED,
    Outcome.ALREADY_ISSUED: pb.CLOSE_OUTCOME_ALREADY_ISSUED,
    Outcome.NO_USAGE: pb.CLOSE_OUTCOME_NO_USAGE,
    Outcome.ZERO: pb.CLOSE_OUTCOME_ZERO,
    Outcome.CARRIED: pb.CLOSE_OUTCOME_CARRIED,
    Outcome.HELD_UNPRICED: pb.CLOSE_OUTCOME_HELD_UNPRICED,
    Outcome.HELD_DRIFT: pb.CLOSE_OUTCOME_HELD_DRIFT,
    Outcome.HELD_ENGINES: pb.CLOSE_OUTCOME_HELD_ENGINES,
    Outcome.HELD_FIRST: pb.CLOSE_OUTCOME_HELD_FIRST,
    Outcome.HELD_JUMP: pb.CLOSE_OUTCOME_HELD_JUMP,
    Outcome.HELD_EARLIER: pb.CLOSE_OUTCOME_HELD_EARLIER,
    Outcome.COLLECTING: pb.CLOSE_OUTCOME_COLLECTING,
    Outcome.NOT_ENDED: pb.CLOSE_OUTCOME_NOT_ENDED,
    Outcome.LATE_AFTER_FINAL: pb.CLOSE_OUTCOME_LATE_AFTER_FINAL,
}
_HOLDS: Final = {
    Hold.UNPRICED: pb.HOLD_REASON_UNPRICED,
    Hold.DRIFT: pb.HOLD_REASON_DRIFT,
    Hold.ENGINES: pb.HOLD_REASON_ENGINES,
    Hold.FIRST: pb.HOLD_REASON_FIRST,
    Hold.JUMP: pb.HOLD_REASON_JUMP,
}
_TOKEN_KINDS: Final = {
    TokenKind.PROMPT: engine_service_pb2.ENGINE_TOKEN_KIND_PROMPT,
    TokenKind.UNCACHED_PROMPT: engine_service_pb2.ENGINE_TOKEN_KIND_UNCACHED_PROMPT,
    TokenKind.OUTPUT: engine_service_pb2.ENGINE_TOKEN_KIND_OUTPUT,
}
_STAGES: Final = {
    Stage.OPEN: pb.PERIOD_STATE_OPEN,
    Stage.COLLECTING: pb.PERIOD_STATE_COLLECTING,
    Stage.DUE: pb.PERIOD_STATE_DUE,
    Stage.CLOSED: pb.PERIOD_STATE_CLOSED,
}
STAGES_BY_NUMBER: Final = {number: stage for stage, number in _STAGES.items()}


def to_close_response(result: CloseResult) -> pb.CloseMonthResponse:
    """Return what a close did."""
    return pb.CloseMonthResponse(
        month=DUE if result.month is None else str(result.month),
        cut_id=result.cut_id or 0,
        periods=[to_closed(it) for it in result.closed],
        uncovered=result.uncovered,
        counts=[
            pb.OutcomeCount(outcome=_OUTCOMES[outcome], count=count)
            for outcome, count in sorted(result.counts.items(), key=lambda it: _OUTCOMES[it[0]])
        ],
    )


def to_closed(closed: Closed) -> pb.ClosedPeriod:
    """Return what became of one period."""
    invoice = closed.invoice
    message = pb.ClosedPeriod(
        outcome=_OUTCOMES[closed.outcome],
        invoice=_to_open(closed.period) if invoice is None else to_summary(invoice),
        unpriced=to_unpriced(invoice.unpriced) if invoice is not None else (),
        earlier_month=str(closed.earlier or ""),
        holds=[_HOLDS[it] for it in closed.holds],
        waits_for=closed.waits_for,
        due_time=None if closed.due_ms is None else to_timestamp(closed.due_ms),
        exception=closed.exception,
        engine_holds=[_to_engine_hold(it) for it in closed.engine_drifts],
    )
    if closed.holds:
        message.invoice.state = pb.DOCUMENT_STATE_HELD
    if closed.number:
        message.invoice.number = closed.number
    return message


def to_period(told: PeriodTold) -> pb.Period:
    """Return where a period stands."""
    stored = told.stored
    return pb.Period(
        contract=stored.contract,
        month=str(stored.month),
        start_time=to_timestamp(stored.span.start_ms),
        end_time=to_timestamp(stored.span.end_ms),
        zone=stored.zone,
        tzdata=stored.tzdata,
        state=_STAGES[told.stage],
        collected_time=to_timestamp(told.collecting.collected_ms),
        due_time=to_timestamp(told.collecting.due_ms),
        outcome=(
            _OUTCOMES[Outcome(stored.outcome)] if stored.outcome else pb.CLOSE_OUTCOME_UNSPECIFIED
        ),
        close_time=None if stored.close_ms is None else to_timestamp(stored.close_ms),
        cut_id=stored.cut_id or 0,
        exception=stored.exception,
        number=told.number,
    )


def to_period_count(stage: Stage, count: int) -> pb.PeriodCount:
    """Return how many periods are in a state."""
    return pb.PeriodCount(state=_STAGES[stage], count=count)


def _to_engine_hold(drift: EngineDrift) -> pb.EngineHold:
    return pb.EngineHold(
        pool=drift.pool,
        model=drift.model,
        kind=_TOKEN_KINDS[drift.kind],
        engine_tokens=drift.engine_tokens,
        metered_tokens=drift.metered_tokens,
        ppm=drift.ppm,
    )


def _to_open(period: BillingPeriod) -> pb.InvoiceSummary:
    return pb.InvoiceSummary(
        contract=period.version.contract,
        account=period.version.covers[0],
        buyer=period.version.buyer.name,
        month=str(period.month),
        start_time=to_timestamp(period.span.start_ms),
        end_time=to_timestamp(period.span.end_ms),
    )
