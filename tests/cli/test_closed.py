"""What a close did, as its command tells of it."""

import pytest

from cli.billing.closed import period_to_json, print_answer
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import engine_service_pb2


def test_answer__nothing_was_due(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is due that is told, and not that there are no contracts."""
    print_answer(pb.CloseMonthResponse(month="due"))
    print_answer(pb.CloseMonthResponse(month="2026-10"))
    assert capsys.readouterr().out == "due: nothing\n2026-10: no contract is in force\n"


def test_answer__of_all_that_is_due_names_months(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that is due, each row says which month it is of; of one month, its head does."""
    invoice = pb.InvoiceSummary(contract="acme-2026", account="acme", month="2026-12")
    period = pb.ClosedPeriod(outcome=pb.CLOSE_OUTCOME_NO_USAGE, invoice=invoice)
    print_answer(pb.CloseMonthResponse(month="due", periods=[period]))
    assert "2026-12: no usage" in capsys.readouterr().out
    print_answer(pb.CloseMonthResponse(month="2026-12", periods=[period]))
    assert "2026-12: no usage" not in capsys.readouterr().out


def test_answer__held_for_what_engines_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A period that is held for it says of which model, how much, and how it is let go."""
    invoice = pb.InvoiceSummary(contract="acme-2026", account="acme", month="2026-12")
    holds = [
        pb.EngineHold(
            pool=pool,
            model=model,
            kind=engine_service_pb2.ENGINE_TOKEN_KIND_UNCACHED_PROMPT,
            engine_tokens=engine,
            metered_tokens=1_000_000,
            ppm=ppm,
        )
        for pool, model, engine, ppm in (("h100", "q", 1_030_000, 29_126), ("cpu", "", 0, -(10**6)))
    ]
    period = pb.ClosedPeriod(
        outcome=pb.CLOSE_OUTCOME_HELD_ENGINES,
        invoice=invoice,
        holds=[pb.HOLD_REASON_ENGINES],
        engine_holds=holds,
    )
    print_answer(pb.CloseMonthResponse(month="2026-12", periods=[period]))
    shown = capsys.readouterr().out
    assert "held: engines counted otherwise" in shown
    assert [line for line in shown.splitlines() if line.startswith("acme-2026: ")] == [
        (
            "acme-2026: the engines of h100 counted 30,000 uncached prompt tokens of q more than"
            " were metered (+29,126 ppm): tokenworks usage drift"
        ),
        (
            "acme-2026: the engines of cpu counted 1,000,000 uncached prompt tokens fewer than were"
            " metered (-1,000,000 ppm): tokenworks usage drift"
        ),
        (
            "acme-2026: look at it, and let it go:"
            " tokenworks invoices approve acme-2026 2026-12 --reason WHY"
        ),
    ]
    told = period_to_json(period)
    told_holds = told["engine_holds"]
    assert isinstance(told_holds, list)
    assert told["holds"] == ["ENGINES"]
    assert told_holds[1] == {
        "pool": "cpu",
        "model": None,
        "kind": "uncached_prompt",
        "engine_tokens": 0,
        "metered_tokens": 1_000_000,
        "drift_ppm": -1_000_000,
    }
