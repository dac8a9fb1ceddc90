"""Usage as a table: a column for each token class that occurs, or a line where that is too wide."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.usage.energy import find_unit, sign_of, write_energy
from cli.usage.query import TOKEN_CLASSES

# Wide enough for any table: what is piped into another program is neither cut nor wrapped.
_PIPED_COLUMNS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One row of sums; `keys` are as many texts as the table is split by.

    `energy_mj` is None where none is known.
    """

    keys: tuple[str, ...]
    tokens: dict[str, int]
    request_count: int
    unfinished_count: int
    estimated_count: int
    energy_mj: int | None


def print_usage(by: Sequence[str], lines: Sequence[UsageLine]) -> None:
    """Print the lines and their total, in the widest form that fits the terminal."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)
    total = _sum(lines)
    candidates = (
        _by_column(by, lines, total=total, separator=separator, gap=gap)
        for separator, gap in ((" ", 3), ("\n", 3), ("\n", 2))
    )
    table = next((each for each in candidates if _width(each, console) <= console.width), None)
    console.print(table or _by_line(by, lines, total=total))
    if total.unfinished_count:
        console.print(
            f"{total.unfinished_count:,} of {total.request_count:,} requests were cancelled or"
            " failed",
            highlight=False,
        )
    if total.estimated_count:
        console.print(
            f"{total.estimated_count:,} tokens are partial or estimated counts", highlight=False
        )


def _by_column(
    by: Sequence[str], lines: Sequence[UsageLine], *, total: UsageLine, separator: str, gap: int
) -> Table:
    padding = (0, 1, 0, gap - 2)
    table = Table(box=SIMPLE, pad_edge=False, show_footer=True, padding=padding)
    for place, name in enumerate(by):
        table.add_column(
            _title(name, separator), footer="" if place else "total", vertical="bottom"
        )
    for name, count in total.tokens.items():
        _add_count(table, _title(name, separator), footer=f"{count:,}")
    _add_count(table, "requests", footer=f"{total.request_count:,}")
    _add_energy(table, total, separator=separator)
    for line in lines:
        counts = [line.tokens.get(name, 0) for name in total.tokens]
        table.add_row(
            *map(Text, line.keys),
            *(f"{count:,}" for count in (*counts, line.request_count)),
            *_energy_cells(line, total=total),
        )
    return table


def _by_line(by: Sequence[str], lines: Sequence[UsageLine], *, total: UsageLine) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, show_footer=True, padding=(0, 1, 0, 0))
    for place, name in enumerate(by):
        table.add_column(_title(name, " "), footer="" if place else "total", overflow="fold")
    table.add_column("class", footer="\n".join(_title(name, " ") for name in total.tokens))
    _add_count(table, "tokens", footer="\n".join(f"{count:,}" for count in total.tokens.values()))
    _add_count(table, "requests", footer=f"{total.request_count:,}")
    _add_energy(table, total, separator=" ")
    for line in lines:
        table.add_row(
            *map(Text, line.keys),
            "\n".join(_title(name, " ") for name in line.tokens),
            "\n".join(f"{count:,}" for count in line.tokens.values()),
            f"{line.request_count:,}",
            *_energy_cells(line, total=total),
        )
    return table


def _add_energy(table: Table, total: UsageLine, *, separator: str) -> None:
    """Add the column of energy where any is known."""
    if total.energy_mj is not None:
        unit = find_unit(total.energy_mj)
        title = f"energy{separator}({sign_of(unit)})"
        _add_count(table, title, footer=write_energy(total.energy_mj, unit=unit))


def _energy_cells(line: UsageLine, *, total: UsageLine) -> list[str]:
    if total.energy_mj is None:
        return []
    return [write_energy(line.energy_mj, unit=find_unit(total.energy_mj))]


def _add_count(table: Table, title: str, *, footer: str) -> None:
    table.add_column(title, footer=footer, justify="right", no_wrap=True)


def _width(table: Table, console: Console) -> int:
    """Return how wide the table is when nothing in it is broken."""
    return console.measure(table, options=console.options.update(width=_PIPED_COLUMNS)).maximum


def _title(name: str, separator: str) -> str:
    return name.replace("_", " ").replace(" ", separator, 1)


def _sum(lines: Sequence[UsageLine]) -> UsageLine:
    """Return the total; its token classes are all that occur, in the order of their numbers."""
    tokens: dict[str, int] = {}
    for line in lines:
        for name, count in line.tokens.items():
            tokens[name] = tokens.get(name, 0) + count
    known = [line.energy_mj for line in lines if line.energy_mj is not None]
    order = {name: place for place, name in enumerate(TOKEN_CLASSES.values())}
    return UsageLine(
        keys=(),
        tokens=dict(sorted(tokens.items(), key=lambda item: order.get(item[0], len(order)))),
        request_count=sum(line.request_count for line in lines),
        unfinished_count=sum(line.unfinished_count for line in lines),
        estimated_count=sum(line.estimated_count for line in lines),
        energy_mj=sum(known) if known else None,
    )
