"""Documents in short, as the commands of invoices and of closing tell of them."""

from collections.abc import Iterable
from typing import Final

from cli.accounts import print_table
from cli.process import report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb

# Where there is none, as with a period that has no document, they are null.
_KINDS: Final = {
    number: name.removeprefix("DOCUMENT_KIND_").lower() if number else None
    for name, number in pb.DocumentKind.items()
}
_STATES: Final = {
    number: name.removeprefix("DOCUMENT_STATE_").lower() if number else None
    for name, number in pb.DocumentState.items()
}
_COLUMNS: Final = (*("number", "account", "buyer", "month", "kind", "total", "due", "state"),)


def print_summaries(found: Iterable[pb.InvoiceSummary]) -> None:
    """Print invoices in short, a row each."""
    rows = [
        [
            it.number or "-",
            it.account,
            it.buyer,
            it.month,
            (_KINDS[it.kind] or "-").replace("_", " "),
            f"{it.total} {it.currency}",
            it.due_date or "-",
            _words(it),
        ]
        for it in found
    ]
    if rows:
        print_table(list(_COLUMNS), rows)
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
        "kind": _KINDS[summary.kind],
        "state": _STATES[summary.state],
        "net": summary.net or None,
        "credited": summary.credited or None,
        "paid": summary.paid or None,
        "refers_to": summary.refers_to or None,
        "replaces": summary.replaces or None,
        "voided_by": summary.voided_by or None,
    }


def _words(summary: pb.InvoiceSummary) -> str:
    """Return where a document stands, and what that refers to."""
    state = _STATES[summary.state] or "-"
    if summary.voided_by:
        return f"{state}, by {summary.voided_by}"
    if summary.refers_to:
        return f"{state}, for {summary.refers_to}"
    if summary.replaces:
        return f"{state}, in place of {summary.replaces}"
    return state
