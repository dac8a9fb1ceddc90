"""Documents in short, as the commands of invoices and of closing tell of them."""

from collections.abc import Iterable

from cli.accounts import format_time, print_table
from cli.process import report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb


def print_summaries(found: Iterable[pb.InvoiceSummary]) -> None:
    """Print invoices in short, a row each."""
    rows = [
        [
            it.number or "-",
            it.account,
            it.buyer,
            it.month,
            f"{it.total} {it.currency}",
            str(it.line_count),
            format_time(it.issue_time) if it.HasField("issue_time") else "-",
            it.due_date or "-",
        ]
        for it in found
    ]
    if rows:
        print_table(
            ["number", "account", "buyer", "month", "total", "lines", "issued", "due"], rows
        )
    else:
        report_progress("no invoices")


def summary_to_json(summary: pb.InvoiceSummary) -> dict[str, object]:
    """Return an invoice in short as JSON has it; a draft's number and issue are null."""
    is_issued = summary.HasField("issue_time")
    return {
        "number": summary.number or None,
        "contract": summary.contract,
        "account": summary.account,
        "buyer": summary.buyer,
        "month": summary.month,
        "start_time": summary.start_time.ToJsonString(),
        "end_time": summary.end_time.ToJsonString(),
        "currency": summary.currency or None,
        "total": summary.total or None,
        "line_count": summary.line_count,
        "issue_time": summary.issue_time.ToJsonString() if is_issued else None,
        "due_date": summary.due_date or None,
        "sandbox": summary.sandbox,
    }
