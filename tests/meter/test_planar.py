"""What a batch in planes cannot make the server keep: names that are absurd, or without end."""

import pytest

from meter.domain import limits
from meter.domain.outcome import Outcome
from meter.wire import translate
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
