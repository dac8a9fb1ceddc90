"""TOML as a person writes it: the line of everything, all faults at once, and hostile texts."""

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.limits import FAULTS_MAX, FILE_CHARS_MAX, NESTING_MAX
from meter.toml_file import Fault, FileFaults, TomlFile, quote, to_place
from meter.toml_lines import TomlPath, find_lines, find_too_deep
from tests.billing import generated_books

EXAMPLE = '''\
# a comment with a "quote and [brackets
top = 1  # = 2
"quoted key" = """
two
lines\\"""
""" # the end
'literal.key' = QQQ
[not.a.table]
it's ''no'' endQQQ
a.b . "c.d" = { x = 1, y = { z = [1, 2] } }
list = [
  1, # ]
  # a comment

  "]", [
    2,
    3,
  ], { in = 1 },
]
time = 2026-10-01 00:00:00
number = +1.5e-3

[table]
key = QQQ[x]QQQ
[ "table" . below ]
deep.key = 1
[[row]]
n = 1
[row.of]
n = 2
[[row]]
n = 3
[[row.inner]]
n = 4
[[row.inner]]
n = 5
[row.inner.last]
n = 6
'''.replace("QQQ", "'''")
LINES: dict[TomlPath, int] = {
    ("top",): 2,
    ("quoted key",): 3,
    ("literal.key",): 7,
    ("a",): 10,
    ("a", "b", "c.d"): 10,
    ("a", "b", "c.d", "y", "z"): 10,
    ("list",): 11,
    ("list", 1): 15,
    ("list", 2): 15,
    ("list", 2, 0): 16,
    ("list", 2, 1): 17,
    ("list", 3): 18,
    ("list", 3, "in"): 18,
    ("time",): 20,
    ("number",): 21,
    ("table",): 23,
    ("table", "key"): 24,
    ("table", "below"): 25,
    ("table", "below", "deep"): 26,
    ("row", 0): 27,
    ("row", 0, "n"): 28,
    ("row", 0, "of"): 29,
    ("row", 0, "of", "n"): 30,
    ("row", 1): 31,
    ("row", 1, "n"): 32,
    ("row", 1, "inner", 0): 33,
    ("row", 1, "inner", 0, "n"): 34,
    ("row", 1, "inner", 1): 35,
    ("row", 1, "inner", 1, "n"): 36,
    ("row", 1, "inner", 1, "last"): 37,
    ("row", 1, "inner", 1, "last", "n"): 38,
}


def test_find_lines__each_form() -> None:
    """Each table, key and item has the line that it is written in, in each form that TOML has."""
    found = find_lines(EXAMPLE)
    assert {path: found[path] for path in LINES} == LINES
    assert tomllib.loads(EXAMPLE)["list"][3] == {"in": 1}


def test_find_lines__windows_line_ends() -> None:
    """Lines are counted alike whatever they end in."""
    assert find_lines(EXAMPLE.replace("\n", "\r\n")) == find_lines(EXAMPLE)


@given(generated_books.BOOKS, generated_books.STYLES)
def test_find_lines__no_value_is_without(document: dict[str, Any], style: Any) -> None:  # noqa: ANN401
    """In whatever style a document is written, each value's line has its key or its header."""
    text = generated_books.to_toml(document, style=style)
    assert tomllib.loads(text) == document
    lines, rows = find_lines(text), text.splitlines()
    for path, value in _leaves(document):
        place = path
        while place not in lines:
            place = place[:-1]
        row = rows[lines[place] - 1]
        key = next(it for it in reversed(place) if isinstance(it, str))
        assert generated_books.to_key(key) in row or str(value) in row


