"""What the pages say of an H100 is what the recorded files say."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.gpu.readings import Readings
from benchmarks.gpu.report import sampling_errors, steps
from tests.docs.test_docs import ROOT
from tests.nvml import H100

Numbers: TypeAlias = NDArray[np.float64]
MINUS: Final = "\u2212"
SOURCES: Final = (ROOT / "docs/reference/energy-sources.md").read_text("utf-8")
WEIGHTS: Final = (ROOT / "docs/decisions/0012-weights-of-tokens.md").read_text("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A window of the probe: joules, seconds, and tokens of input, cache and output."""

    kind: str
    batch: int
    seconds: float
    joules: float
    tokens: tuple[int, int, int]


def _spans() -> list[Span]:
    with (H100 / "windows.csv").open(encoding="utf-8", newline="") as file:
        return [
            Span(
                kind=row["kind"],
                batch=int(row["batch"]),
                seconds=(float(row["end_ms"]) - float(row["start_ms"])) / 1000,
                joules=int(row["energy_mj"]) / 1000,
                tokens=(
                    int(row["input_tokens"]),
                    int(row["cached_tokens"]),
                    int(row["output_tokens"]),
                ),
            )
            for row in csv.DictReader(file)
        ]


SPANS: Final = _spans()
IDLE_WATTS: Final = np.mean([span.joules / span.seconds for span in SPANS if not span.batch])


def _of_batches(low: int, high: int) -> tuple[Numbers, Numbers]:
    """Return the tokens and the joules above idle of the spans with these batches."""
    spans = [span for span in SPANS if low <= span.batch <= high]
    joules = [span.joules - IDLE_WATTS * span.seconds for span in spans]
    return np.array([span.tokens for span in spans], float), np.array(joules)


def _wrong(weights: Sequence[float], *, low: int, high: int) -> float:
    """Return which part of the energy the weights give to another span than took it."""
    tokens, joules = _of_batches(low, high)
    given = tokens @ np.array(weights)
    return float(abs(given / given.sum() - joules / joules.sum()).sum() / 2)


def _numbers(line: str) -> list[float]:
    return [float(word.replace(",", "")) for word in re.findall(r"\d[\d,.]*", line)]


def test_page__has_what_each_batch_took() -> None:
    """The table of batches is that of the probe's windows, row by row."""
    table = re.findall(r"^\| \d+ \|.*$", SOURCES, re.MULTILINE)
    found = [
        [span.batch, span.joules / span.seconds, span.tokens[2] / span.seconds]
        for span in sorted(SPANS, key=lambda it: it.batch)
        if span.kind == "decode"
    ]
    joules = [
        span.joules / span.tokens[2]
        for span in sorted(SPANS, key=lambda it: it.batch)
        if span.kind == "decode"
    ]
    assert [_numbers(row)[:3] for row in table] == [
        [round(value) for value in row] for row in found
    ]
    assert [_numbers(row)[3] for row in table] == [round(value, 4) for value in joules]
    assert f"{joules[0] / joules[-1]:.0f} times less" in SOURCES


def test_page__has_what_a_prompt_took() -> None:
    """Prompt tokens took what the page says, from the smallest batch to the largest."""
    spans = [span for span in SPANS if span.kind == "prefill"]
    took = [1000 * span.joules / span.tokens[0] for span in spans]
    speeds = [span.tokens[0] / span.seconds for span in spans]
    assert f"took {min(took):.0f} to {max(took):.0f} mJ" in SOURCES
    low, high = round(min(speeds), -3), round(max(speeds), -3)
    assert f"at {low:,.0f} to {high:,.0f} a second" in SOURCES


def test_page__has_how_far_gauges_err() -> None:
    """The errors of a gauge that is read now and then are those of the trace."""
    readings = Readings.load(H100 / "trace.csv")
    for seconds in (15, 30):
        low, high = sampling_errors(readings, "power_mw", period_ms=1000 * seconds)
        told = f"{low * 100:.0f} to {high * 100:+.0f} % read every {seconds} s"
        assert told.replace("-", MINUS) in SOURCES


def test_page__has_how_the_counter_steps() -> None:
    """The counter steps ten times a second, by what the page says."""
    idle, steady = (steps(H100 / f"steps_{name}.csv") for name in ("idle", "steady"))
    assert idle.startswith("100.0 ms (97.9 to 102.3), 12,138 mJ")
    assert steady.startswith("100.0 ms (96.5 to 103.3), 56,227 mJ")


def test_page__has_what_idle_takes() -> None:
    """Idle power is that of the recorded phases."""
    facts = json.loads((H100 / "facts.json").read_text("utf-8"))
    watts = {phase["name"]: phase["watts"] for phase in facts["phases"]}
    unwatched, watched = watts["idle, unwatched"], watts["idle, watched"]
    assert f"{unwatched:.1f} W unwatched and {watched:.1f} W with three reads" in SOURCES
    opened, loaded = watts["idle, context"], watts["idle, loaded"]
    assert f"{opened:.0f} to {loaded:.0f} W as soon as one has opened it" in SOURCES
    resting = [span.joules / span.seconds for span in SPANS if not span.batch]
    assert f"{min(resting):.0f} to {max(resting):.0f} W with a model loaded" in SOURCES
    assert f"idle ({IDLE_WATTS:.0f} W)" in WEIGHTS


@pytest.mark.parametrize(
    ("weights", "low", "high", "told"),
    [
        ((0, 0, 1), 16, 256, 37),
        ((0, 0, 1), 16, 64, 36),
        ((1, 0, 1), 16, 256, 21),
        ((1, 0, 1), 16, 64, 23),
        ((0.31, 0.002, 1), 16, 256, 13),
        ((0.21, 0.0014, 1), 16, 64, 10),
    ],
)
def test_decision__has_what_weights_get_wrong(
    weights: tuple[float, ...], low: int, high: int, told: int
) -> None:
    """Each cell of the decision's table is what these weights get wrong."""
    assert round(100 * _wrong(weights, low=low, high=high)) == told
    name = " : ".join(f"{weight:g}" for weight in weights)
    (row,) = re.findall(rf"^\| {re.escape(name)} .*$", WEIGHTS, re.MULTILINE)
    assert f"{told} %" in row


@pytest.mark.parametrize(
    ("low", "high", "told"), [(16, 256, "0.31 : 0.002"), (16, 64, "0.21 : 0.0014")]
)
def test_decision__has_the_weights_of_least_squares(low: int, high: int, told: str) -> None:
    """The calibrated weights are those of a solver of others."""
    (inputs, cached, output), _ = nnls(*_of_batches(low, high))
    assert f"{inputs / output:.2g} : {cached / output:.1g}" == told or (
        f"{inputs / output:.2g} : {cached / output:.2g}" == told
    )
    assert told in WEIGHTS


def test_decision__has_what_a_free_constant_swallows() -> None:
    """Fitted with a free constant, idle power comes out several times too high."""
    constants = []
    for low in (1, 8, 16, 32):
        spans = [span for span in SPANS if span.batch >= low]
        columns = np.array([(span.seconds, *span.tokens) for span in spans], float)
        constants.append(nnls(columns, np.array([span.joules for span in spans]))[0][0])
    assert f"found {_rounded(constants)} W" in WEIGHTS


def _rounded(values: Iterable[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"
