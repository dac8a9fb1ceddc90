"""Runs the rows and writes build/faults.json.

    python -m tests.faults [--only ROW …] [--seconds N] [--list] [--keep FOLDER] [--page]

Ends with 1 when a row is not ok. A row that cannot run here is skipped, loudly, and is not ok.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.faults import (
    rows_archive,
    rows_batches,
    rows_corrections,
    rows_disk,
    rows_failover,
    rows_hostile,
    rows_meter,
    rows_network,
    rows_patroni,
    rows_postgres,
    rows_producer,
    rows_replicas,
    rows_restore,
    rows_running,
    rows_self,
    rows_spool,
    rows_time,
    rows_tls,
    rows_upgrade,
)
from tests.faults.page import PAGE, replace_rows
from tests.faults.plant import make_template
from tests.faults.row import ROWS, Result
from tests.faults.running import run_row
from tests.faults.site import SECONDS_DEFAULT

# They register their rows.
MODULES: Final = (
    rows_meter,
    rows_replicas,
    rows_producer,
    rows_running,
    rows_spool,
    rows_postgres,
    rows_failover,
    rows_patroni,
    rows_restore,
    rows_disk,
    rows_network,
    rows_batches,
    rows_corrections,
    rows_time,
    rows_tls,
    rows_upgrade,
    rows_archive,
    rows_hostile,
    rows_self,
)
_OUT: Final = Path("build") / "faults.json"


def main(arguments: Sequence[str]) -> int:
    """Run the rows; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[])
    parser.add_argument("--seconds", type=float, default=SECONDS_DEFAULT, help="length of a load")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--keep", type=Path, help="leave logs and databases in this new folder")
    parser.add_argument("--page", action="store_true", help="write the table of the page, too")
    parser.add_argument("--out", type=Path, default=_OUT, help="where the JSON goes")
    options = parser.parse_args(arguments)
    if options.list:
        sys.stdout.writelines(
            f"{row.name:<32} {row.fault}\n" for row in map(ROWS.__getitem__, row_names())
        )
        return 0
    unknown = [name for name in options.only if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; see --list")
    if options.page and options.only:
        parser.error("--page is for a run of all rows")
    names = options.only or row_names()
    # Asked to end, it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = run_rows(names, seconds=options.seconds, keep=options.keep, out=options.out)
    if options.page:
        page = replace_rows(PAGE.read_text("utf-8"), results=results)
        PAGE.write_text(page, "utf-8")
    sys.stdout.write(table(results))
    return 0 if all(it.ok or it.skipped for it in results.values()) else 1


def row_names() -> list[str]:
    """Name all rows, in the order of their modules."""
    order = [module.__name__ for module in MODULES]
    return sorted(ROWS, key=lambda name: order.index(ROWS[name].act.__module__))


def run_rows(
    names: Sequence[str], *, seconds: float, keep: Path | None, out: Path
) -> dict[str, Result]:
    """Run rows one after the other, each on a copy of one template; `out` has what is done."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-faults-")) if keep is None else keep
    results = {}
    try:
        template = make_template(folder / "template")
        for name in names:
            sys.stderr.write(f"{name} …\n")
            result = run_row(ROWS[name], template=template, folder=folder / name, seconds=seconds)
            results[name] = result
            text = json.dumps({done: asdict(it) for done, it in results.items()}, indent=2)
            out.write_text(text + "\n", "utf-8")
            sys.stderr.write(f"{_line(name, result)}\n")
            if keep is None:
                shutil.rmtree(folder / name, ignore_errors=True)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return results


def table(results: dict[str, Result]) -> str:
    """Lay out what came of the rows, a line each, and the sums."""
    head = f"{'row':<32} {'':<7} {'sent':>9} {'counted':>9} {'lost':>5} {'doubled':>7} {'aside':>6}"
    lines = [f"{head}  seen", *(_line(name, it) for name, it in results.items())]
    done = sum(it.ok for it in results.values())
    skipped = sum(it.skipped is not None for it in results.values())
    wrong = len(results) - done - skipped
    lines.append(
        f"{len(results)} rows: {done} ok, {wrong} not, {skipped} skipped;"
        f" {sum(it.sent for it in results.values()):,} events in"
        f" {sum(it.seconds for it in results.values()):.0f} s"
    )
    return "\n".join(lines) + "\n"


def _line(name: str, it: Result) -> str:
    if it.skipped is not None:
        return f"{name:<32} SKIPPED {it.skipped}"
    mark = "ok" if it.ok else "NOT OK"
    numbers = f"{it.sent:>9} {it.counted:>9} {it.lost:>5} {it.doubled:>7} {it.set_aside:>6}"
    wrong = "" if it.wrong is None else f"  WRONG: {it.wrong}"
    return f"{name:<32} {mark:<7} {numbers}  {it.seen} ({it.seconds:.0f} s){wrong}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
