"""What a producer of a site holds, and under which number it goes out."""

import pytest

from cli.simulate.site.outbox import NumbersDiffer, Outbox, Sealed


def test_take__in_order_and_not_too_far_ahead() -> None:
    """Batches go out from where the meter begins, as many ahead of their acks as may be."""
    outbox = _outbox(first=5, in_flight_max=2, count=4)
    assert _taken(outbox) == [(5, 0), (6, 1)]
    assert outbox.acknowledged(sequence=5, durable_sequence=5) == [_sealed(0)]
    assert _taken(outbox) == [(7, 2)]
    assert (outbox.first_sequence, outbox.unrecorded_count) == (6, 3)


def test_acknowledged__of_several() -> None:
    """An ack is of all up to its number, and tells of each batch once."""
    outbox = _outbox(first=1, count=3)
    _taken(outbox)
    assert outbox.acknowledged(sequence=3, durable_sequence=3) == [_sealed(n) for n in range(3)]
    assert outbox.acknowledged(sequence=3, durable_sequence=3) == []
    assert outbox.is_empty
    assert outbox.first_sequence == 0


def test_acknowledged__not_durable_yet() -> None:
    """A batch is kept until it is durable, and goes out again if the meter has lost it."""
    outbox = _outbox(first=1, count=2)
    _taken(outbox)
    assert outbox.acknowledged(sequence=2, durable_sequence=1) == [_sealed(0), _sealed(1)]
    assert (outbox.first_sequence, outbox.is_empty) == (2, False)
    assert outbox.opened(next_sequence=2, in_flight_max=16) == []
    assert _taken(outbox) == [(2, 1)]
    assert outbox.resent_count == 1
    # It was told of already.
    assert outbox.acknowledged(sequence=2, durable_sequence=2) == []
    assert outbox.is_empty


def test_opened__goes_back() -> None:
    """After a break what the meter does not have goes out again, under the same numbers."""
    outbox = _outbox(first=1, count=3)
    assert _taken(outbox) == [(1, 0), (2, 1), (3, 2)]
    assert outbox.opened(next_sequence=2, in_flight_max=16) == [_sealed(0)]
    assert _taken(outbox) == [(2, 1), (3, 2)]
    assert outbox.resent_count == 2


@pytest.mark.parametrize("next_sequence", [1, 6])
def test_opened__elsewhere(next_sequence: int) -> None:
    """A number that was durable already, or that was never given, is refused."""
    outbox = _outbox(first=1, count=4)
    _taken(outbox)
    outbox.acknowledged(sequence=2, durable_sequence=2)
    with pytest.raises(NumbersDiffer, match=f"expects batch {next_sequence}, and 3 to 4 are held"):
        outbox.opened(next_sequence=next_sequence, in_flight_max=16)


def _outbox(*, first: int, count: int, in_flight_max: int = 16) -> Outbox:
    outbox = Outbox()
    assert outbox.opened(next_sequence=first, in_flight_max=in_flight_max) == []
    for number in range(count):
        outbox.seal(_sealed(number))
    return outbox


def _sealed(number: int) -> Sealed:
    return Sealed(batch=number, base_ms=1_000 * number, sealed_seconds=float(number))


def _taken(outbox: Outbox) -> list[tuple[int, int]]:
    taken = []
    while (each := outbox.take()) is not None:
        taken.append((each[0], each[1].batch))
    return taken
