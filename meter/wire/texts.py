"""Texts that lie in one run of bytes, taken out as arrays and not as an object each."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from meter.domain.event import BoolArray, Int64Array, Uint8Array

WordArray = npt.NDArray[np.uint64]

WORD_BYTES: Final = 8
# Texts of more bytes have no words.
WORDS_MAX: Final = 16
# Whoever reads words of a text's, or of a number's bytes, reads as many bytes behind the last one.
PADDING_BYTES: Final = WORDS_MAX * WORD_BYTES + 1
# By a text's size: its words with a one for each bit that is its own.
_OWN: Final[WordArray] = np.packbits(
    np.arange(8 * WORDS_MAX * WORD_BYTES) // 8 < np.arange(PADDING_BYTES)[:, None], axis=1
).view("<u8")


def windows(data: Uint8Array, begin: Int64Array, *, size_bytes: int) -> Uint8Array:
    """Return the n × `size_bytes` bytes from each place on."""
    # Items that numpy need not understand may be of any size, and begin anywhere.
    items = np.ndarray((len(data) - size_bytes + 1,), f"V{size_bytes}", data, strides=(1,))
    return items[begin].view(np.uint8).reshape(-1, size_bytes)


def words(data: Uint8Array, begin: Int64Array) -> WordArray:
    """Return the eight bytes from each place on as a number, of which the first is the lowest."""
    return windows(data, begin, size_bytes=WORD_BYTES).view("<u8").ravel()


def own_bytes(size: Int64Array, *, word_count: int = 1) -> WordArray:
    """Return n × `word_count` words with a one for each bit of a text of this size."""
    return _OWN[:, :word_count].take(size, axis=0)


@dataclass(frozen=True, slots=True)
class Texts:
    """n texts: the `size` bytes of `data` from `begin` on, with `PADDING_BYTES` behind the last."""

    data: bytes
    begin: Int64Array
    size: Int64Array

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.begin)

    def take(self, places: Int64Array | BoolArray) -> "Texts":
        """Return those at these places, or where it is true."""
        return Texts(self.data, self.begin[places], self.size[places])

    def each(self) -> list[bytes]:
        """Return them one by one."""
        data, end = self.data, self.begin + self.size
        return [data[a:b] for a, b in zip(self.begin.tolist(), end.tolist(), strict=True)]

    def of_size(self, size_bytes: int) -> Uint8Array | None:
        """Return n × `size_bytes` bytes; None where one is longer or shorter."""
        if (self.size != size_bytes).any():
            return None
        return windows(np.frombuffer(self.data, np.uint8), self.begin, size_bytes=size_bytes)

    def words(self, word_count: int) -> WordArray:
        """Return n × `word_count` words with zeros behind each text, none of which is longer."""
        size_bytes = word_count * WORD_BYTES
        found = windows(np.frombuffer(self.data, np.uint8), self.begin, size_bytes=size_bytes)
        return found.view("<u8") & own_bytes(self.size, word_count=word_count)
