"""What a site's truth comes to: tokens, joules, and dollars by a calculation of its own."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli.simulate.site.batches import Prepared
from cli.simulate.site.closing import Result, name_faults, work_out
from cli.simulate.site.truth import TokenKey, Truth, TruthFiles, read_truth
from cli.simulate.site.watching import Energy
from cli.simulate.site.world import World

KEY = TokenKey("n-1", "m", "high", "input")
WORLD = World(
    root="site",
    customers=("north", "south"),
    payers={"n-1": "north", "n-2": "north", "s-1": "south"},
    month="2026-11",
)
PREPARED = [
    Prepared(
        tier="high",
        model="m",
        event_count=2,
        energy_mj=100,
        tokens={"n-1": {"input": 10, "output": 1}, "s-1": {"input": 7}},
        planes=b"",
    ),
    Prepared(
        tier="free",
        model="m",
        event_count=1,
        energy_mj=50,
        tokens={"n-2": {"output": 3}},
        planes=b"",
    ),
]


def test_read_truth__adds_up_what_went_out(tmp_path: Path) -> None:
    """Each batch counts as often as it went out; counters by what they gained."""
    files = TruthFiles(tmp_path, prepared=PREPARED, pools=["site-high", "site-free"])
    files.read_counters(1_000, [5, 0], [6])
    files.send(1_000, [0, 0, 1, 1])
    files.send(2_000, [0, 0])
    files.read_counters(3_000, [205, 50], [306])
    files.close()
    truth = read_truth(tmp_path)
    assert truth.events == {"high": 4, "free": 1}
    assert truth.tokens == {
        TokenKey("n-1", "m", "high", "input"): 20,
        TokenKey("n-1", "m", "high", "output"): 2,
        TokenKey("s-1", "m", "high", "input"): 14,
        TokenKey("n-2", "m", "free", "output"): 3,
    }
    assert truth.energy_mj == {"site-high": 200, "site-free": 50}
    assert truth.facility_mj == 300


def test_work_out__a_line_for_each_customer_and_class() -> None:
    """Lines are rounded half up, each by itself: those of one customer are added up before."""
    truth = Truth()
    # 833 + 834 tokens at $6 a million: 0.010002, a cent.
    truth.tokens[TokenKey("n-1", "m", "high", "input")] = 833
    truth.tokens[TokenKey("n-2", "m", "high", "input")] = 834
    # 0.004998 and 0.005004: nothing, and a cent.
    truth.tokens[TokenKey("s-1", "m", "high", "input")] = 833
    truth.tokens[TokenKey("s-1", "m", "high", "output")] = 834
    # 0.045 exactly, at $45: five cents.
    truth.tokens[TokenKey("s-1", "m", "premium", "output")] = 1_000
    truth.tokens[TokenKey("s-1", "m", "free", "output")] = 10**12
    assert work_out(truth, WORLD) == {
        "free": Decimal("0.00"),
        "medium": Decimal(0),
        "high": Decimal("0.02"),
        "premium": Decimal("0.05"),
        "ultra": Decimal(0),
    }


def test_name_faults__where_all_closes() -> None:
    """Where both sides are the same there is nothing to name."""
    assert list(name_faults(_result())) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"counted_events": Counter({"high": 3})}, "requests: 2 sent, 3 counted"),
        ({"counted": Counter({KEY: 6})}, "tokens of n-1, m, high, input: 7 sent, 6 counted"),
        ({"counted": Counter()}, "tokens of n-1, m, high, input: 7 sent, 0 counted"),
        (
            {"energy": Energy(pools_mj={"site-high": 99}, facility_mj=120)},
            "energy of site-high: 100 mJ by its counters, 99 measured",
        ),
        (
            {"energy": Energy(pools_mj={"site-high": 100}, facility_mj=121)},
            "energy of the site: 120 mJ by its meters, 121 measured",
        ),
        (
            {"previewed": {"high": Decimal("0.02")}},
            "dollars of high: 0.01 by the truth, 0.02 previewed",
        ),
    ],
)
def test_name_faults__of_each_total(change: dict[str, Any], named: str) -> None:
    """A request, token, millijoule or cent that differs is named, with both sides."""
    assert list(name_faults(replace(_result(), **change))) == [named]


def test_name_faults__of_many() -> None:
    """Of many differences the first ten are named, and the others counted."""
    counted = Counter({TokenKey(f"n-{number:02}", "m", "high", "input"): 1 for number in range(30)})
    faults = list(name_faults(replace(_result(), counted=counted)))
    assert len(faults) == 11
    assert faults[-1] == "and 21 other sums of tokens"


def _result() -> Result:
    truth = Truth(
        events=Counter({"high": 2}),
        tokens=Counter({KEY: 7}),
        energy_mj=Counter({"site-high": 100}),
        facility_mj=120,
    )
    return Result(
        truth=truth,
        money={"high": Decimal("0.01")},
        counted_events=Counter(truth.events),
        counted=Counter(truth.tokens),
        energy=Energy(pools_mj={"site-high": 100}, facility_mj=120),
        previewed={"high": Decimal("0.01")},
        faults=[],
    )
