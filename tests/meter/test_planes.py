"""Numbers as planes: whatever goes in comes out, in as few half bytes as it takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import planes
from meter.planes import (
    TOGETHER_MAX,
    from_columns,
    from_planes,
    half_bytes_of,
    planes_size,
    span_of,
    split,
    to_planes,
)
from tests.wire.session import to_plane


@given(data=st.data(), half_bytes=st.integers(1, 15), count=st.integers(0, 40))
def test_planes__keep_every_number(data: st.DataObject, half_bytes: int, count: int) -> None:
    """Numbers of any width come back, whole and half bytes alike, and their size is foretold."""
    least, most = 16 ** (half_bytes - 1), 16**half_bytes - 1
    values = data.draw(st.lists(st.integers(0, most), min_size=count, max_size=count))
    packed = to_planes(np.array(values, np.int64), half_bytes)
    assert len(packed) == planes_size(count, half_bytes)
    read = from_planes(packed, half_bytes=half_bytes, base=-5, count=count)
    assert read.tolist() == [value - 5 for value in values]
    assert half_bytes_of(least) == half_bytes_of(most) == half_bytes


@given(values=st.lists(st.integers(-(2**50), 2**50), min_size=1, max_size=20))
def test_planes__are_what_is_written_digit_by_digit(values: list[int]) -> None:
    """The bytes are those of a writer that knows nothing but the document."""
    plain = to_plane(values)
    offsets = np.array(values, np.int64) - plain.base
    assert plain.half_bytes == half_bytes_of(int(offsets.max()))
    assert plain.planes == to_planes(offsets, plain.half_bytes)


@pytest.mark.parametrize("half_bytes", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("more", [-1, 0, 1, 2, planes.BLOCK + 1])
def test_planes__of_more_numbers_than_are_split_at_a_time(half_bytes: int, more: int) -> None:
    """Where numbers are split in blocks, the planes of all lie behind each other all the same."""
    count = planes.BLOCK + more
    values = np.random.default_rng(count).integers(0, 16**half_bytes, count)
    packed = b"".join(split(values - 7, half_bytes, base=-7))
    whole = half_bytes // 2
    digits = [values >> 4 * it & 15 for it in range(half_bytes)]
    bytes_of = [digits[2 * it] | digits[2 * it + 1] << 4 for it in range(whole)]
    if half_bytes % 2:
        last = np.append(digits[-1], np.zeros(count % 2, np.int64))
        bytes_of.append(last[0::2] | last[1::2] << 4)
    assert packed == np.concatenate(bytes_of).astype(np.uint8).tobytes()


@pytest.mark.parametrize("most", [0, 1, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32])
@pytest.mark.parametrize("half_bytes", [0, 1, 2, 3, 4, 5, 7, 8])
def test_from_planes__are_as_narrow_as_their_span(most: int, half_bytes: int) -> None:
    """Numbers are of the narrowest type that holds all of their width, their base in it."""
    highest = 16**half_bytes - 1
    base = most - highest
    packed = to_planes(np.array([0, highest, highest // 3], np.int64), half_bytes)
    read = from_planes(packed, half_bytes=half_bytes, base=base, count=3)
    assert read.tolist() == [base, base + highest, base + highest // 3]
    narrowest = np.min_scalar_type(most).itemsize
    assert read.itemsize == (8 if base < 0 else narrowest)


@pytest.mark.parametrize(("size", "half_bytes"), [(3, 2), (5, 2), (0, 1), (4, 17), (0, -1), (1, 0)])
def test_from_planes__of_another_size(size: int, half_bytes: int) -> None:
    """Planes that are too short, too long or too wide are no numbers."""
    with pytest.raises(ValueError, match="half bytes"):
        from_planes(bytes(size), half_bytes=half_bytes, base=0, count=4)


@given(
    widths=st.lists(st.integers(0, 14), min_size=1, max_size=8),
    count=st.sampled_from([0, 1, 2, 7, 40, TOGETHER_MAX - 1, TOGETHER_MAX]),
    base=st.integers(-(2**60), 2**60),
    seed=st.integers(0, 2**32),
)
def test_from_columns__are_what_each_is_alone(
    widths: list[int], count: int, base: int, seed: int
) -> None:
    """Columns that are read together, few numbers or many, are to the last bit what each holds."""
    draw = np.random.default_rng(seed)
    values = [draw.integers(0, 16**width, count) for width in widths]
    planes = [to_planes(each, width) for each, width in zip(values, widths, strict=True)]
    bases = [base + place for place in range(len(widths))]
    read = from_columns(planes, half_bytes=widths, bases=bases, count=count)
    wanted = [each + own for each, own in zip(values, bases, strict=True)]
    assert [each.tolist() for each in read] == [each.tolist() for each in wanted]
    lowest, highest = span_of(widths[0], base)
    assert all(lowest <= each <= highest for each in read[0].tolist())


@pytest.mark.parametrize(("size", "half_bytes"), [(3, 2), (5, 2), (0, 1), (0, -1), (1, 0)])
def test_from_columns__one_of_another_size(size: int, half_bytes: int) -> None:
    """One whose planes are too short or too long is no column, whatever is beside it."""
    planes = [bytes(4), bytes(size), bytes(4)]
    with pytest.raises(ValueError, match="half bytes"):
        from_columns(planes, half_bytes=[2, half_bytes, 2], bases=[0, 0, 0], count=4)
