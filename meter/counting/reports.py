"""Which producers report for which accounts, as counting meets it; pure.

Nearly every batch says what is known already, so what is known lies in arrays of bits: looking at
an event takes some ten nanoseconds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from meter.domain.event import BoolArray
from meter.domain.times import to_ms, to_time
from meter.planes import IntArray
from meter.segment import Gathered

AccountsOf: TypeAlias = Callable[[Collection[int]], Mapping[int, str]]

# Usage is recorded up to 35 days late: at one time reports are of two months, seldom three.
_MONTHS_KEPT: Final = 3
_UNKNOWN: Final = -1
_ROOM: Final = 1024
_BITS: Final = 8
_ALL: Final = 255
# Numbered accounts are int32: more than there can be.
_IndexArray: TypeAlias = "npt.NDArray[np.int32]"
_BitArray: TypeAlias = "npt.NDArray[np.uint8]"


class Report(NamedTuple):
    """A producer reported usage of an account in a month, which is its first day in UTC."""

    account_id: str
    month: date
    key_account: str
    producer: str


@dataclass(slots=True)
class _Month:
    """Who is known to have reported in a month: a bit for each producer and account.

    Eight producers share a row of `bits`, whose columns are accounts. The first row has all bits:
    it is nobody's, who says nothing new.
    """

    start_ms: int
    end_ms: int
    first_day: date
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    bits: _BitArray = field(default_factory=lambda: np.full((1, _ROOM), _ALL, np.uint8))

    def place_of(self, key: tuple[str, str]) -> tuple[int, int]:
        """Return the row of a producer, and its bit there."""
        place = self.places.setdefault(key, len(self.places))
        row, bit = divmod(place, _BITS)
        return row + 1, 1 << bit

    def make_room(self, account_count: int) -> None:
        """Have a row for each producer, and a column for each account."""
        rows, columns = self.bits.shape
        rows_needed = -(-len(self.places) // _BITS) + 1
        if rows >= rows_needed and columns >= account_count:
            return
        more_columns = columns if columns >= account_count else 2 * account_count
        bits = np.zeros((max(rows, 2 * rows_needed), more_columns), np.uint8)
        bits[:rows, :columns] = self.bits
        bits[0] = _ALL
        self.bits = bits


class ReportMemory:
    """What counting has written of who reported for whom; for one thread.

    `find_new` names what is not known; `learn` takes it over once that is committed.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.forget()

    def forget(self) -> None:
        """Begin anew: the database may be an older one than before."""
        # By dimension the number of its account, `_UNKNOWN` where it was not met.
        self._account_numbers: _IndexArray = np.full(_ROOM, _UNKNOWN, np.int32)
        self._account_ids: list[str] = []
        self._number_of: dict[str, int] = {}
        self._months: list[_Month] = []

    def find_new(self, segments: Sequence[Gathered], *, accounts_of: AccountsOf) -> list[Report]:
        """Return what these segments say and is not known; each once, in any order.

        Calls without a producer say nothing, and corrections neither. `accounts_of` returns the
        accounts of dimensions.
        """
        found: set[Report] = set()
        for part in segments:
            if _says_something(part):
                accounts = self._accounts(part.columns["dimension"], accounts_of)
                found.update(self._of_segment(part, accounts))
        return list(found)

    def knows(self, part: Gathered) -> bool:
        """Tell whether a segment says nothing new; False where a dimension was not met before."""
        if not _says_something(part):
            return True
        accounts = self._find_accounts(part.columns["dimension"])
        return accounts is not None and next(self._of_segment(part, accounts), None) is None

    def learn(self, reports: Iterable[Report]) -> None:
        """Take over what was written."""
        for it in reports:
            month = self._month_at(_ms(it.month))
            row, mask = month.place_of((it.key_account, it.producer))
            month.make_room(len(self._account_ids))
            month.bits[row, self._number_of[it.account_id]] |= mask

    def _of_segment(self, part: Gathered, accounts: _IndexArray) -> Iterator[Report]:
        end_ms = part.columns["end_ms"]
        last_ms, time_ms = int(end_ms.max()), int(end_ms.min())
        while time_ms <= last_ms:
            month = self._month_at(time_ms)
            is_whole = time_ms == end_ms.min() and last_ms < month.end_ms
            inside = None if is_whole else (end_ms >= month.start_ms) & (end_ms < month.end_ms)
            yield from self._unknown(part, month, accounts, inside)
            time_ms = month.end_ms

    def _unknown(
        self, part: Gathered, month: _Month, accounts: _IndexArray, inside: BoolArray | None
    ) -> Iterator[Report]:
        """Yield what events of a month say and is not known; `inside` None are all of them."""
        keys = [(origin.account_id, origin.producer) for origin, _ in part.origins]
        places = [month.place_of(key) if key[1] else (0, _ALL) for key in keys]
        month.make_room(len(self._account_ids))
        counts = [count for _, count in part.origins]
        row = np.repeat(np.array([row * month.bits.shape[1] for row, _ in places]), counts)
        mask = np.repeat(np.array([mask for _, mask in places], np.uint8), counts)
        is_new = (month.bits.ravel()[row + accounts] & mask) == 0
        if inside is not None:
            is_new &= inside
        if not is_new.any():
            return
        batch = np.repeat(np.arange(len(counts)), counts)[is_new]
        pairs = np.unique(batch * len(self._account_ids) + accounts[is_new])
        for place, number in zip(*np.divmod(pairs, len(self._account_ids)), strict=True):
            yield Report(self._account_ids[number], month.first_day, *keys[place])

    def _find_accounts(self, dimension: IntArray) -> "_IndexArray | None":
        """Return the number of each event's account, None where one is not known."""
        if int(dimension.max()) >= len(self._account_numbers):
            return None
        numbers = self._account_numbers[dimension]
        return None if int(numbers.min()) == _UNKNOWN else numbers

    def _accounts(self, dimension: IntArray, accounts_of: AccountsOf) -> _IndexArray:
        """Return the number of each event's account."""
        known = self._find_accounts(dimension)
        if known is not None:
            return known
        highest = int(dimension.max())
        if highest >= len(self._account_numbers):
            room = np.full(2 * highest, _UNKNOWN, np.int32)
            room[: len(self._account_numbers)] = self._account_numbers
            self._account_numbers = room
        numbers = self._account_numbers[dimension]
        for dimension_id, account_id in accounts_of(
            np.unique(dimension[numbers == _UNKNOWN]).tolist()
        ).items():
            number = self._number_of.setdefault(account_id, len(self._account_ids))
            if number == len(self._account_ids):
                self._account_ids.append(account_id)
            self._account_numbers[dimension_id] = number
        return self._account_numbers[dimension]

    def _month_at(self, time_ms: int) -> _Month:
        for month in self._months:
            if month.start_ms <= time_ms < month.end_ms:
                return month
        first_day = month_of(time_ms)
        year, number = divmod(first_day.year * 12 + first_day.month, 12)
        following = date(year, number + 1, 1)
        month = _Month(_ms(first_day), _ms(following), first_day)
        self._months = [*self._months[-(_MONTHS_KEPT - 1) :], month]
        return month


def _says_something(part: Gathered) -> bool:
    return not part.is_correction and any(origin.producer for origin, _ in part.origins)


def month_of(time_ms: int) -> date:
    """Return the first day of an instant's month in UTC."""
    return to_time(time_ms).date().replace(day=1)


def _ms(day: date) -> int:
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
