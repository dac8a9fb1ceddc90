"""What a site's truth comes to: tokens, joules, and dollars by a calculation of its own."""

from decimal import Decimal
from pathlib import Path

from cli.simulate.site.batches import Prepared
from cli.simulate.site.closing import work_out
from cli.simulate.site.truth import TokenKey, Truth, TruthFiles, read_truth
from cli.simulate.site.world import World

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
    # 0.015 exactly, at $150: two cents.
    truth.tokens[TokenKey("s-1", "m", "ultra", "output")] = 100
    truth.tokens[TokenKey("s-1", "m", "free", "output")] = 10**12
    assert work_out(truth, WORLD) == {
        "free": Decimal("0.00"),
        "medium": Decimal(0),
        "high": Decimal("0.02"),
        "premium": Decimal(0),
        "ultra": Decimal("0.02"),
    }
