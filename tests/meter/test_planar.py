"""What a batch in planes cannot make the server keep: names that are absurd, or without end."""

import numpy as np
import pytest

from meter.domain import limits
from meter.domain.outcome import Outcome
from meter.wire import planar, translate
from meter.wire.packed import UnusableBatch, unread_message_class
from meter.wire.planar import PairMemory
from meter.wire.translate import Translator
from tests.wire.session import event, to_planes

UNREAD = unread_message_class("UsagePlanes")


@pytest.mark.parametrize(
    "account",
    [b"\xff\xfe\xff\xff", b"x" * (limits.DIMENSIONS_BYTES_REMEMBERED + 1)],
    ids=["no UTF-8", "longer than what is remembered"],
)
def test_read__account_that_is_no_name(account: bytes) -> None:
    """A name that is no text, or longer than any, makes the batch malformed, and is not kept."""
    form = UNREAD.FromString(to_planes([event()]).SerializeToString())
    form.accounts[0] = account
    with pytest.raises(UnusableBatch) as fault:
        Translator().from_planes(form)
    assert fault.value.outcome is Outcome.BATCH_MALFORMED


def test_read__pairs_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of pairs begins anew above its bound, and batches are read as before."""
    made: list[PairMemory] = []

    class Counted(PairMemory):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(translate, "PairMemory", Counted)
    translator = Translator()
    form = UNREAD.FromString(to_planes([event(), event("team")]).SerializeToString())
    first = translator.from_planes(form)
    assert len(made) == 1
    monkeypatch.setattr(limits, "DIMENSIONS_INTERNED_MAX", 100)
    again = translator.from_planes(form)
    assert len(made) == 2
    assert again.dimension.tolist() == first.dimension.tolist()


def test_read__long_lists_that_look_alike() -> None:
    """A list of accounts that differs from one before in its middle alone is told from it."""
    names = [f"account-{number}" for number in range(300)]
    others = [*names[:150], "another", *names[151:]]
    translator = Translator()
    for listed in (names, others, names, others):
        form = to_planes([event(name) for name in listed * 8])
        batch = translator.from_planes(UNREAD.FromString(form.SerializeToString()))
        found = [batch.table[handle].account for handle in batch.dimension.tolist()]
        assert found == listed * 8


def test_read__lists_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of accounts without end are not kept without end."""
    memory = PairMemory()
    monkeypatch.setattr(planar, "_LISTED_MAX", 1_000)
    index = np.tile(np.arange(300, dtype=np.uint16), 8)
    for step in range(20):
        names = [b"%d" % number for number in range(step, step + 300)]
        memory.find(
            [b"service"],
            names,
            service=np.zeros(len(index), np.uint8),
            account=index,
            intern=lambda _, account: int(account),
        )
        assert 0 < memory.listed_count <= 1_000
