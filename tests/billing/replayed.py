"""Months of a town, replayed as the command does it."""

from billing.app import make_replaying
from billing.periods import Month
from billing.replay import Replayed
from meter.counting.auditor import Auditor, Read
from meter.counting.rebuild import Rebuilding
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit import AuditStore
from tests.billing.town import Town


def replay(
    town: Town, month: Month, *, archive: ArchivedBodies | None = None
) -> tuple[Replayed, list[str]]:
    """Replay a month, of files too; return what came of it, and all that is told."""
    replaying = make_replaying(town.host)
    span = replaying.find_span(month)
    if span is None:
        replayed = replaying.look_for_missing()
        return replayed, [it.says for it in replayed.faults]
    rebuilding = Rebuilding()

    def take(read: Read) -> None:
        rebuilding.add(
            read.segment, cut_id=read.cut_id, window=read.window, catalogue=read.catalogue
        )

    audit = Auditor(AuditStore(town.engine, archive=archive)).audit(
        since_ms=span.start_ms, until_ms=span.end_ms, on_read=take
    )
    replayed = replaying.replay(month, rebuilding.usage())
    return replayed, [*(it.says for it in audit.findings), *(it.says for it in replayed.faults)]
