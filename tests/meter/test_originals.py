"""Usage objects as they came: what is packed comes out again, and nothing else is taken for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.sources.originals import Original, pack, unpack

IDS = st.binary(min_size=16, max_size=16)
VALUES = st.one_of(st.integers(0, 2**62), st.text(), st.booleans(), st.lists(st.integers()))
USAGES = st.dictionaries(st.sampled_from(["input", "output", "request_id"]), VALUES)


@given(st.lists(st.builds(Original, IDS, IDS, USAGES)))
def test_pack__comes_out_again(originals: list[Original]) -> None:
    """Each report has its own object, whatever names others have; an empty one is not kept."""
    body, count = pack(originals)
    kept = [each for each in originals if each.usage]
    assert count == len(kept)
    assert bool(body) == bool(kept)
    found = list(unpack(body)) if body else []
    assert sorted(map(repr, found)) == sorted(map(repr, kept))


@pytest.mark.parametrize("body", [b"", b"\0\0\0\1", bytes(4), b"\0\0\0\1" + bytes(32) + b"x\1"])
def test_unpack__of_damaged_bytes(body: bytes) -> None:
    """What is cut short is told from what is whole."""
    with pytest.raises(ValueError, match="these are no"):
        list(unpack(body))
