"""Which time is compared, whose usage belongs to which engine, and what a drift comes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.interval import INTERVAL_MS
from meter.engine_drift import EngineDrift, TokenKind
from meter.engines.comparing import (
    EngineSums,
    MeteredSums,
    ReadTime,
    Window,
    compare,
    find_windows,
)

BEGIN_MS = 2_000_000 * INTERVAL_MS
PROMPT, UNCACHED, OUTPUT = TokenKind.PROMPT, TokenKind.UNCACHED_PROMPT, TokenKind.OUTPUT
WINDOW = Window(pool="h100", start_ms=BEGIN_MS, end_ms=BEGIN_MS + 4 * INTERVAL_MS)


def windows_of(*times: tuple[float, float]) -> list[tuple[float, float, list[float]]]:
    """Return what of four intervals is compared, by replicas' times; all in intervals."""
    found = find_windows(
        (
            ReadTime(
                pool="h100",
                first_ms=BEGIN_MS + int(first * INTERVAL_MS),
                last_ms=BEGIN_MS + int(last * INTERVAL_MS),
            )
            for first, last in times
        ),
        start_ms=BEGIN_MS,
        end_ms=BEGIN_MS + 4 * INTERVAL_MS,
    )
    return [
        (
            (it.start_ms - BEGIN_MS) / INTERVAL_MS,
            (it.end_ms - BEGIN_MS) / INTERVAL_MS,
            [(out - BEGIN_MS) / INTERVAL_MS for out in sorted(it.left_out)],
        )
        for it in found
    ]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(-5, 9)], [(0, 4, [])]),
        ([(-5, 9), (-1, 5)], [(0, 4, [])]),
        # What came amid an interval leaves it out, on an edge it does not.
        ([(0.5, 9)], [(1, 4, [])]),
        ([(-5, 9), (1.5, 9)], [(0, 4, [1])]),
        ([(-5, 9), (1, 9)], [(0, 4, [])]),
        # What went, likewise; after it the others go on.
        ([(-5, 9), (-5, 2.5)], [(0, 4, [2])]),
        ([(-5, 2.5)], [(0, 2, [])]),
        # One that was never there in the time says nothing of it.
        ([(-5, 9), (-5, -1), (4, 9)], [(0, 4, [])]),
        ([(0.5, 0.7)], []),
        ([(-5, 0.5), (0.5, 1.5)], []),
        ([], []),
    ],
)
def test_find_windows__by_who_was_there(
    times: list[tuple[float, float]], expected: list[tuple[float, float, list[float]]]
) -> None:
    """Intervals are compared over which each replica that was there was read."""
    assert windows_of(*times) == expected


def engine(model: str, kind: TokenKind, tokens: int) -> EngineSums:
    """Return what engines of h100 counted."""
    return EngineSums(
        pool="h100", model=model, kind=kind, tokens=tokens, gap_tokens=0, reset_count=0
    )


def metered(model: str, output: int, *, served: str = "") -> MeteredSums:
    """Return what was metered of h100, with prompts of 10 times that, 3 of 10 cached."""
    return MeteredSums(
        pool="h100",
        model=model,
        served_model=served or model,
        input_tokens=output * 7,
        cached_tokens=output * 3,
        output_tokens=output,
    )


def drifts_of(engines: list[EngineSums], usage: list[MeteredSums]) -> list[tuple[object, ...]]:
    """Return drifts in short."""
    return [
        (it.model, it.kind, it.engine_tokens, it.metered_tokens, sorted(it.models))
        for it in compare([WINDOW], engines=engines, metered=usage)
    ]


def test_compare__by_the_name_it_was_served_under() -> None:
    """Usage belongs to the engines' model of its served name, else of its billed one."""
    engines = [engine("q", OUTPUT, 100), engine("big", OUTPUT, 50), engine("big", PROMPT, 500)]
    usage = [metered("big", 40), metered("gold", 90, served="q"), metered("big", 10, served="z")]
    assert drifts_of(engines, usage) == [
        ("big", OUTPUT, 50, 50, ["big"]),
        ("big", PROMPT, 500, 500, ["big"]),
        ("q", OUTPUT, 100, 90, ["gold", "q"]),
    ]


def test_compare__engine_without_models() -> None:
    """Where an engine tells no models, all of its pool is compared at once."""
    engines = [engine("", OUTPUT, 100), engine("", UNCACHED, 700), engine("q", OUTPUT, 5)]
    usage = [metered("a", 60), metered("b", 40)]
    assert drifts_of(engines, usage) == [
        ("", OUTPUT, 105, 100, ["", "a", "b", "q"]),
        ("", UNCACHED, 700, 700, ["", "a", "b"]),
    ]


def test_compare__what_no_engine_counted() -> None:
    """Usage of a model that no engine of its pool has counted is drift, whole."""
    assert drifts_of([], [metered("ghost", 9)]) == [
        ("ghost", OUTPUT, 0, 9, ["ghost"]),
        ("ghost", PROMPT, 0, 90, ["ghost"]),
    ]
    other = Window(pool="h200", start_ms=BEGIN_MS, end_ms=BEGIN_MS + INTERVAL_MS)
    assert compare([other], engines=[engine("q", OUTPUT, 1)], metered=[metered("a", 1)]) == []


@pytest.mark.parametrize(
    ("counted", "metered_tokens", "ppm"),
    [
        (1_000_000, 999_999, 1),
        (999_999, 1_000_000, -1),
        (3, 1, 666_666),
        (1, 3, -666_666),
        (5, 0, 1_000_000),
        (0, 5, -1_000_000),
        (0, 0, 0),
        (5, -5, 1_000_000),
    ],
)
def test_ppm__of_the_larger(counted: int, metered_tokens: int, ppm: int) -> None:
    """A drift is in millionths of the larger count, with its sign."""
    assert drift(counted, metered_tokens).ppm == ppm


@given(st.integers(0, 2**60), st.integers(-(2**60), 2**60))
def test_ppm__never_more_than_all(counted: int, metered_tokens: int) -> None:
    """A drift is at most all there is, and 0 where both agree."""
    found = drift(counted, metered_tokens)
    assert -1_000_000 <= found.ppm <= 1_000_000
    assert found.ppm * found.tokens >= 0


def drift(counted: int, metered_tokens: int) -> EngineDrift:
    """Return a drift of these counts."""
    return EngineDrift(
        pool="h100",
        model="m",
        kind=OUTPUT,
        start_ms=BEGIN_MS,
        end_ms=BEGIN_MS + INTERVAL_MS,
        compared_ms=INTERVAL_MS,
        engine_tokens=counted,
        metered_tokens=metered_tokens,
    )
