"""Numbered batches: every verdict a case, and random histories against a list of what was sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.limits import DIGESTS_KEPT
from meter.journal.protocol import DIGEST_BYTES, ProducerState, Verdict

NEW, OLD = b"n" * 16, b"o" * 16


def digest_of(content: int) -> bytes:
    """Return the digest of a batch's content."""
    return content.to_bytes(DIGEST_BYTES, "big")


def state_after(last: int, *, kept: int) -> ProducerState:
    """Return a producer of the new instance at a number, with so many digests of its batches."""
    digests = b"".join(digest_of(number) for number in range(last - kept + 1, last + 1))
    return ProducerState(instance=NEW, sequence=last, digests=digests)


@pytest.mark.parametrize(
    ("last", "kept", "sequence", "content", "verdict"),
    [
        (0, 0, 1, 1, Verdict.RECORD),
        (0, 0, 2, 2, Verdict.HOLE),
        (5, 5, 6, 6, Verdict.RECORD),
        (5, 5, 7, 7, Verdict.HOLE),
        (5, 5, 2**62, 7, Verdict.HOLE),
        (5, 5, 5, 5, Verdict.REPEATED),
        (5, 5, 1, 1, Verdict.REPEATED),
        (5, 5, 5, 4, Verdict.CHANGED),
        (5, 5, 1, 2, Verdict.CHANGED),
        # The last digest that is kept still tells; one older is never acknowledged.
        (99, 32, 68, 68, Verdict.REPEATED),
        (99, 32, 68, 0, Verdict.CHANGED),
        (99, 32, 67, 67, Verdict.HOLE),
        (99, 32, 67, 0, Verdict.HOLE),
        # Nothing is kept of what lies before a gap.
        (99, 0, 99, 0, Verdict.HOLE),
        (99, 0, 100, 0, Verdict.RECORD),
    ],
)
def test_judge__every_verdict(
    last: int, kept: int, sequence: int, content: int, verdict: Verdict
) -> None:
    """A number is the next one, one of the last, an old one or ahead of its turn."""
    state = state_after(last, kept=kept)
    judged = state.judge(instance=NEW, sequence=sequence, digest=digest_of(content))
    assert judged is verdict
    fenced = state.judge(instance=OLD, sequence=sequence, digest=digest_of(content))
    assert fenced is Verdict.TAKEN_OVER


@pytest.mark.parametrize(
    ("first_sequence", "sequence", "kept"),
    [(0, 5, 5), (1, 5, 5), (5, 5, 5), (6, 5, 5), (7, 6, 0), (100, 99, 0)],
)
def test_opened__passes_over_only_what_never_came(
    first_sequence: int, sequence: int, kept: int
) -> None:
    """What the producer still holds from the next number on loses nothing; a later one does."""
    after = state_after(5, kept=5).opened(instance=OLD, first_sequence=first_sequence)
    assert (after.instance, after.sequence) == (OLD, sequence)
    assert len(after.digests) == kept * DIGEST_BYTES


@pytest.mark.parametrize(("missing_from", "sequence"), [(0, 8), (6, 8), (5, 5), (7, 5), (1, 5)])
def test_opened__passes_over_from_the_expected_number_alone(
    missing_from: int, sequence: int
) -> None:
    """What lies before a producer's hole may still be held by it: a restored meter calls for it."""
    state = state_after(5, kept=5)
    after = state.opened(instance=OLD, first_sequence=9, missing_from=missing_from)
    assert (after.instance, after.sequence) == (OLD, sequence)


@dataclass
class Model:
    """What a producer's life comes to, kept in full: its content by number, and where it begins."""

    instance: int = 0
    last: int = 0
    known_from: int = 1
    contents: dict[int, int] = field(default_factory=dict)

    def judge(self, *, instance: int, sequence: int, content: int) -> Verdict:
        """Judge by the whole history."""
        if instance != self.instance:
            return Verdict.TAKEN_OVER
        if sequence > self.last:
            return Verdict.RECORD if sequence == self.last + 1 else Verdict.HOLE
        is_kept = sequence >= self.known_from and sequence > self.last - DIGESTS_KEPT
        if not is_kept:
            return Verdict.HOLE
        return Verdict.REPEATED if self.contents[sequence] == content else Verdict.CHANGED

    def open(self, *, instance: int, first_sequence: int) -> None:
        """Begin with a newer instance."""
        self.instance = instance
        if first_sequence > self.last + 1:
            self.last, self.known_from = first_sequence - 1, first_sequence


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(-3, 3), st.integers(0, 3)),
        # Mostly the next number, sometimes one near or far before it, or ahead.
        st.tuples(
            st.just("batch"),
            st.sampled_from([1, 1, 1, 1, 1, 1, 0, -1, -2, -15, -30, -31, -32, -40, 2, 9]),
            st.integers(0, 2),
        ),
    ),
    max_size=150,
)


def histories(steps: list[tuple[str, int, int]]) -> Iterator[tuple[Verdict, Verdict, int, int]]:
    """Play the steps to the state and the model; yield both verdicts and both last numbers."""
    model = Model()
    state = ProducerState(instance=digest_of(0) * 2, sequence=0, digests=b"")
    for kind, step, choice in steps:
        if kind == "open":
            instance, first = model.instance + 1, max(0, model.last + 1 + step)
            model.open(instance=instance, first_sequence=first)
            state = state.opened(instance=digest_of(instance) * 2, first_sequence=first)
            continue
        sequence = max(1, model.last + step)
        # A changed batch and a fenced instance are rarer than what is right.
        content = sequence * 10 + (1 if choice == 2 else 0)
        instance = model.instance - (1 if choice == 1 and step == 9 else 0)
        wanted = model.judge(instance=instance, sequence=sequence, content=content)
        verdict = state.judge(
            instance=digest_of(max(instance, 0)) * 2,
            sequence=sequence,
            digest=digest_of(content),
        )
        if instance < 0:
            continue
        if wanted is Verdict.RECORD:
            model.last, model.contents[sequence] = sequence, content
            state = state.recorded(digest_of(content))
        yield verdict, wanted, state.sequence, model.last


@given(steps=STEPS)
def test_judge__random_histories_agree_with_a_model(steps: list[tuple[str, int, int]]) -> None:
    """After any history of batches and instances, each verdict is what the whole history says."""
    for verdict, wanted, sequence, last in histories(steps):
        assert verdict is wanted
        assert sequence == last


def test_recorded__keeps_as_much_as_a_producer_may_have_under_way() -> None:
    """A state's size is bounded, whatever was recorded."""
    state = ProducerState(instance=NEW, sequence=0, digests=b"")
    for number in range(1, 100):
        state = state.recorded(digest_of(number))
    assert state == state_after(99, kept=DIGESTS_KEPT)