def test_find_too_deep__counts_brackets_and_keys() -> None:
    """Brackets in brackets and parts of keys are counted, those in texts and comments are not."""
    assert find_too_deep("a = [[[1]]]\nb.c.d = 1", nesting_max=3) is None
    assert find_too_deep("x = 1\na = [[[[1]]]]", nesting_max=3) == 2
    assert find_too_deep("x = 1\n\na.b.'c'.\"d\" = 1", nesting_max=3) == 3
    assert find_too_deep("[a.b.c.d]", nesting_max=3) == 1
    assert find_too_deep('a = \'[[[[\'\n# [[[[\nb = """\n[[[["""', nesting_max=3) is None
    assert find_too_deep("a = [[1], [2], [3], [4]]", nesting_max=3) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1\nb = [\n", Fault(3, "", "no TOML: Invalid value")),
        ("a = 1\n\na = 2\n", Fault(3, "", "no TOML: Cannot overwrite a value")),
        ("a = 1\nb = 'x\n\nc = 1", Fault(2, "", "no TOML: Expected")),
        ('a = 1\nb = "x\n\nc = 1', Fault(2, "", "no TOML: Illegal character")),
        ('a = 1\nb = """x\n\n', Fault(2, "", "no TOML: Unterminated string")),
        ("[a]\n[b]\n[a]\n", Fault(3, "", "no TOML: Cannot declare")),
        ("a = 2026-02-30\n", Fault(1, "", "no TOML: Invalid date or datetime")),
        ("a = 1 b = 2", Fault(1, "", "no TOML: Expected newline")),
        ("\x00", Fault(1, "", "no TOML: Invalid statement")),
        ("a = 1\nb = " + "9" * 5000, Fault(2, "", "a number is too long")),
        ("a" * (FILE_CHARS_MAX + 1), Fault(1, "", "longer than 1,048,576 characters")),
        ("x = 1\na = " + "[" * 100_000, Fault(2, "", "nested in more than 8 levels")),
        ("x = 1\n" + "a." * 100_000 + "b = 1", Fault(2, "", "nested in more than 8 levels")),
        ("[" + "a." * 100_000 + "b]", Fault(1, "", "nested in more than 8 levels")),
        ("a = " + "{a = " * 9 + "1", Fault(1, "", "nested in more than 8 levels")),
    ],
)
def test_toml_file__no_toml(text: str, fault: Fault) -> None:
    """What is no TOML, too long or too deep is one fault, in its line."""
    with pytest.raises(FileFaults) as caught:
        TomlFile(text)
    (found,) = caught.value.faults
    assert found[:2] == fault[:2]
    assert found.message.startswith(fault.message)


@pytest.mark.parametrize(
    "text",
    [
        '"""\\" ' * 100_000,
        "'''" * 99_999,
        '\\"""' * 100_000,
        "a = 'x" * 100_000,
        "[" * NESTING_MAX + "\n" * 500_000,
        "#" * 1_000_000,
        "a = [" + "1," * 200_000 + "]",
        "\n".join(f"[t{place}]\na.b = {{ c = 1 }}" for place in range(20_000)),
        'k = "' + "\\u0041" * 100_000 + '"',
    ],
)
def test_toml_file__hostile_text_comes_to_an_end(text: str) -> None:
    """A text of a megabyte that was made to take for ever is read, or refused."""
    with suppress(FileFaults):
        TomlFile(text)


@given(st.text("ab.=[]{}\"'#\\\n ,1:-+", max_size=40))
def test_toml_file__any_text(text: str) -> None:
    """Any text at all is either TOML, with lines for what it has, or has one fault."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(FileFaults):
            TomlFile(text)
    else:
        TomlFile(text)
        assert {key for key, *_ in find_lines(text)} == set(content)


def test_toml_file__as_long_as_may_be() -> None:
    """A text of the very limit is read."""
    TomlFile("#" * FILE_CHARS_MAX).check()


def test_file_faults__sorted_and_cut() -> None:
    """Faults are told in the order of their lines, each once, the first hundred by themselves."""
    faults = [Fault(line, "b", "wrong") for line in range(FAULTS_MAX + 50, 0, -1)]
    found = FileFaults([*faults, *faults, Fault(1, "", "no TOML"), Fault(1, "a", "wrong")])
    assert found.faults[:3] == (
        *(Fault(1, "", "no TOML"), Fault(1, "a", "wrong"), Fault(1, "b", "wrong")),
    )
    assert (len(found.faults), found.left_off_count) == (FAULTS_MAX, 52)
    rows = found.describe("books/retail.toml").splitlines()
    assert rows[0] == "books/retail.toml:1: no TOML"
    assert rows[1] == "books/retail.toml:1: a: wrong"
    assert rows[-1] == "books/retail.toml: and 52 more faults"
    assert str(FileFaults([Fault(1, "a", "x"), Fault(2, "", "y")])) == "1: a: x\n2: y"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), ""),
        (("models", "glm-5.1", "above", 0, "input"), 'models."glm-5.1".above[0].input'),
        (("a b", 1), '"a b"[1]'),
        (("",), '""'),
        (('say "hi"',), '"say \\"hi\\""'),
        (("two\nlines",), '"two\\nlines"'),
        (("\u202e",), '"\\u202e"'),
        (("é",), '"é"'),
        (("x" * 100,), '"' + "x" * 64 + '…"'),
    ],
)
def test_to_place__is_one_line(path: TomlPath, place: str) -> None:
    """A place is written as a TOML key, on one line, whatever the file's keys are made of."""
    assert to_place(path) == place


