"""The audit as doctor runs it: progress for whoever waits, and a check for each thing compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import billing.app
import meter.examination
from billing.auditing import InvoiceAudit
from cli.doctor.check import Check, Mark
from cli.process import report_progress
from cli.settings import Settings
from meter.counting.auditor import Audit, Progress
from meter.counting.findings import Check as Looked
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso
from meter.options import JobOptions
from meter.runtime.clock import SystemClock

_TOLD_SECONDS: Final = 1.0
# After every period that can be issued.
_LAST_MS: Final = 2**42 // INTERVAL_MS * INTERVAL_MS
_DO: Final = {
    Looked.SEGMENTS: "the journal was changed by hand, restored in part, or its disk is failing:"
    " restore it from a backup",
    Looked.NUMBERS: "a batch is counted twice: void the events of the later one with"
    " tokenworks usage void",
    Looked.SUMS: "usage was changed by hand, or the journal was: find who writes to the database"
    " beside the meter; nothing is repaired by itself",
    Looked.TOTALS: "usage or its totals were changed by hand: see to sums first, where they fail"
    " too; then have tokenworks db recount add usage up anew",
    Looked.EVENT_IDS: "take one of the two back by its place (tokenworks usage void names both),"
    " and let only one of them report such requests",
    Looked.ENERGY: "energy_shares was changed by hand: restore it from a backup",
    Looked.INVOICES: "an invoice, usage below its cut, or a contract was changed by hand: compare"
    " with a backup, and credit what is wrong",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What both audits found, and how long they took."""

    audit: Audit
    invoices: InvoiceAudit
    seconds: float


def run_audit(
    settings: Settings, *, database_url: str, since_ms: int | None, until_ms: int | None
) -> Result:
    """Audit a live database; raises MeterError."""
    clock = SystemClock()
    begin = clock.monotonic_seconds()
    told = begin

    def tell(line: str) -> None:
        nonlocal told
        if clock.monotonic_seconds() - told >= _TOLD_SECONDS:
            told = clock.monotonic_seconds()
            report_progress(line)

    def windows(progress: Progress) -> None:
        until = to_iso(progress.window.end_ms)
        tell(f"audit: {progress.event_count:,} events up to {until}")

    options = JobOptions(
        database_url=database_url, tiers=settings.tiers, archive_folder=settings.archive_folder
    )
    with meter.examination.open_audit(options) as opened:
        audit = opened.auditor.audit(since_ms=since_ms, until_ms=until_ms, on_progress=windows)
        auditing = billing.app.make_auditing(opened.host, usage=opened.totals)
        invoices = auditing.audit(
            start_ms=0 if since_ms is None else since_ms,
            end_ms=_LAST_MS if until_ms is None else until_ms,
            on_progress=lambda number: tell(f"audit: invoice {number}"),
        )
    return Result(audit=audit, invoices=invoices, seconds=clock.monotonic_seconds() - begin)


def to_checks(result: Result) -> Iterator[Check]:
    """Yield one check for each thing that was compared; the first differences are named."""
    audit, invoices = result.audit, result.invoices
    rate = audit.event_count / max(result.seconds, 1e-3) / 1e6
    well = {
        Looked.SEGMENTS: f"{audit.segment_count:,}, none missing, each as it says",
        Looked.NUMBERS: f"{audit.batch_count:,} batches of {audit.producer_count:,} producers,"
        " each once",
        Looked.SUMS: f"{audit.event_count:,} events add up to usage, by account, sku, band,"
        f" interval and cut ({result.seconds:.1f} s, {rate:.1f} M events/s)",
        Looked.TOTALS: "those of months are usage added up, by account, sku and band",
        Looked.EVENT_IDS: f"{audit.id_count:,}, none counted twice" + _shortened(audit),
        Looked.ENERGY: f"{audit.energy_count:,} intervals of pools: attributed + unattributed ="
        " measured",
    }
    for looked, says in well.items():
        found = [it for it in audit.findings if it.check is looked]
        is_fault = any(it.is_fault for it in found)
        yield _to_check(
            looked,
            well=says,
            count=audit.counts[looked],
            said=[it.says for it in found],
            facts=[it.facts for it in found],
            mark=Mark.FAIL if is_fault else Mark.WARN,
        )
    yield _to_check(
        Looked.INVOICES,
        well=f"{invoices.invoice_count:,} with {invoices.line_count:,} lines are usage up to their"
        " cuts",
        count=invoices.fault_count,
        said=[it.says for it in invoices.faults],
        facts=[it.facts for it in invoices.faults],
        mark=Mark.FAIL,
    )


def _to_check(
    looked: Looked,
    *,
    well: str,
    count: int,
    said: Sequence[str],
    facts: Sequence[Mapping[str, object]],
    mark: Mark,
) -> Check:
    name, values = str(looked), {"count": count, "first": list(facts)}
    if not count:
        return Check(name=name, mark=Mark.OK, says=well, facts=values)
    more = f" (the first of {count:,})" if count > 1 else ""
    return Check(name=name, mark=mark, says=said[0] + more, do=_DO[looked], facts=values)


def _shortened(audit: Audit) -> str:
    if not audit.id_blocks:
        return ""
    return f" (so many that {audit.id_blocks:,} times only the nearest millions were compared)"
