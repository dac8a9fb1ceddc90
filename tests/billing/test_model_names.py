"""The names of models: which of them a model is found by, and which could mean two."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.price_book import (
    can_meet,
    is_meant,
    matches,
)
from tests.billing.terms import a_book, a_key, book_text, cases, check_book_faults

NAMES = """
[models."glm-5.1"]
names = ["glm", "lora/glm-5.1/*"]
all = "1"
[models."lora/*"]
all = "2"
[models.glm-6]
names = ["lora/glm-5.1/special", "*-nano*"]
all = "3"
[models."*"]
all = "4"
"""


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("glm-5.1", "glm-5.1"),
        ("glm", "glm-5.1"),
        ("lora/glm-5.1/special", "glm-6"),
        ("lora/glm-5.1/a/b", "glm-5.1"),
        ("lora/glm-5.1/", "glm-5.1"),
        ("lora/glm-5.1", "lora/*"),
        ("lora/", "lora/*"),
        ("lora", "*"),
        ("x-nano", "glm-6"),
        ("lora/x-nano", "glm-6"),
        ("nano", "*"),
        ("GLM", "*"),
        ("glm ", "*"),
        ("", "*"),
    ],
)
def test_find_model__name_then_alias_then_longest_pattern(model: str, key: str) -> None:
    """A key goes before an alias, an alias before a pattern, a longer pattern before a shorter."""
    assert a_book(NAMES).find_model(model) == key


def test_find_model__none() -> None:
    """A model that no name means has no price."""
    book = a_book('[models.m]\nall = "1"')
    assert book.find_model("n") is None
    assert book.find_price(a_key("n")) is None


@pytest.mark.parametrize(
    ("pattern", "model", "expected"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "ab", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*a", "aba", True),
        ("a*bb*a", "aba", False),
        ("*a*a*", "a", False),
        ("*ab*bc*", "abc", False),
        ("*ab*bc*", "abbc", True),
        ("a.c", "abc", False),
        ("a.*", "a.b", True),
        ("a[b]*", "a[b]c", True),
        ("a[b]*", "abc", False),
    ],
)
def test_matches__table(pattern: str, model: str, *, expected: bool) -> None:
    """A star stands for any characters, or none; nothing else stands for anything but itself."""
    assert matches(pattern, model) is expected


@given(st.text("ab*", max_size=7), st.text("ab", max_size=9))
def test_matches__as_an_expression_would(pattern: str, model: str) -> None:
    """A pattern means what the regular expression with `.*` in the stars' places does."""
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, model) is (re.fullmatch(expression, model) is not None)


def test_matches__many_stars_take_no_time() -> None:
    """A pattern of stars that just fails is done at once, where a backtracking one takes years."""
    assert not matches("*a" * 64 + "b", "a" * 128)
    assert matches("*a" * 64 + "*b", "a" * 128 + "b")


@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4))
def test_can_meet__some_name_is_meant_by_both(first: str, second: str) -> None:
    """Two patterns meet exactly when there is a name that both mean."""
    names = ("".join(it) for length in range(9) for it in product("ab", repeat=length))
    both = any(matches(first, it) and matches(second, it) for it in names)
    assert can_meet(first, second) is both
    assert can_meet(second, first) is both


@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4))
def test_matches__a_pattern_within_another(wide: str, narrow: str) -> None:
    """A pattern matches another as a text only where it means all that the other does."""
    names = ("".join(it) for length in range(7) for it in product("abc", repeat=length))
    meant = [name for name in names if matches(narrow, name)]
    assert not meant or matches(wide, narrow) is all(matches(wide, name) for name in meant)


def test_is_meant__by_name_or_by_key() -> None:
    """A list means a model by its sold name or by the key of its prices; none means all."""
    assert is_meant("lora/m/x", by=["m"], model_key="m")
    assert is_meant("lora/m/x", by=["lora/*"], model_key="m")
    assert not is_meant("lora/m/x", by=["m"], model_key=None)
    assert not is_meant("lora/m/x", by=["n"], model_key="m")
    assert is_meant("lora/m/x", by=[], model_key=None)


