"""Which number stands for a text that came before, found for thousands of texts at a time."""

from typing import Final

import numpy as np

from meter.domain.event import Int64Array
from meter.wire.texts import WORD_BYTES, WORDS_MAX, Texts, WordArray

# A text's mark is the sum of its size and its words, each times a number of its own.
_FACTORS: Final[WordArray] = np.array(
    [pow(0x9E37_79B9_7F4A_7C15, power, 2**64) for power in range(1, 2 + WORDS_MAX)], np.uint64
)
# Of each text: its mark, its number, its size and its words, beside each other in memory.
_MARK: Final = 0
_NUMBER: Final = 1
_KEY: Final = 2
_NOBODY: Final = 0
_TEXT_BYTES_MAX: Final = WORDS_MAX * WORD_BYTES
_UNKNOWN: Final = -1
_ROOM: Final = 1_024
# Whoever has more of them finds the others elsewhere: for a million it would take much memory.
_TEXTS_MAX: Final = 2**17
_SEATS_PER_TEXT: Final = 8
# A text sits at most so far from where its mark belongs: who makes up texts that all belong in one
# place has most of them not known, and makes nothing slower than that.
_SEATS_TRIED: Final = 8


class KnownTexts:
    """Numbers from 0 by texts of at most 128 bytes, of the first 131,071 that it is told.

    Texts are looked for by their marks, but found only where all of their bytes are the same.
    """

    def __init__(self) -> None:
        """Begin with none."""
        # By their places; the first is nobody's, and has no number.
        self._count = 1
        self._texts: WordArray = np.zeros((_ROOM, _KEY + 2), np.uint64)
        self._texts[_NOBODY, _NUMBER] = np.int64(_UNKNOWN).astype(np.uint64)
        self._seats = np.full(_SEATS_PER_TEXT * _ROOM, _NOBODY, np.int32)

    def find(self, texts: Texts) -> Int64Array:
        """Return the number of each text, below 0 where it is not known."""
        is_short = texts.size <= _TEXT_BYTES_MAX
        if not is_short.all():
            some = np.full(len(texts), _UNKNOWN, np.int64)
            some[is_short] = self.find(texts.take(is_short))
            return some
        wanted = _to_rows(texts)
        self._widen(wanted.shape[1])
        marks = wanted[:, _MARK]
        seat = self._first_seats(marks)
        place = self._seats.take(seat)
        found = self._texts.take(place, axis=0)
        others = np.flatnonzero(found[:, _MARK] != marks)
        for _ in range(1, _SEATS_TRIED):
            others = others[place[others] != _NOBODY]
            if not len(others):
                break
            seat[others] += 1
            place[others] = self._seats.take(seat[others], mode="wrap")
            found[others] = self._texts.take(place[others], axis=0)
            others = others[found[others, _MARK] != marks[others]]
        numbers = found[:, _NUMBER].astype(np.int64)
        same = found[:, _KEY : wanted.shape[1]] == wanted[:, _KEY:]
        if not same.all():
            numbers[~same.all(axis=1)] = _UNKNOWN
        return numbers

    def learn(self, texts: Texts, numbers: Int64Array) -> None:
        """Take texts, none of which it was told before, with the number of each."""
        is_short = texts.size <= _TEXT_BYTES_MAX
        rows = _to_rows(texts.take(is_short))
        if self._count + len(rows) > _TEXTS_MAX:
            return
        rows[:, _NUMBER] = numbers[is_short]
        begin, self._count = self._count, self._count + len(rows)
        self._widen(rows.shape[1])
        self._make_room()
        self._texts[begin : self._count, : rows.shape[1]] = rows
        self._seat(np.arange(begin, self._count))

    def _widen(self, width: int) -> None:
        more = width - self._texts.shape[1]
        if more > 0:
            self._texts = np.pad(self._texts, ((0, 0), (0, more)))

    def _make_room(self) -> None:
        room = len(self._texts)
        if self._count <= room:
            return
        while room < self._count:
            room *= 2
        self._texts = np.pad(self._texts, ((0, room - len(self._texts)), (0, 0)))
        self._seats = np.full(_SEATS_PER_TEXT * room, _NOBODY, np.int32)
        self._seat(np.arange(1, self._count))

    def _seat(self, place: Int64Array) -> None:
        """Give each text the first seat that is free; one that finds none is not known."""
        seat = self._first_seats(self._texts[place, _MARK])
        for _ in range(_SEATS_TRIED):
            free = self._seats[seat] == _NOBODY
            # Of several that sit down at once the last one stays.
            self._seats[seat[free]] = place[free]
            stands = self._seats[seat] != place
            place, seat = place[stands], (seat[stands] + 1) % len(self._seats)

    def _first_seats(self, marks: WordArray) -> Int64Array:
        return (marks >> np.uint64(65 - len(self._seats).bit_length())).astype(np.int64)


def _to_rows(texts: Texts) -> WordArray:
    """Return each text as it is kept, but for its number."""
    word_count = max(1, -(-int(texts.size.max(initial=0)) // WORD_BYTES))
    rows = np.empty((len(texts), _KEY + 1 + word_count), np.uint64)
    rows[:, _KEY] = texts.size
    rows[:, _KEY + 1 :] = texts.words(word_count)
    marks = rows[:, _KEY:] @ _FACTORS[: 1 + word_count]
    # Texts that differ in a digit have sums that differ by a few steps of one length.
    marks ^= marks >> np.uint64(32)
    np.multiply(marks, _FACTORS[0], out=rows[:, _MARK])
    return rows
