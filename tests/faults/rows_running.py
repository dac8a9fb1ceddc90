"""Long requests whose process is killed before they end."""

from typing import Final

import psycopg

from tests.acceptance import checker
from tests.faults.events import Truth
from tests.faults.progress import resolve
from tests.faults.row import Seen, row
from tests.faults.site import Site

_KILLS: Final = 3
_RATE: Final = 200


@row(
    "running-reports-killed",
    fault="kill -9 of a producer with 40 requests under way, whose counts grow",
    how="three times; each start takes up the same spool and reports what was known last",
    expected="each request counts once, with the last counts that were on disk, or newer ones",
)
def running_reports_killed(site: Site) -> Seen:
    """Kill one in the middle of long requests."""
    site.need_spool()
    site.report("west", rate=200)
    lives = []
    for number in range(_KILLS):
        lives.append(site.report(f"run-{number}", producer="run", rate=_RATE, program="runner"))
        site.load(3)
        lives[-1].kill()
    lives.append(site.report("run-last", producer="run", rate=_RATE, program="runner"))
    site.load(2)
    wrong = site.drain()
    counted = _read_rows(site)
    partial = older = unpromised = 0
    for life in lives:
        resolved = resolve(site.folder / "said" / f"{life.name}.jsonl", counted=counted)
        truth = Truth(site.folder / "truth" / f"{life.name}.jsonl")
        truth.append([dict(event) for event in resolved.events])
        truth.promise(truth.count)
        older += resolved.older_count
        unpromised += resolved.unpromised_count
    partial = _count_partial(site)
    if older:
        wrong = wrong or f"{older} requests count less than what was promised"
    return Seen(
        count=partial,
        what=f"requests counted by what was known last ({unpromised} had never reached the disk)",
        wrong=wrong,
    )


def _read_rows(site: Site) -> dict[str, checker.Row]:
    rows: dict[str, checker.Row] = {}
    with psycopg.connect(site.database.url) as connection:
        for (body,) in connection.execute("SELECT body FROM journal"):
            rows.update({it.request_id: it for it in checker.read_segment(body)})
    return rows


def _count_partial(site: Site) -> int:
    """Count the requests whose usage says that they neither completed nor were truncated."""
    return site.database.question(
        "SELECT coalesce(sum(request_count), 0) FROM usage WHERE finish_class <> 1"
    )
