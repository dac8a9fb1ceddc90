"""The page of capacity: its tables are what its formulas make of what was measured."""

import pytest

from benchmarks.capacity import COPY_RATE, DATABASE_LOAD, PAGE, demand_of, made


def test_page__is_fresh() -> None:
    """The page has the tables that the program makes now."""
    text = PAGE.read_text("utf-8")
    assert made(text) == text, "python -m benchmarks.capacity"


def test_demand__of_a_gigawatt() -> None:
    """One gigawatt, worked out by hand: 700 M tokens a second at 1,000 tokens an event."""
    demand = demand_of(1)
    assert demand.events_a_second == 700_000
    assert demand.batches_a_second == 70
    # 0.7 M × 11.4 bytes × 86,400 s.
    assert demand.journal_bytes_a_day == pytest.approx(689_472_000_000)
    # 0.7 M × 27.6 bytes, and × 28.7.
    assert demand.wal_bytes_a_second == pytest.approx(19_320_000)
    assert demand.network_bytes_a_second == pytest.approx(20_090_000)
    # 20,000 × 96 × 365 × 722 bytes.
    assert demand.usage_bytes_a_year == pytest.approx(505_977_600_000)
    # One carries it (0.7 of 0.89 M), and one more.
    assert (demand.databases, demand.servers) == (1, 2)


@pytest.mark.parametrize("gigawatts", [1, 6, 7, 10, 100])
def test_demand__no_database_has_more_than_it_takes(gigawatts: int) -> None:
    """Events are spread over as many databases as bear them, and no more."""
    demand = demand_of(gigawatts)
    limit = COPY_RATE.value * DATABASE_LOAD
    assert demand.events_a_second <= demand.databases * limit
    assert demand.events_a_second > (demand.databases - 1) * limit
    assert demand.servers >= 2 * demand.databases
