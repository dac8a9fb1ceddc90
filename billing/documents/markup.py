"""HTML that cannot be broken by what it says: a text is escaped, only what was made here is not."""

from html import escape
from typing import Final

from billing.documents.format import printable

# Whose children stand on lines of their own.
_BLOCKS: Final = frozenset(
    {"html", "head", "body", "main", "header", "section", "footer", "dl", "div"}
    | {"table", "colgroup", "thead", "tbody", "tfoot"}
)
_VOID: Final = frozenset({"meta", "col"})


class Markup(str):
    """HTML that is ready."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str) -> Markup:
    """Return an element; content that is no `Markup` is text. `class_` is the attribute `class`.

    Names of elements and attributes are the caller's own words.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for key, value in attributes.items()
        if value
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    parts = [it if isinstance(it, Markup) else escape(printable(it)) for it in content if it]
    between = "\n" if name in _BLOCKS else ""
    inside = between.join(parts)
    return Markup(f"<{name}{written}>{between}{inside}{between}</{name}>")


def css_text(text: str) -> str:
    """Return a text as a string of CSS, in which nothing ends the string or its style sheet."""
    return '"' + "".join(it if _is_plain(it) else f"\\{ord(it):x} " for it in text) + '"'


def _is_plain(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in " -.,")
