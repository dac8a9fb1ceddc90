"""Pages of engines: each engine's names, models and ranks, and what makes no sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.limits import ENGINE_PAGE_SERIES_MAX, ENGINE_TOKENS_MAX
from meter.engine_drift import TokenKind
from meter.engines.page import EnginePage, read_page
from meter.engines.profiles import PROFILES
from tests.engine_page import MODEL, EngineProcess

PROMPT, UNCACHED, OUTPUT = TokenKind.PROMPT, TokenKind.UNCACHED_PROMPT, TokenKind.OUTPUT


def tokens_of(page: EnginePage) -> dict[tuple[str, TokenKind], int]:
    """Return the sums by model and kind."""
    sums: dict[tuple[str, TokenKind], int] = {}
    for it in page.counters.values():
        sums[it.model, it.kind] = sums.get((it.model, it.kind), 0) + it.tokens
    return sums


@pytest.mark.parametrize(
    ("profile", "names", "labels", "model", "kind"),
    [
        (
            "vllm/1",
            ("vllm:prompt_tokens", "vllm:generation_tokens"),
            ("model_name", "engine"),
            MODEL,
            PROMPT,
        ),
        (
            "sglang/1",
            ("sglang:prompt_tokens", "sglang:generation_tokens"),
            ("model_name",),
            MODEL,
            PROMPT,
        ),
        (
            "trtllm/1",
            ("trtllm_prompt_tokens", "trtllm_generation_tokens"),
            ("model_name",),
            MODEL,
            PROMPT,
        ),
        ("llamacpp/1", ("llamacpp:prompt_tokens", "llamacpp:tokens_predicted"), (), "", UNCACHED),
    ],
)
def test_read_page__of_each_engine(
    profile: str, names: tuple[str, str], labels: tuple[str, ...], model: str, kind: TokenKind
) -> None:
    """An engine is known by its own names; histograms and gauges beside them are passed over."""
    process = EngineProcess(names=names, labels=labels)
    process.serve(prompt=1_282_888, output=337)
    page = read_page(process.page().decode())
    assert (page.profile, page.unreadable_count) == (profile, 0)
    assert tokens_of(page) == {(model, kind): 1_282_888, (model, OUTPUT): 337}


def test_read_page__ranks_and_models() -> None:
    """Each model and rank of a replica has a series of its own."""
    process = EngineProcess()
    for engine, count in (("0", 3), ("1", 4)):
        process.serve(prompt=count, output=10 * count, engine=engine)
    process.serve(prompt=5, output=50, model="other")
    page = read_page(process.page().decode())
    assert len(page.counters) == 6
    assert tokens_of(page) == {
        (MODEL, PROMPT): 7,
        (MODEL, OUTPUT): 70,
        ("other", PROMPT): 5,
        ("other", OUTPUT): 50,
    }


def test_read_page__before_anything_is_counted() -> None:
    """An engine is known by its other metrics until it has counted something."""
    page = read_page("# TYPE x gauge\nsglang:num_running_reqs 0\n")
    assert page == EnginePage(profile="sglang/1", counters={})
    assert read_page("DCGM_FI_DEV_POWER_USAGE 5\n<html>").profile == ""


def test_read_page__model_that_is_not_known() -> None:
    """A label that says nothing is no model."""
    page = read_page('trtllm_prompt_tokens_total{model_name="undefined"} 5')
    assert tokens_of(page) == {("", PROMPT): 5}


@pytest.mark.parametrize(
    "line",
    [
        "vllm:prompt_tokens_total",
        'vllm:prompt_tokens_total{model_name="a"',
        "vllm:prompt_tokens_total NaN",
        "vllm:prompt_tokens_total -1",
        "vllm:prompt_tokens_total +Inf",
        f"vllm:prompt_tokens_total {2 * ENGINE_TOKENS_MAX}",
        'vllm:prompt_tokens_total{model_name="' + "m" * 129 + '"} 5',
        'vllm:prompt_tokens_total{x="' + "x" * 5_000 + '"} 5',
    ],
)
def test_read_page__no_sense(line: str) -> None:
    """What makes no sense is counted as such, and is no token."""
    page = read_page(f"{line}\nvllm:generation_tokens_total 7\n")
    assert (page.unreadable_count, tokens_of(page)) == (1, {("", OUTPUT): 7})


def test_read_page__bounded() -> None:
    """A page has no more counters than a replica ever has."""
    lines = (f'vllm:prompt_tokens_total{{model_name="{n}"}} 1' for n in range(1_030))
    page = read_page("\n".join(lines))
    assert len(page.counters) == ENGINE_PAGE_SERIES_MAX
    assert page.unreadable_count == 1_030 - ENGINE_PAGE_SERIES_MAX


@given(st.text(), st.sampled_from([name for it in PROFILES for name in it.counters]))
def test_read_page__any_text(text: str, name: str) -> None:
    """Whatever a page is, it is read or counted as unreadable."""
    page = read_page(f"{name}{text}")
    assert all(0 <= it.tokens <= ENGINE_TOKENS_MAX for it in page.counters.values())
