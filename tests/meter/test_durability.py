"""The horizon of what standbys have: absent ones hold it back, and it is bounded."""

import pytest

from meter.journal.durability import Horizon, Sight


def look(horizon: Horizon, position: int, flushed: dict[str, int | None]) -> None:
    """Make a round on one line of history."""
    assert not horizon.take(horizon.begin(), Sight(line="1", position=position, flushed=flushed))


@pytest.mark.parametrize(
    ("flushed", "durable_round", "missing"),
    [
        ({"a": 10, "b": 10}, 1, ()),
        ({"a": 10, "b": 99}, 1, ()),
        ({"a": 10, "b": 9}, 0, ()),
        ({"a": 10}, 0, ("b",)),
        ({"a": 10, "b": None}, 0, ("b",)),
        ({}, 0, ("a", "b")),
        ({"a": 10, "stranger": 10}, 0, ("b",)),
    ],
)
def test_take__all_named_standbys_count(
    flushed: dict[str, int | None], durable_round: int, missing: tuple[str, ...]
) -> None:
    """A round is durable when each named standby has its end; one that is away holds it back."""
    horizon = Horizon(["a", "b"])
    look(horizon, 10, flushed)
    assert (horizon.durable_round, horizon.missing) == (durable_round, missing)


def test_take__standby_that_comes_back_catches_up() -> None:
    """What was recorded while a standby was away becomes durable when it has it."""
    horizon = Horizon(["a"])
    look(horizon, 10, {"a": 10})
    for position in range(20, 70, 10):
        look(horizon, position, {})
    assert horizon.durable_round == 1
    look(horizon, 70, {"a": 45})
    assert horizon.durable_round == 4
    look(horizon, 70, {"a": 70})
    assert horizon.durable_round == 8


def test_take__standby_away_for_long_keeps_memory_bounded() -> None:
    """Rounds that wait are thinned out: some time is lost for them, no promise is made early."""
    horizon = Horizon(["a"])
    for number in range(1, 10_001):
        look(horizon, number * 10, {})
    assert len(horizon._ends) <= 1024  # noqa: SLF001
    look(horizon, 100_000, {"a": 50_000})
    assert 0 < horizon.durable_round <= 5_000
    look(horizon, 100_000, {"a": 100_000})
    assert horizon.durable_round == horizon.round


def test_take__unflushed_standby_of_the_old_line_counts_for_nothing() -> None:
    """Positions of another timeline are compared with none of before."""
    horizon = Horizon(["a"])
    look(horizon, 10, {"a": 5})
    number = horizon.begin()
    assert horizon.take(number, Sight(line="2", position=8, flushed={"a": 7}))
    # 10 of line 1 is not reached by 11 of line 2; only what line 2 has seen is.
    assert horizon.durable_round == 0
    assert not horizon.take(horizon.begin(), Sight(line="2", position=11, flushed={"a": 9}))
    assert horizon.durable_round == number
    assert horizon.generation == 1
