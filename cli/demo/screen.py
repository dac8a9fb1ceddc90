"""The demo's screen: results on stdout, progress on stderr, at most 100 columns."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import click

COLUMNS: Final = 100
_BAR_CELLS: Final = 32
_ERASE_LINE: Final = "\r\x1b[K"
# Without a terminal, so many lines of progress are enough.
_LINES: Final = 8


class Screen:
    """Prints; one line of progress is kept below the results where there is a terminal."""

    def __init__(self, *, event_count: int) -> None:
        """Take how many requests there will be."""
        self._event_count = event_count
        self._is_terminal = sys.stderr.isatty()
        self._is_drawn = False
        self._line_due = 0
        self._acknowledged = 0
        self._day = ""

    def line(self, text: str = "") -> None:
        """Print a line of the results."""
        self._erase()
        click.echo(text)
        self._draw()

    def section(self, title: str) -> None:
        """Print a heading."""
        self.line()
        self.line(f"── {title} ".ljust(COLUMNS, "─"))
        self.line()

    def on_date(self, time: datetime, text: str) -> None:
        """Print what happened on a day of the story; further lines stand below."""
        first, _, others = text.partition("\n")
        self.line(f"{time.day:>4} {time:%b}   {first}")
        if others:
            self.below(others)

    def below(self, text: str) -> None:
        """Print more of what happened on the day that was named last."""
        for row in text.split("\n"):
            self.line(f"{'':<11}{row}")

    def shell(self, command: str, output: str) -> None:
        """Print a command as an operator types it, and what it printed."""
        self.line(f"$ tokenworks {command}")
        self.line()
        rows = [row.rstrip() for row in output.splitlines()]
        while rows and not rows[0]:
            del rows[0]
        while rows and not rows[-1]:
            del rows[-1]
        for row in rows:
            self.line(row)

    def table(self, rows: Sequence[Sequence[str]], *, left: int) -> None:
        """Print rows in columns, the first of them a head; `left` columns are words."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [
                cell.ljust(width) if place < left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.line(f"  {'   '.join(cells)}".rstrip())

    def note(self, text: str) -> None:
        """Say on stderr what is being done."""
        self._erase()
        click.echo(text, err=True)
        self._draw()

    def advance(self, *, acknowledged: int | None = None, day: datetime | None = None) -> None:
        """Show on stderr how far the month is."""
        self._acknowledged = acknowledged if acknowledged is not None else self._acknowledged
        self._day = f"{day.day:>2} {day:%b}" if day is not None else self._day
        if self._is_terminal:
            self._draw()
        elif self._day and self._acknowledged >= self._line_due:
            click.echo(self._progress(), err=True)
            self._line_due += self._event_count // _LINES

    def settle(self) -> None:
        """Take the line of progress away."""
        self._erase()
        self._day = ""

    def _draw(self) -> None:
        if self._is_terminal and self._day:
            click.echo(f"{_ERASE_LINE}{self._progress()}", nl=False, err=True)
            self._is_drawn = True

    def _erase(self) -> None:
        if self._is_drawn:
            click.echo(_ERASE_LINE, nl=False, err=True)
            self._is_drawn = False

    def _progress(self) -> str:
        cells = _BAR_CELLS * self._acknowledged // self._event_count
        bar = "█" * cells + "░" * (_BAR_CELLS - cells)
        counts = f"{self._acknowledged:,} of {self._event_count:,} requests acknowledged"
        return f"  {self._day}   {bar}   {counts}"
