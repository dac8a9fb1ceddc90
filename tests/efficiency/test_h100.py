"""What the meter made of a real H100: counted again from what was written down beside it."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import pytest

from meter.energy.attribute import Unattributed, attribute
from meter.energy.factory_file import read_factory
from tests.docs.test_docs import ROOT
from tests.nvml import H100

LIVE: Final = H100 / "live"
PAGE: Final = (ROOT / "docs/reference/energy-sources.md").read_text("utf-8")
TIERS: Final = {"chat": "free", "search": "medium", "agents": "high", "research": "premium"}
EDGE_MS: Final = datetime(2026, 11, 26, 0, 15, tzinfo=UTC).timestamp() * 1000
# Of input, cached input and output, in thousandths, as the description has them.
WEIGHTS: Final = (310, 2, 1000)
IDLE_MW: Final = 125_000
# Where the counter stood when the meter first read it.
FIRST_MJ: Final = 2_464_392

TABLES: Final[Mapping[str, Any]] = json.loads((LIVE / "tables.json").read_text("utf-8"))
ROWS: Final = json.loads((LIVE / "attributed.json").read_text("utf-8"))["rows"]
FIRST, SECOND = TABLES["energy_intervals"]


def _took_mj(*, until_ms: float) -> dict[str, float]:
    """Return what each tier took above idle, by the counter: each had the card alone."""
    took: dict[str, float] = defaultdict(float)
    with (LIVE / "served.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            start_ms, end_ms = float(row["start_ms"]), float(row["end_ms"])
            if row["kind"] != "rest" and end_ms <= until_ms:
                # A watt for a millisecond is a millijoule.
                took[row["kind"]] += int(row["energy_mj"]) - IDLE_MW / 1000 * (end_ms - start_ms)
    return took


def _misplaced(given: Mapping[str, float], *, until_ms: float) -> float:
    """Return which part of the energy stands at another tier than took it."""
    took = _took_mj(until_ms=until_ms)
    given_sum, took_sum = sum(given.values()), sum(took.values())
    return sum(abs(given[tier] / given_sum - took[tier] / took_sum) for tier in took) / 2


def _by_weight(weights: tuple[float, float, float]) -> dict[str, float]:
    return {
        row["tier"]: weights[0] * row["input_tokens"]
        + weights[1] * row["cached_tokens"]
        + weights[2] * row["output_tokens"]
        for row in ROWS
    }


def _live_joules() -> dict[str, float]:
    text = (LIVE / "metrics.txt").read_text("utf-8")
    return {
        tier: float(value)
        for tier, value in re.findall(
            r'^tokenworks_energy_attributed.*tier="(\w+)"} (\S+)$', text, re.MULTILINE
        )
    }


def test_meter__measured_what_the_counter_gained() -> None:
    """All intervals and the metric are the counter's gain, from the first reading to the last."""
    (counter,) = TABLES["energy_counters"]
    gained_mj = counter["counter_mj"] - FIRST_MJ
    assert FIRST["measured_mj"] + SECOND["measured_mj"] == gained_mj
    text = (LIVE / "metrics.txt").read_text("utf-8")
    (joules,) = re.findall(r"^tokenworks_energy_joules_total.* (\S+)$", text, re.MULTILINE)
    assert round(float(joules) * 1000) == gained_mj


def test_meter__showed_what_another_reader_saw() -> None:
    """Whenever the metric was looked at, it had risen as the counter that another program read."""
    with (LIVE / "readings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["counter_mj"]) - int(row["metric_mj"]) for row in rows} == {FIRST_MJ}
    assert f"each of the {len(rows)} values" in PAGE


def test_meter__shared_an_interval_out_by_its_description() -> None:
    """The shares are those of exact arithmetic without the product, to the millijoule."""
    # A milliwatt for a millisecond is a microjoule.
    idle_mj = IDLE_MW * FIRST["covered_ms"] // 1_000
    active_mj = FIRST["measured_mj"] - idle_mj
    weights = {row["account"]: weight for row, weight in zip(ROWS, _weights(), strict=True)}
    exact = {
        account: Fraction(active_mj * weight, sum(weights.values()))
        for account, weight in weights.items()
    }
    shares = {account: int(share) for account, share in exact.items()}
    left = active_mj - sum(shares.values())
    for account in sorted(exact, key=lambda it: shares[it] - exact[it])[:left]:
        shares[account] += 1
    found = {row["account_id"]: row["energy_mj"] for row in TABLES["energy_shares"]}
    assert found == {"": idle_mj, **shares}
    assert {row["account"]: row["energy_mj"] for row in ROWS} == shares


def _weights() -> list[int]:
    return [
        sum(
            weight * row[name]
            for weight, name in zip(
                WEIGHTS, ("input_tokens", "cached_tokens", "output_tokens"), strict=True
            )
        )
        for row in ROWS
    ]


def test_attribute__of_what_the_h100_measured() -> None:
    """Attributed again from the same file and tokens, nothing has changed."""
    text = (LIVE / "factory.toml").read_text("utf-8")
    factory = read_factory(text, version=1, tiers=None)
    weights = factory.weights_of(pool="h100", model="llama-8b-random")
    pool = factory.pools["h100"]
    result = attribute(
        measured_mj=FIRST["measured_mj"],
        gap_mj=FIRST["gap_mj"],
        unmapped_mj=FIRST["unmapped_mj"],
        covered_ms=FIRST["covered_ms"],
        weights={
            row["account"]: weights.weigh(
                input_tokens=row["input_tokens"],
                cached_tokens=row["cached_tokens"],
                output_tokens=row["output_tokens"],
            )
            for row in ROWS
        },
        idle_mw=pool.idle_mw,
        idle=pool.idle,
    )
    found = {row["account_id"]: row["energy_mj"] for row in TABLES["energy_shares"]}
    assert result.unattributed_mj == {Unattributed.IDLE: found.pop("")}
    assert result.active_mj == found


@pytest.mark.parametrize(
    ("weights", "told"), [((0, 0, 1), 34), ((1, 0, 1), 25), ((0.31, 0.002, 1), 21)]
)
def test_page__has_what_the_books_misplaced(weights: tuple[float, float, float], told: int) -> None:
    """The page says which part of an interval's energy stands at a tier that did not take it."""
    assert round(100 * _misplaced(_by_weight(weights), until_ms=EDGE_MS)) == told
    name = " : ".join(f"{weight:g}" for weight in weights)
    assert re.search(rf"^\| {re.escape(name)}.*\| {told} % \|$", PAGE, re.MULTILINE)


def test_page__has_what_the_live_metrics_misplaced() -> None:
    """Shared out by each reading, much less of it is wrong."""
    found = _misplaced(_live_joules(), until_ms=float("inf"))
    assert round(100 * found) == 7
    assert re.search(r"^\| .*each reading.*\| 7 % \|$", PAGE, re.MULTILINE)