def test_quote__is_one_short_line() -> None:
    """What a message quotes is cut, and cannot break the line or turn the letters around."""
    assert quote("a\n\u202eb") == '"a\\n\\u202eb"'
    assert quote("é") == '"é"'
    assert quote("x" * 64) == '"' + "x" * 64 + '"'
    assert quote("x" * 10_000) == '"' + "x" * 64 + '…"'


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"0"', "0"),
        ('"1.40"', "1.40"),
        ('"007"', "7"),
        ('"0.0000000001"', "0.0000000001"),
        (f'"{"9" * 30}.{"9" * 30}"', "9" * 30 + "." + "9" * 30),
    ],
)
def test_decimal__exact(written: str, value: str) -> None:
    """A price is a string of digits, and exactly these digits."""
    file = TomlFile(f"a = {written}")
    table = file.root.table()
    assert table is not None
    assert table.entries["a"].decimal() == Decimal(value)
    file.check()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("1.40", 'is a number, and must be a string to be exact: "1.40"'),
        ("3", 'is a number, and must be a string to be exact: "3"'),
        ("0", 'is a number, and must be a string to be exact: "0"'),
        ("-3", 'is a number, and must be a string such as "1.40"'),
        ("1e3", 'is a number, and must be a string such as "1.40"'),
        ("1_000.5", 'is a number, and must be a string such as "1.40"'),
        ("nan", 'is a number, and must be a string such as "1.40"'),
        ("-inf", 'is a number, and must be a string such as "1.40"'),
        ("9" * 1000, 'is a number, and must be a string such as "1.40"'),
        ("0x" + "f" * 10_000, 'is a number, and must be a string such as "1.40"'),
        ("true", 'is true or false, and must be a string such as "1.40"'),
        ("[]", 'is a list, and must be a string such as "1.40"'),
        ("{}", 'is a table, and must be a string such as "1.40"'),
        ("2026-10-01", 'is a date or a time, and must be a string such as "1.40"'),
        ("10:00:00", 'is a date or a time, and must be a string such as "1.40"'),
        ('"-1.40"', '"-1.40" is negative; it must be 0 or more'),
        ('"-0"', '"-0" is negative; it must be 0 or more'),
        ('""', '"" is no plain decimal such as "1.40"'),
        ('"+1"', '"+1" is no plain decimal'),
        ('"1e3"', '"1e3" is no plain decimal'),
        ('"1."', '"1." is no plain decimal'),
        ('".5"', '".5" is no plain decimal'),
        ('"1,40"', '"1,40" is no plain decimal'),
        ('"1_000"', '"1_000" is no plain decimal'),
        ('" 1"', '" 1" is no plain decimal'),
        ('"1\\n"', '"1\\n" is no plain decimal'),
        ('"NaN"', '"NaN" is no plain decimal'),
        ('"Infinity"', '"Infinity" is no plain decimal'),
        ('"$1.40"', '"$1.40" is no plain decimal'),
        ('"\u0661.40"', "is no plain decimal"),
        (f'"{"9" * 31}"', "has more than 30 digits on one side of the point"),
        (f'"0.{"9" * 31}"', "has more than 30 digits on one side of the point"),
    ],
)
def test_decimal__refused(written: str, message: str) -> None:
    """What is no string of plain digits is no price, and the message says what to write."""
    file = TomlFile(f"a = {written}")
    table = file.root.table()
    assert table is not None
    assert table.entries["a"].decimal() is None
    with pytest.raises(FileFaults) as caught:
        file.check()
    (fault,) = caught.value.faults
    assert fault[:2] == (1, "a")
    assert fault.message.startswith(message) or message in fault.message


def test_truth__refused() -> None:
    """True and false are words of TOML; nothing else is taken for them."""
    file = TomlFile('yes = true\nno = false\none = 1\ntext = "true"')
    entries = file.root.table()
    assert entries is not None
    assert [it.truth() for it in entries.entries.values()] == [True, False, None, None]
    with pytest.raises(FileFaults) as caught:
        file.check()
    assert [it.message for it in caught.value.faults] == [
        "is a number, and must be true or false",
        "is a text, and must be true or false",
    ]


def test_local_date__refused() -> None:
    """A date is one without a time and without quotes."""
    file = TomlFile('day = 2026-10-15\ntime = 2026-10-15T00:00:00\ntext = "2026-10-15"')
    entries = file.root.table()
    assert entries is not None
    found = [it.local_date() for it in entries.entries.values()]
    assert found == [date(2026, 10, 15), None, None]
    with pytest.raises(FileFaults, match="must be a date, without quotes"):
        file.check()


def _leaves(value: object, path: TomlPath = ()) -> Iterator[tuple[TomlPath, object]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, (*path, index))
    else:
        yield path, value
