"""What a page is made of."""

from collections.abc import Iterable
from typing import Final

_MADE: Final = "<!-- Made by `make docs`: change {source} instead. -->"


def make_page(title: str, *, source: str, body: Iterable[str]) -> str:
    """Return a page, which says from what it is made."""
    return "\n\n".join([f"# {title}", _MADE.format(source=source), *body]) + "\n"


def make_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(_row(cells) for cells in (head, ("---",) * len(head), *rows))


def codes(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
