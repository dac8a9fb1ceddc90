"""What is kept of a usage object: enough to read it again, and not a word of anything else."""

import contextlib
import json
import zlib
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.usage_cases import READ
from tokenworks.client import limits
from tokenworks.client.profiles import read_usage
from tokenworks.client.usage_objects import find_usage, keep_usage, kept, pack, unpack

OPENAI: Final = {
    "convention": "openai",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4},
}


@pytest.mark.parametrize("case", READ)
def test_kept__is_read_again(case: str) -> None:
    """What is kept of each provider's object reads as the object itself."""
    profile, usage, *_ = READ[case]
    assert read_usage(kept(usage), profile=profile) == read_usage(usage, profile=profile)


@pytest.mark.parametrize("case", READ)
def test_kept__of_an_object_with_attributes(case: str) -> None:
    """An object of a provider's library is kept as the JSON that it was made from."""
    _, usage, *_ = READ[case]
    assert kept(_with_attributes(usage)) == kept(usage)


def _with_attributes(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _with_attributes(part) for name, part in value.items()})
    return [*map(_with_attributes, value)] if isinstance(value, list) else value


class _Slotted:
    """An object without a mapping of its own, and with what a library adds to its model."""

    __slots__ = ("prompt_tokens",)

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens


class _Model:
    """An object with what its class has no field for, as a library's models keep it."""

    def __init__(self, **extra: int) -> None:
        self.prompt_tokens = 7
        self.__pydantic_extra__ = extra

    def __getattr__(self, name: str) -> int:
        return self.__pydantic_extra__[name]


def test_kept__of_other_objects() -> None:
    """What an object has in slots is kept, and so is what its library has no field for."""
    assert kept(_Slotted(7)) == {"prompt_tokens": 7}
    assert kept(_Model(cached_tokens=3)) == {"prompt_tokens": 7, "cached_tokens": 3}


def _stuffed(value: Any) -> Any:  # noqa: ANN401
    """Return an object with a text in each place that there is, and under other names."""
    if isinstance(value, dict):
        stuffed = {name: _stuffed(part) for name, part in value.items()}
        return {**stuffed, "a secret": 7, "prompt": "a secret", "messages": [{"x": "a secret"}]}
    if isinstance(value, list):
        return [*map(_stuffed, value), "a secret", {"type": "a secret", "modality": "a secret"}]
    return "a secret"


@pytest.mark.parametrize("case", READ)
def test_kept__is_no_text(case: str) -> None:
    """Whatever an object holds instead of counts, nothing of it is kept, in either form."""
    _, usage, *_ = READ[case]
    assert "secret" not in json.dumps(kept(_stuffed(usage)))
    assert "secret" not in json.dumps(kept(_with_attributes(_stuffed(usage))))


class _Hostile:
    """An object whose own code fails."""

    @property
    def prompt_tokens(self) -> int:
        """Fail."""
        raise LookupError("no")


@pytest.mark.parametrize("usage", [_Hostile(), 7, "a text", [OPENAI], object(), {}])
def test_find_usage__of_what_is_none(usage: object) -> None:
    """What is no usage object is not kept, and nobody hears of it."""
    assert find_usage(usage, profile="openai") is None


def test_find_usage__of_an_unknown_profile() -> None:
    """By whose rules an object is read has to be known."""
    assert find_usage(OPENAI, profile="nobody's") is None


_COUNTS: Final = st.integers(0, 10**9)
_OBJECTS: Final = st.none() | st.sampled_from(list(READ)).map(
    lambda case: keep_usage(READ[case][1], profile=READ[case][0])
)


@given(usages=st.lists(_OBJECTS, max_size=12))
def test_pack__comes_out_again(usages: list[dict[str, object] | None]) -> None:
    """Each event's object comes out at its place; without any there are no bytes."""
    packed = pack(usages)
    known = {place: usage for place, usage in enumerate(usages) if usage is not None}
    assert bool(packed) is bool(known)
    assert not packed or unpack(packed, count=len(usages)) == known


def test_pack__is_small() -> None:
    """A batch of objects that are alike takes few bytes of each."""
    usages = [{**OPENAI, "prompt_tokens": 100 + place % 7} for place in range(1_000)]
    assert len(pack(usages)) < 20 * len(usages)


def test_pack__is_bounded() -> None:
    """Objects that are too large together are not packed; one that is so alone is left out."""
    text = "9" * 18
    large = {"convention": "openai", "iterations": [{"input_tokens": int(text)}] * 64}
    count = limits.USAGE_OBJECTS_BYTES_MAX // 64 // 20
    with pytest.raises(ValueError, match="too large"):
        pack([large] * count)
    assert pack([{"iterations": [{"input_tokens": int(text)}] * 64 * count}]) == b""


_SECRET: Final = {"convention": "openai", "prompt_tokens": 1, "a secret": 7}


@pytest.mark.parametrize(
    "said",
    [
        7,
        [7],
        [[["convention"], [0], [["a secret"]]]],
        [[["convention", "prompt_tokens"], [0], [["openai"], ["a secret"]]]],
        [[["convention", "prompt_tokens"], [1], [["openai"], [7]]]],
        [[["convention", "prompt_tokens"], [-1], [["openai"], [7]]]],
        [[["convention", "prompt_tokens"], [0.5], [["openai"], [7]]]],
        [[["convention", "prompt_tokens"], ["a secret"], [["openai"], [7]]]],
        [[["convention", "prompt_tokens"], [0, 0], [["openai"], [7]]]],
        [[[["a secret"], "prompt_tokens"], [0], [["openai"], [7]]]],
        [[_SECRET, [0], [[1], [2], [3]]]],
    ],
)
def test_unpack__of_what_is_none(said: object) -> None:
    """Whatever else was packed is an error, or nothing is kept of it."""
    packed = zlib.compress(json.dumps(said).encode())
    found: dict[int, dict[str, object]] = {}
    with contextlib.suppress(ValueError):
        found = unpack(packed, count=1)
    assert found == {}


@pytest.mark.parametrize("packed", [b"", b"x", zlib.compress(b"[]")[:-1], zlib.compress(b"[")])
def test_unpack__of_other_bytes(packed: bytes) -> None:
    """Bytes that are not packed JSON, whole, are told from those that are."""
    with pytest.raises(ValueError, match=r"these are no|Expecting"):
        unpack(packed, count=1)


def test_unpack__of_a_bomb() -> None:
    """What unpacks to more than its bound is not read."""
    bomb = zlib.compress(b" " * (limits.USAGE_OBJECTS_BYTES_MAX + 1) + b"[]")
    with pytest.raises(ValueError, match="no whole"):
        unpack(bomb, count=1)


def test_unpack__keeps_counts_alone() -> None:
    """What others have put into an object beside its counts is not kept."""
    columns = [[list(_SECRET), [0], [[value] for value in _SECRET.values()]]]
    packed = zlib.compress(json.dumps(columns).encode())
    assert unpack(packed, count=1) == {0: {"convention": "openai", "prompt_tokens": 1}}