NAME_FAULTS = r"""
[models.""]  #! models."": 1 to 128 characters
all = "1"
---
[models."a\nb"]  #! models."a\nb": can be printed
all = "1"
---
[models."a**b"]  #! models."a**b": write one `*`
all = "1"
---
[models.m]
all = "1"
names = []  #! models.m.names: is empty
---
[models.m]
all = "1"
names = "n"  #! models.m.names: must be a list
---
[models.m]
all = "1"
names = [1]  #! models.m.names[0]: must be a text
---
[models.m]
all = "1"
names = [""]  #! models.m.names[0]: is empty
---
[models.m]
all = "1"
names = ["a**"]  #! models.m.names[0]: write one `*`
---
[models.m]
all = "1"
names = ["a\tb"]  #! models.m.names[0]: cannot be printed
---
[models.m]
all = "1"
names = ["m"]  #! models.m.names[0]: is the model's own key
---
[models.m]
all = "1"
names = [
"n",
"n"]  #! models.m.names[1]: line 9 has it for "m"
---
[models.a]
all = "1"
names = ["n"]
[models.b]
all = "1"
names = ["n"]  #! models.b.names[0]: "n" names a model twice: line 8 has it for "a"
---
[models.a]
all = "1"
names = ["b"]  #! models.a.names[0]: line 9 has it as a key
[models.b]
all = "1"
---
[models.a]
all = "1"
[models.b]
all = "1"
names = ["a"]  #! models.b.names[0]: "a" names two models: line 6 has it as a key
---
[models.a]  #! models.a: in a circle: "a" → "b" → "c" → "a"
all = "1"
names = ["b"]  #! models.a.names[0]: names two models
[models.b]
all = "1"
names = ["c"]  #! models.b.names[0]: names two models
[models.c]
all = "1"
names = ["a"]  #! models.c.names[0]: names two models
---
[models.a]
all = "1"
names = ["x*"]
[models.b]
all = "1"
names = ["x*"]  #! models.b.names[0]: names a model twice
---
[models."a*"]
all = "1"
[models."*b"]  #! models."*b": as long as "a*" in line 6
all = "1"
---
[models."a*c"]
all = "1"
names = ["ab*"]  #! models."a*c".names[0]: as long as "a*c"
---
[models.m]
all = "1"
names = ["x/*/y"]
[models.n]
all = "1"
names = ["x/1/*"]  #! models.n.names[0]: both can mean one name
"""


@pytest.mark.parametrize(
    "body",
    [
        *cases(NAME_FAULTS),
        f'[models."{"a" * 129}"]  #! models."{"a" * 64}…": 1 to 128 characters\nall = "1"',
        f'[models.m]\nall = "1"\nnames = ["{"a" * 129}"]  #! models.m.names[0]: more than 128 char',
    ],
)
def test_read_book__fault_of_names(body: str) -> None:
    """A name that could mean two models, or none, is told with its line and with the other one."""
    check_book_faults(book_text(body))


@pytest.mark.parametrize(
    "body",
    [
        # The longer one wins, and these of one length have no name in common.
        '[models."a*"]\nall = "1"\n[models."*bc"]\nall = "1"',
        '[models."a*b"]\nall = "1"\n[models."b*a"]\nall = "1"',
        '[models."lora/a/*"]\nall = "1"\n[models."lora/b/*"]\nall = "1"',
        '[models."*-a"]\nall = "1"\n[models."*-b"]\nall = "1"',
        '[models."a*"]\nall = "1"\n[models.ab]\nall = "1"',
    ],
)
def test_read_book__patterns_that_are_told_apart(body: str) -> None:
    """Patterns of other lengths, or without a name in common, stand beside each other."""
    assert len(a_book(body).models) == 2
