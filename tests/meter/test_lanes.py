"""Lanes: senders in turn, each one's items in their order."""

from hypothesis import given
from hypothesis import strategies as st

from meter.journal.lanes import Lanes


def test_take__few_are_not_held_up_by_many() -> None:
    """Who comes behind a flood waits for one item of it."""
    lanes: Lanes[str] = Lanes()
    for number in range(1_000):
        lanes.put("flood", f"flood {number}")
    lanes.put("honest", "honest 0")
    assert [lanes.take() for _ in range(3)] == ["flood 0", "honest 0", "flood 1"]
    assert len(lanes) == 998


def test_put_back__goes_before_the_senders_own() -> None:
    """What was taken and put off comes before what came later, in its order."""
    lanes: Lanes[int] = Lanes()
    for number in range(4):
        lanes.put("a", number)
    taken = [("a", lanes.take()), ("a", lanes.take())]
    lanes.put_back(taken)
    assert lanes.take_all() == [0, 1, 2, 3]


@given(st.lists(st.one_of(st.integers(0, 3), st.just("take"), st.just("back")), max_size=60))
def test_lanes__keep_each_senders_order(steps: list[object]) -> None:
    """Whatever is put, taken and put back: nothing is lost, and each sender's are in order."""
    lanes: Lanes[tuple[int, int]] = Lanes()
    counts = [0] * 4
    taken: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, int):
            lanes.put(step, (step, counts[step]))
            counts[step] += 1
        elif step == "take" and lanes:
            seen = lanes.peek()
            taken.append(lanes.take())
            assert taken[-1] == seen
        elif step == "back":
            lanes.put_back((item[0], item) for item in taken[-2:])
            del taken[-2:]
    taken += lanes.take_all()
    for sender, count in enumerate(counts):
        assert [number for it, number in taken if it == sender] == list(range(count))
