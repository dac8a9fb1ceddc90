"""Where the values of a TOML text stand: the line of each table, of each key, of each list's item.

`tomllib` says what a text means, but only of an error where it is. This reads the same text once
more, in the one respect of lines, and relies on that it is TOML: `find_lines` is for a text that
`tomllib` has accepted. `find_too_deep` comes before, since `tomllib` itself goes as deep as a text
asks it to.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

# The keys from the top down, and the indexes of a list's items.
TomlPath = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r"""
      (?P<newline> \n )
    | (?P<blank>   [ \t\r]+ | \#[^\n]* )
    | (?P<string>  \"{3} (?: \\. | [^\\] )*? \"{3} \"{0,2}
                 | '{3} .*? '{3} '{0,2}
                 | " (?!"") (?: \\. | [^"\\\n] )* "
                 | ' (?!'') [^'\n]* ' )
    | (?P<bare>    [A-Za-z0-9_-]+ )
    | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
# What stands for itself between strings and bare words; anything else there is no TOML.
_MARKS: Final = frozenset("[]{}=,.:+")
_SCALAR_ENDS: Final = frozenset({"\n", ",", "]", "}", ""})


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def find_too_deep(text: str, *, nesting_max: int) -> int | None:
    """Return the first line, from 1, with more brackets in brackets or parts of a key; or None."""
    depth = parts = 0
    is_after_dot = False
    for token in _tokens(text):
        if token.text in ("[", "{"):
            depth += 1
        elif token.text in ("]", "}"):
            depth -= 1
        if token.kind in ("bare", "string"):
            parts = parts + 1 if is_after_dot else 1
        is_after_dot = token.text == "."
        if max(depth, parts) > nesting_max:
            return token.line
    return None


def find_end(text: str) -> int:
    """Return the line, from 1, of a character that is no TOML, such as a quote without another.

    It is the last line when there is none.
    """
    line = 1
    for token in _tokens(text):
        line = token.line
    return line


def find_lines(text: str) -> Mapping[TomlPath, int]:
    """Return the line, from 1, of each path of a text that is TOML.

    A table is at its header, or where a key first goes through it; a value at its key; a list's
    item at its begin, and is left out where that is the line of the list.
    """
    finder = _Finder(text)
    finder.read()
    return finder.lines


class _Finder:
    """Goes through the tokens once, one ahead."""

    def __init__(self, text: str) -> None:
        self.lines: dict[TomlPath, int] = {}
        # The index of the last table of each list of tables that has headers.
        self._last: dict[TomlPath, int] = {}
        self._tokens = _tokens(text)
        self._token = next(self._tokens)

    def read(self) -> None:
        table: TomlPath = ()
        while self._token.text:
            if self._token.text == "\n":
                self._take()
            elif self._token.text == "[":
                table = self._read_header()
            else:
                self._read_pair(table)

    def _read_header(self) -> TomlPath:
        line = self._take().line
        is_of_list = self._token.text == "["
        if is_of_list:
            self._take()
        *above, last = self._read_key()
        path: TomlPath = ()
        for key in above:
            path = (*path, key)
            if path in self._last:
                path = (*path, self._last[path])
        path = (*path, last)
        self._take()
        if is_of_list:
            self._take()
            self._last[path] = self._last.get(path, -1) + 1
            path = (*path, self._last[path])
        self._note(path, line)
        return path

    def _read_pair(self, table: TomlPath) -> None:
        line = self._token.line
        path = (*table, *self._read_key())
        self._note(path, line)
        self._take()
        self._read_value(path, line)

    def _read_value(self, path: TomlPath, line: int) -> None:
        opening = self._token.text
        if opening == "[":
            self._take()
            self._read_items(path, line)
        elif opening == "{":
            self._take()
            while self._token.text != "}":
                if self._token.text == ",":
                    self._take()
                else:
                    self._read_pair(path)
            self._take()
        else:
            while self._token.text not in _SCALAR_ENDS:
                self._take()

    def _read_items(self, path: TomlPath, line: int) -> None:
        index = 0
        while self._token.text != "]":
            if self._token.text in ("\n", ","):
                self._take()
                continue
            if self._token.line != line:
                self.lines[(*path, index)] = self._token.line
            self._read_value((*path, index), self._token.line)
            index += 1
        self._take()

    def _read_key(self) -> list[str]:
        keys = [_to_key(self._take())]
        while self._token.text == ".":
            self._take()
            keys.append(_to_key(self._take()))
        return keys

    def _note(self, path: TomlPath, line: int) -> None:
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line

    def _take(self) -> _Token:
        """Return the token and go on to the next one."""
        token = self._token
        self._token = next(self._tokens)
        return token


def _tokens(text: str) -> Iterator[_Token]:
    """Yield all tokens that say something, and a last empty one; stop where it is no TOML."""
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        assert kind is not None
        if kind == "mark" and match[0] not in _MARKS:
            break
        if kind != "blank":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")
    yield _Token("end", "", line)


def _to_key(token: _Token) -> str:
    if token.kind == "bare":
        return token.text
    key = tomllib.loads(f"key = {token.text}")["key"]
    assert isinstance(key, str)
    return key
