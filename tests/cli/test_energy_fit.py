"""What tokens take, fitted: against SciPy, against what is known, and against a real H100."""

import csv
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from cli.energy.fit import Fit, Window, fit_windows
from cli.energy.least_squares import solve_nonnegative

H100: Final = Path(__file__).parent.parent / "fixtures" / "h100" / "windows.csv"
# What the card took at rest with the model in its memory, as its README says.
H100_IDLE_WATTS: Final = 127.0


def h100_windows(*kinds: str, batches: range = range(1, 1_000)) -> list[Window]:
    """Return the spans of a real card that were of these kinds and batches."""
    with H100.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Window(
            start_ms=round(float(row["start_ms"])),
            energy_mj=int(row["energy_mj"]),
            covered_ms=round(float(row["end_ms"]) - float(row["start_ms"])),
            input_tokens=int(row["input_tokens"]),
            cached_tokens=int(row["cached_tokens"]),
            output_tokens=int(row["output_tokens"]),
        )
        for row in rows
        if row["kind"] in kinds and (int(row["batch"]) in batches or row["kind"] == "idle")
    ]


def window(index: int, *, input_tokens: int, cached: int, output: int, joules: float) -> Window:
    """Return an interval of two devices."""
    return Window(
        start_ms=index * 900_000,
        energy_mj=round(joules * 1_000),
        covered_ms=2 * 900_000,
        input_tokens=input_tokens,
        cached_tokens=cached,
        output_tokens=output,
    )


def fit_of(*tokens: tuple[int, int, int], idle_watts: float | None = None) -> Fit:
    """Fit intervals in which tokens take 0.05, 0.001 and 0.5 J, and a device 75.5 W."""
    windows = [
        window(
            index,
            input_tokens=first,
            cached=second,
            output=third,
            joules=75.5 * 1_800 + 0.05 * first + 0.001 * second + 0.5 * third,
        )
        for index, (first, second, third) in enumerate(tokens)
    ]
    return fit_windows(windows, idle_watts=idle_watts)


# Powers of a prime's primitive root go to and fro.
VARIED: Final = [
    (pow(5, index, 100_003), pow(7, 3 * index, 900_001), pow(11, 2 * index, 50_021))
    for index in range(1, 12)
]


@settings(max_examples=300)
@given(
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-6, 1e6]),
)
def test_solve__as_scipy_does(rows: int, columns: int, seed: int, scale: float) -> None:
    """The residual is SciPy's, whatever the shape and the scale, and nothing is negative."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, columns)) * scale
    target = random.normal(size=rows)
    found = solve_nonnegative(matrix, target)
    _, wanted = nnls(matrix, target)
    assert (found >= 0).all()
    assert np.linalg.norm(matrix @ found - target) == pytest.approx(wanted, abs=1e-9)


def test_solve__columns_of_nothing_get_nothing() -> None:
    """A column of zeros, and one that only makes it worse, are left out; equal ones do no harm."""
    matrix = np.array([[1.0, 0.0, -1.0, 1.0], [2.0, 0.0, -2.0, 2.0], [3.0, 0.0, -3.0, 3.0]])
    first, second, third, fourth = solve_nonnegative(matrix, np.array([2.0, 4.0, 6.0]))
    assert (second, third) == (0.0, 0.0)
    assert first + fourth == pytest.approx(2.0)
    assert solve_nonnegative(np.zeros((3, 0)), np.ones(3)).size == 0


def test_fit__finds_what_tokens_take() -> None:
    """Where energy is made of tokens and idling, both are found again, and the weights' ratios."""
    fit = fit_of(*VARIED, (0, 0, 0))
    assert fit.idle_watts == pytest.approx(75.5, rel=1e-6)
    assert fit.joules == pytest.approx((0.05, 0.001, 0.5), rel=1e-4)
    assert [str(it) for it in fit.weights or ()] == ["0.1000", "0.0020", "1.0000"]
    assert fit.r_squared == pytest.approx(1.0)
    assert max(map(abs, fit.residual_joules)) < 1
    assert fit.quiet_count == 1
    assert fit.warnings() == []


def test_fit__idle_power_that_is_known() -> None:
    """A known idle power is kept, and no quiet window is missed."""
    fit = fit_of(*VARIED, idle_watts=75.5)
    assert (fit.idle_watts, fit.is_idle_given, fit.warnings()) == (75.5, True, [])
    assert fit.joules == pytest.approx((0.05, 0.001, 0.5), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "warning"),
    [
        (VARIED[:4], "only 4 windows"),
        ([(index * 10, 0, index) for index in range(1, 20)], "rise and fall together"),
        (VARIED, "no window without tokens"),
        ([(index * index, 0, 0) for index in range(20)], "output tokens take nothing"),
    ],
)
def test_fit__says_why_not_to_believe_it(tokens: list[tuple[int, int, int]], warning: str) -> None:
    """Too few windows, kinds that cannot be told apart, no quiet time: each has its words."""
    assert any(warning in it for it in fit_of(*tokens).warnings())


def test_fit__energy_that_tokens_do_not_explain() -> None:
    """Energy that goes its own way is no base for weights."""
    windows = [
        window(index, input_tokens=0, cached=0, output=100 + index % 3, joules=1000 * (index % 7))
        for index in range(30)
    ]
    fit = fit_windows(windows)
    assert fit.r_squared is not None
    assert fit.r_squared < 0.9
    assert any("explains little" in it for it in fit.warnings())


def test_fit__without_tokens_there_are_no_weights() -> None:
    """Idling alone tells what a device takes, and of tokens nothing."""
    fit = fit_of(*[(0, 0, 0)] * 9)
    assert fit.idle_watts == pytest.approx(75.5)
    assert (fit.weights, fit.r_squared) == (None, None)


def test_fit__a_real_card() -> None:
    """In a real H100's batches of 16 to 64 a prompt weighs a fifth, and who fits is warned."""
    kinds = ("decode", "prefill", "mixed", "cached", "paused")
    windows = h100_windows(*kinds, batches=range(16, 65))
    fit = fit_windows(windows, idle_watts=H100_IDLE_WATTS)
    assert fit.weights is not None
    first, second, third = fit.weights
    assert 0.15 < first < 0.25
    assert second < 0.01
    assert third == 1
    # Spans of seconds hold one batch each: in what they take they are not alike.
    assert any("explains little" in it for it in fit.warnings())
    # A constant of its own is what the card takes as soon as it does anything.
    free = fit_windows(windows)
    assert 300 < free.idle_watts < 450
    assert any("no idle power" in it for it in free.warnings())
    # Quiet windows pull the constant towards what a card takes at rest.
    quiet = fit_windows(h100_windows("idle"))
    assert quiet.idle_watts == pytest.approx(H100_IDLE_WATTS, rel=0.03)
