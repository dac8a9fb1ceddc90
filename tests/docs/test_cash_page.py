"""The guide from contract to cash: each command is typed, each number on it is worked out."""

import re
import shlex
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final

import click
import pytest
from click.testing import CliRunner

from cli.main import tokenworks
from tests.docs.test_docs import BLOCK, ROOT, Reader

PAGE: Final = (ROOT / "docs/cash.md").read_text("utf-8")
PROSE: Final = BLOCK.sub("", PAGE).replace("**", "")
SAVED: Final = re.compile(r"Save this as `(\S+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER: Final = r"\d[\d,]*(?:\.\d+)?"
MINUS: Final = "\N{MINUS SIGN}"
EQUATION: Final = re.compile(rf"({NUMBER}(?: [×+{MINUS}] {NUMBER})+) = ({NUMBER})")
ROUNDED: Final = re.compile(rf"({NUMBER}) → ({NUMBER})")
# The clock is driven, so times are those of the page; what is other at each run is this.
PLACEHOLDERS: Final = {
    # What is told on stderr: the line of a sandbox, and progress where a step takes a second.
    r"^(?:SANDBOX: this installation|audit: \d|replay: \d).*": "",
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": "UUID",
    r"\bkey_\w{12,}": "KEY",
    r"\S+\.pdf: [\d,]+ bytes": "PDF",
    r"Postgres [\d.]+,": "POSTGRES",
    r"\([\d.]+ s, [\d.]+ M events/s\)": "SPEED",
    r"^ok space .*": "SPACE",
    r"^ok connections .*": "CONNECTIONS",
    r"held by \S+ for [\d.]+ s more": "HELD",
}
TRIES_MAX: Final = 100


class CashReader(Reader):
    """Somebody who types the page, in two terminals that begin in the same folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self._home = folder
        self._monkeypatch = monkeypatch

    def type(self, line: str, *, expected: str | None) -> str:
        """Run a line; what needs no shell runs in this process, which is much faster."""
        if line.startswith("cd "):
            self._folder = self._home / line.removeprefix("cd ")
            self._monkeypatch.chdir(self._folder)
            return ""
        words = shlex.split(line)
        if words[0] != "tokenworks" or "|" in words:
            return super().type(line, expected=expected)
        for _ in range(TRIES_MAX):
            result = CliRunner().invoke(tokenworks, words[1:], prog_name="tokenworks")
            # Counting follows recording by a moment.
            if words[1:3] != ["usage", "show"] or shape(result.output) in shape(expected or ""):
                break
        assert not result.exit_code or "Error: " in (expected or ""), (line, result.output)
        return result.output


def shape(text: str) -> str:
    """What was printed, without what is other at each run, blank space and drawn lines."""
    lines = [" ".join(re.sub("[─━┄]", " ", line).split()) for line in text.splitlines()]
    for pattern, placeholder in PLACEHOLDERS.items():
        lines = [re.sub(pattern, placeholder, line) for line in lines]
    return "\n".join(line for line in lines if line)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CashReader]:
    """A reader, whose meter is stopped at the end."""
    reader = CashReader(tmp_path, monkeypatch)
    yield reader
    reader.stop()


@pytest.mark.stacks
def test_page__does_what_it_says(reader: CashReader) -> None:
    """Each command of the page works, and prints what the page shows, to the cent."""
    saved = dict(SAVED.findall(PAGE))
    blocks = BLOCK.findall(PAGE)
    printed, shown_count = "", 0
    for place, (language, content) in enumerate(blocks):
        following = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
        expected = following[1] if following[0] == "text" else None
        if language == "sh":
            lines = content.splitlines()
            printed = "".join(reader.type(line, expected=expected) for line in lines)
        elif language == "text":
            assert shape(printed) == shape(content)
            shown_count += 1
        else:
            reader.save(next(name for name, text in saved.items() if text == content), content)
    assert shown_count == 26


def test_commands__are_there() -> None:
    """Each command of the page is one that there is, with the options that it is given."""
    lines = [line for language, block in BLOCK.findall(PAGE) for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("tokenworks ")]
    assert len(commands) == 51
    for typed in commands:
        words = typed[: typed.index("|")] if "|" in typed else typed
        context = click.Context(tokenworks, info_name="tokenworks")
        rest = words[1:]
        while isinstance(context.command, click.Group):
            below = context.command.get_command(context, rest[0])
            assert below is not None, words
            context, rest = click.Context(below, parent=context, info_name=rest[0]), rest[1:]
        options = {name for it in context.command.params for name in it.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_equations__hold() -> None:
    """Each equation of the page is exact, and each rounding halves away from zero."""
    equations, rounded = EQUATION.findall(PROSE), ROUNDED.findall(PROSE)
    assert (len(equations), len(rounded)) == (39, 7)
    for left, right in equations:
        assert _work_out(left) == Fraction(right.replace(",", "")), (left, right)
    for exact, cents in rounded:
        assert Decimal(exact).quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal(cents)


def test_totals__are_those_of_the_documents() -> None:
    """What the page works out is what its documents say."""
    shown = "\n".join(content for language, content in BLOCK.findall(PAGE) if language == "text")
    for total in re.findall(r"= \*\*([\d.]+)\*\*", PAGE):
        assert re.search(rf"(?<![\d.]){re.escape(total)}(?![\d.])", shown), total


def _work_out(expression: str) -> Fraction:
    """The exact value of numbers joined by times, plus and minus; times binds first."""
    value = Fraction(0)
    for sign, term in re.findall(rf"(^|[+{MINUS}] )([^+{MINUS}]+)", expression):
        product = Fraction(1)
        for number in re.findall(NUMBER, term):
            product *= Fraction(number.replace(",", ""))
        value += -product if sign.startswith(MINUS) else product
    return value
