"""What a close did, as its command tells of it."""

import pytest

from cli.billing.closed import print_answer
from tokenworks.billing.v1 import billing_service_pb2 as pb


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
