"""Texts that came before: each has its own number, and none has another's."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.event import Int64Array
from meter.wire import known_texts
from meter.wire.known_dimensions import KnownDimensions
from meter.wire.known_texts import KnownTexts
from meter.wire.texts import PADDING_BYTES, Texts


def texts(found: Iterable[bytes]) -> Texts:
    """Return texts that lie behind each other."""
    found = list(found)
    size = np.array(list(map(len, found)), np.int64)
    return Texts(b"".join([*found, bytes(PADDING_BYTES)]), size.cumsum() - size, size)


def learn(known: KnownTexts, numbers: dict[bytes, int]) -> None:
    """Tell it texts and their numbers."""
    known.learn(texts(numbers), np.array(list(numbers.values()), np.int64))


ALIKE = st.text("a\0", max_size=9).map(str.encode) | st.binary(max_size=140)


@given(groups=st.lists(st.sets(ALIKE, max_size=20), max_size=5), asked=st.lists(ALIKE, max_size=20))
def test_find__what_was_learnt(groups: list[set[bytes]], asked: list[bytes]) -> None:
    """A text of up to 128 bytes has the number that it was told with, any other has none."""
    known = KnownTexts()
    told: dict[bytes, int] = {}
    for group in groups:
        new = {each: len(told) + step for step, each in enumerate(sorted(group - told.keys()))}
        told |= new
        learn(known, new)
    asked = [*asked, *told]
    wanted = [told.get(each, -1) if len(each) <= 128 else -1 for each in asked]
    assert known.find(texts(asked)).tolist() == wanted


def test_find__of_very_many() -> None:
    """It grows with what it is told; of hardly any text it then has no number."""
    known = KnownTexts()
    told = {b"acct-%06d" % number: number for number in range(40_000)}
    for begin in range(0, 40_000, 7_000):
        learn(known, dict(list(told.items())[begin : begin + 7_000]))
    found = known.find(texts(told))
    assert set(np.unique(found - np.arange(40_000))) <= {0} | {-1 - n for n in range(40_000)}
    assert (found >= 0).mean() > 0.999
    assert (known.find(texts(b"acct-%06d" % number for number in range(40_000, 50_000))) < 0).all()


def test_learn__more_than_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no longer fits has no number, and what fitted keeps it."""
    monkeypatch.setattr(known_texts, "_TEXTS_MAX", 3)
    known = KnownTexts()
    learn(known, {b"a": 0, b"b": 1})
    learn(known, {b"c": 2})
    assert known.find(texts([b"a", b"b", b"c"])).tolist() == [0, 1, -1]


def test_find__same_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that were made up to be taken for each other, or to be in each other's way, are not."""
    monkeypatch.setattr(known_texts, "_FACTORS", np.zeros(17, np.uint64))
    known = KnownTexts()
    told = {bytes([each]): each for each in range(1, 21)}
    learn(known, told)
    found = known.find(texts([*told, b"x"]))
    assert ((found == -1) | (found == [*told.values(), -1])).all()
    assert (found >= 0).sum() == 1


def test_dimensions__are_learnt_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dimensions for which there is no seat are not learnt anew with each batch that has them."""
    learnt: list[bytes] = []

    def note(_: KnownTexts, new: Texts, __: Int64Array) -> None:
        learnt.extend(new.each())

    monkeypatch.setattr(KnownTexts, "learn", note)
    known = KnownDimensions(intern=int)
    for _ in range(2):
        found = known.find_texts(texts([b"4", b"2", b"4"]))
        assert found.tolist() == [4, 2, 4]
    assert sorted(learnt) == [b"2", b"4"]
