"""What is seen of a site while it runs."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from cli.simulate.server import MeterAddress
from cli.simulate.site.history import History, percentile, rates_between
from cli.simulate.site.orders import Orders, Progress
from cli.simulate.site.screen import render, write_line
from cli.simulate.site.size import TIERS, parse_size
from cli.simulate.site.watching import Counted, Energy

BEGIN_MS = 1_795_000_000_000
ORDERS = Orders(
    size=parse_size("10MW"),
    seed=1,
    seconds=600,
    arrivals=(),
    accounts=("a",),
    meter=MeterAddress(
        target="127.0.0.1:1",
        api_key="key",
        ca_certificate=None,
        client_certificate=None,
        client_key=None,
        insecure=True,
    ),
    keys={},
    deadline_seconds=60.0,
    truth=Path("truth"),
)


def test_rates_between__two_moments() -> None:
    """Tokens are by the time between answers, energy by that between readings of counters."""
    before, after = _history().moments
    (ultra,) = (tier for tier in TIERS if tier.name == "ultra")
    rates = rates_between(before, after, ultra)
    # 20 M tokens in 10 s at $150 a million; 2 MWh in 5 s.
    assert (rates.tokens, rates.output, rates.dollars) == (20_000_000, 8_000_000, Decimal(3_000))
    assert rates.dollars_per_hour == Decimal(1_080_000)
    assert rates.megawatts == pytest.approx(1_440)
    assert rates.tokens_per_joule == pytest.approx(800_000 / 1_440_000_000)
    assert rates.dollars_per_mwh == Decimal(750)
    everything = rates_between(before, after)
    assert everything.dollars == rates.dollars
    assert everything.megawatts == pytest.approx(1_728)


def test_render__a_running_site() -> None:
    """The screen has the rates, how long acks took, how far counting is behind, power and money."""
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render(_history(), orders=ORDERS, now_ms=BEGIN_MS + 61_000))
    text = captured.get()
    for words in (
        "a site of 10 MW   1:01 of 10:00",
        "1,000 events/s, 10,000 in all from 20 streams",
        "ack 7 ms (p50) 40 ms (p99), 3 batches held",
        "1.5 s behind",
        "1,728 MW at the site’s meters, of 10 MW",
        "$1,080,000 an hour",
        "ultra",
    ):
        assert words in text


def test_write_line__before_and_after() -> None:
    """Without a terminal a line says what a run is at: opening, serving, or waiting for acks."""
    history = History()
    history.told(Progress(open_count=7), now=0.0)
    assert write_line(history, orders=ORDERS, now_ms=BEGIN_MS) == "opening streams: 7 of 20"
    line = write_line(_history(), orders=ORDERS, now_ms=BEGIN_MS + 61_000)
    assert line.startswith("1:01 of 10:00 | 1,000 events/s")
    line = write_line(_history(), orders=ORDERS, now_ms=BEGIN_MS + 700_000)
    assert line.startswith("all is sent; 3 batches wait for their acks")


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 1), (0.75, 1), (0.76, 9), (0.99, 100), (1.0, 100)]
)
def test_percentile__of_counts(part: float, expected: int) -> None:
    """A part of the acks came within so many milliseconds."""
    assert percentile(Counter({1: 75, 9: 20, 100: 5}), part) == expected


def test_percentile__of_nothing() -> None:
    """Where no ack came there is none."""
    assert percentile(Counter(), 0.99) is None


def _history() -> History:
    history = History()
    for second, events in ((0, 0), (10, 10_000)):
        history.told(
            Progress(
                begin_ms=BEGIN_MS,
                open_count=20,
                sealed_events=events,
                acknowledged_events=events,
                held_batches=3,
                ack_ms=Counter({7: 9, 40: 1}),
            ),
            now=float(second),
        )
        share = second // 10
        history.asked(
            Counted(
                events={"ultra": events},
                tokens={"ultra": {"input": 12_000_000 * share, "output": 8_000_000 * share}},
                until_ms=BEGIN_MS + 1_000 * second - 1_500,
            ),
            Energy(
                pools_mj={"site-ultra": 7_200_000_000_000 * share},
                facility_mj=8_640_000_000_000 * share,
            ),
            asked_ms=BEGIN_MS + 1_000 * second,
            read_ms=BEGIN_MS + 500 * second,
        )
    return history
