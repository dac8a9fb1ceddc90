"""The table of the rows in docs/operating/faults.md, from what a run gave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.faults.row import ROWS, Result

PAGE: Final = Path(__file__).parents[2] / "docs" / "operating" / "faults.md"
_BEGIN: Final = "<!-- rows: made by `make faults ARGS=--page` -->\n"
_HEAD: Final = (
    "| row | fault, and how it is made | expected | seen"
    " | sent | counted | lost | doubled | in quarantine | |"
)
_END: Final = "<!-- end of rows -->\n"


def replace_rows(text: str, *, results: Mapping[str, Result]) -> str:
    """Return the page with its table made anew."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = [
        _HEAD,
        "|---|---|---|---|---:|---:|---:|---:|---:|---|",
        *(_line(name, it) for name, it in results.items()),
    ]
    return before + _BEGIN + "\n".join(lines) + "\n" + _END + after


def _line(name: str, it: Result) -> str:
    if it.skipped is not None:
        mark, seen = "skipped", it.skipped
    else:
        mark, seen = ("ok" if it.ok else f"**not ok**: {it.wrong}"), it.seen
    if it.at_risk_lost:
        seen += f"; {it.at_risk_lost:,} of the events at risk are lost"
    if it.refused:
        seen += f"; {it.refused:,} events were not taken, and the client said so"
    numbers = " | ".join(
        f"{count:,}" for count in (it.sent, it.counted, it.lost, it.doubled, it.set_aside)
    )
    how = ROWS[name].how
    return f"| `{name}` | {it.fault}: {how} | {it.expected} | {seen} | {numbers} | {mark} |"
