"""`tokenworks demo` as people run it, small: a month that adds up, and one tampered with."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest

from tests.acceptance.counted import wait_until
from tests.running_meter import TOKENWORKS

ROOT: Final = Path(__file__).resolve().parents[2]
EVENTS: Final = 20_000
EVENTS_SHOWN: Final = 2_000_000
DEMO_SECONDS_MAX: Final = 400
WAIT_SECONDS_MAX: Final = 120
RETAIL: Final = {"berlin", "los-angeles", "auckland"}
_ANY_USAGE: Final = "SELECT FROM usage WHERE account_id = 'auckland-routing' LIMIT 1"
# Folded into the sums of months: before that, a row changed by hand is folded as it stands.
_FOLDED_USAGE: Final = "SELECT FROM period_totals WHERE account_id = 'auckland-routing' LIMIT 1"
_ONE_TOKEN_MORE = """
UPDATE usage SET output = output + 1 WHERE (account_id, interval_start, sku_id, band) =
    (SELECT account_id, interval_start, sku_id, band FROM usage
     WHERE account_id = 'auckland-routing' ORDER BY 1, 2, 3, 4 LIMIT 1)
"""


def _check_ranking(summary: dict[str, Any]) -> None:
    """The ranking has each tier once, the dearest megawatt-hour first, and shares of the whole."""
    ranking = summary["ranking"]
    assert {it["tier"]: it["usd_per_mwh"] for it in ranking} == summary["usd_per_mwh"]
    dollars = [Decimal(it["usd_per_mwh"]) for it in ranking]
    assert dollars == sorted(dollars, reverse=True)
    for name in ("power_share", "revenue_share"):
        # Five roundings of half a ten-thousandth.
        assert abs(sum((Decimal(it[name]) for it in ranking), Decimal(-1))) <= Decimal("0.00025")


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_demo__one_token_added(tmp_path: Path) -> None:
    """A single token that somebody adds to the sums holds its invoice, is named, and fails it."""
    out = tmp_path / "out"
    with _running(out) as demo:
        _add_token(out)
        printed, told = demo.communicate(timeout=DEMO_SECONDS_MAX)
    assert demo.returncode == 1, f"{printed}\n{told}"
    for fault in ("tokenworks billing close", "auckland premium output", "the oracle found"):
        assert f"WRONG: {fault}" in printed, printed
    assert printed.splitlines()[-1].startswith("sent ")
    assert "lost 0, doubled 1" in printed.splitlines()[-1]
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["doubled"] == 1
    assert _total(summary["counted"]) == _total(summary["sent"]) + 1
    assert not _leftovers(out)


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_demo__of_the_first_page(tmp_path: Path) -> None:
    """A month with a kill and changes of price and clock adds up; README shows what it prints."""
    out = tmp_path / "out"
    with _running(out, events=EVENTS_SHOWN) as demo:
        printed, told = demo.communicate(timeout=DEMO_SECONDS_MAX)
    assert demo.returncode == 0, f"{printed}\n{told}"
    _check_readme(printed)
    lines = printed.replace(str(out), "").splitlines()
    assert max(map(len, lines)) <= 100
    assert "kill -9" in printed
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    tokens = _total(summary["sent"])
    assert lines[-1].startswith(f"sent = counted = billed: {tokens:,} tokens; lost 0, doubled 0;")
    _check_sums(summary)
    _check_ranking(summary)
    assert (out / "month.png").read_bytes().startswith(b"\x89PNG")
    numbers = [invoice["number"] for invoice in summary["invoices"]]
    assert sorted(path.stem for path in (out / "invoices").iterdir()) == numbers
    assert not _leftovers(out)


def _check_readme(printed: str) -> None:
    """What README shows was printed; only what a kill meets may differ.

    Of the month's energy that is a thousandth at most: a reading may be missing.
    """
    readme = (ROOT / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    lines = {_without_chance(line) for line in printed.splitlines()}
    wanted = [line for line in shown.splitlines() if line not in {"…", "$ make install demo"}]
    missing = [line for line in wanted if _without_chance(line) not in lines]
    assert not missing, f"{missing} of\n{printed}"
    of_readme, of_run = _energy_mj(shown), _energy_mj(printed)
    for wanted_mj, found_mj in zip(of_readme, of_run, strict=True):
        assert abs(wanted_mj - found_mj) * 1_000 <= of_readme[0], (of_readme, of_run)


def _energy_mj(text: str) -> list[int]:
    """Return what was measured, and what of it went to tokens, to idling and to nothing."""
    (numbers,) = re.findall(
        r"([\d,]+) mJ measured\n *= ([\d,]+) to tokens \+ ([\d,]+) idle \+ ([\d,]+) no tokens",
        text,
    )
    return [int(number.replace(",", "")) for number in numbers]


def _check_sums(summary: dict[str, Any]) -> None:
    """All that was sent is counted and billed, once, and all energy is shared out."""
    assert summary["sent"] == summary["counted"] == summary["billed"]
    assert summary["money"] == summary["oracle_money"]
    assert summary["money"].keys() == {*RETAIL, "research"}
    assert summary["money"]["research"] == "232500.00"
    assert _total({"research": summary["sent"]["research"]}) == 31 * 50_000_000
    assert summary["events"] == EVENTS_SHOWN
    assert (summary["lost"], summary["doubled"], summary["kills"]) == (0, 0, 1)
    assert summary["resent"] >= 1
    energy = summary["energy_mj"]
    assert energy["measured"] == energy["attributed"] + energy["unattributed"]
    assert min(energy.values()) > 0
    assert summary["tokens_per_joule"].keys() == summary["usd_per_mwh"].keys()
    assert len(summary["tokens_per_joule"]) == 5
    assert set(summary["unattributed_mj"]) == {"idle", "no_tokens"}
    assert sum(summary["unattributed_mj"].values()) == energy["unattributed"]


def _without_chance(line: str) -> str:
    """Leave out of a line what depends on the moment of the kill."""
    by_chance = (
        *("acknowledgements", "it is back after", "segments:"),
        *("mJ measured", "to tokens +"),
    )
    return re.sub(r"[\d.,]+", "N", line) if any(it in line for it in by_chance) else line


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_demo__asked_to_stop(tmp_path: Path) -> None:
    """One that is asked to stop in mid-month leaves nothing running behind it."""
    out = tmp_path / "out"
    with _running(out) as demo:
        wait_until(_finds(_ANY_USAGE, out), seconds_max=WAIT_SECONDS_MAX, what="usage is counted")
        demo.terminate()
        printed, told = demo.communicate(timeout=DEMO_SECONDS_MAX)
    assert demo.returncode == 1, f"{printed}\n{told}"
    assert not _leftovers(out)


@contextmanager
def _running(out: Path, *, events: int = EVENTS) -> Iterator[subprocess.Popen[str]]:
    demo = subprocess.Popen(
        [TOKENWORKS, "demo", "--out", out, "--events", str(events)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            # Not killed: it has an installation to stop.
            demo.terminate()
        demo.communicate()


def _add_token(out: Path) -> None:
    """Add a token to the first row of usage as soon as it is folded into the sums of months."""
    is_folded = _finds(_FOLDED_USAGE, out)
    wait_until(is_folded, seconds_max=WAIT_SECONDS_MAX, what="usage is folded")
    with psycopg.connect(_database_url(out)) as connection:
        assert connection.execute(_ONE_TOKEN_MORE).rowcount == 1


def _finds(query: LiteralString, out: Path) -> Callable[[], bool]:
    def finds() -> bool:
        with suppress(OSError, psycopg.Error), psycopg.connect(_database_url(out)) as connection:
            return connection.execute(query).fetchone() is not None
        return False

    return finds


def _database_url(out: Path) -> str:
    postgres = out / "installation" / "postgres"
    password = (postgres / "password").read_text("ascii").strip()
    port = (postgres / "data" / "postmaster.pid").read_text("ascii").splitlines()[3]
    return f"postgresql://tokenworks:{password}@127.0.0.1:{port}/tokenworks"


def _leftovers(out: Path) -> list[str]:
    """Processes that still work on the folder."""
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if str(out) in line]


def _total(tokens: Any) -> int:  # noqa: ANN401 - JSON
    return sum(
        count
        for by_tier in tokens.values()
        for by_class in by_tier.values()
        for count in by_class.values()
    )
