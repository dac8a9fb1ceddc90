"""What engines' own pages really looked like, read as counters.

The pages in `tests/fixtures/seen` are the engines' own, of vLLM and SGLang the lines around those
that are read. Their sums are what callers were told of the requests before, by the steps of
`tests.stacks.counters`; llama.cpp's are of three requests.
"""

from pathlib import Path

import pytest

from meter.engine_drift import TokenKind
from meter.engines.page import EnginePage, read_page
from tests.meter.engines.test_page import tokens_of

SEEN = Path(__file__).parents[2] / "fixtures/seen"
PROMPT, UNCACHED, OUTPUT = TokenKind.PROMPT, TokenKind.UNCACHED_PROMPT, TokenKind.OUTPUT


@pytest.mark.parametrize(
    ("name", "profile", "series", "tokens"),
    [
        ("vllm-0.32.0", "vllm/1", 2, {("tiny", PROMPT): 1_544, ("tiny", OUTPUT): 68}),
        # Streams have series of their own.
        ("sglang-0.5.23", "sglang/1", 4, {("tiny", PROMPT): 1_566, ("tiny", OUTPUT): 66}),
        ("llamacpp-2026.10.11549", "llamacpp/1", 2, {("", UNCACHED): 374, ("", OUTPUT): 21}),
    ],
)
def test_read_page__of_what_was_seen(
    name: str, profile: str, series: int, tokens: dict[tuple[str, TokenKind], int]
) -> None:
    """Each counter is read once, and nothing of what stands beside it and is named alike."""
    page = read_page((SEEN / f"{name}-page.txt").read_text("utf-8"))
    assert (page.profile, page.unreadable_count, len(page.counters)) == (profile, 0, series)
    assert tokens_of(page) == tokens


def test_read_page__of_an_sglang_that_has_served_nothing() -> None:
    """It shows no counter of tokens yet, and is known for what it is."""
    page = read_page((SEEN / "sglang-0.5.23-new-page.txt").read_text("utf-8"))
    assert page == EnginePage(profile="sglang/1", counters={})
