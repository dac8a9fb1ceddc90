"""Which producers report for which accounts, as counting meets it; pure.

Nearly every batch says what is known already, so what is known lies in arrays of bits: a batch of
ten thousand events is looked at in some ten microseconds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from meter.domain.event import Int64Array
from meter.domain.times import to_ms, to_time
from meter.segment import Segment

AccountsOf: TypeAlias = Callable[[Collection[int]], Mapping[int, str]]

# Usage is recorded up to 35 days late: at one time reports are of two months, seldom three.
_MONTHS_KEPT: Final = 3
_UNKNOWN: Final = -1
_ROOM: Final = 1024
_BITS: Final = 8
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
    """Who is known to have reported in a month: eight producers share an array of bits."""

    start_ms: int
    end_ms: int
    first_day: date
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    bits: list[_BitArray] = field(default_factory=list)


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

    def find_new(self, segments: Sequence[Segment], *, accounts_of: AccountsOf) -> list[Report]:
        """Return what these segments say and is not known; each once, in any order.

        Calls without a producer say nothing, and corrections neither. `accounts_of` returns the
        accounts of dimensions.
        """
        found: set[Report] = set()
        for part in segments:
            if not part.is_correction:
                found.update(self._of_segment(part, accounts_of))
        return list(found)

    def learn(self, reports: Iterable[Report]) -> None:
        """Take over what was written."""
        for it in reports:
            month = self._month_at(_ms(it.month))
            array, mask = self._bits_of(month, (it.key_account, it.producer))
            array[self._number_of[it.account_id]] |= mask

    def _of_segment(self, part: Segment, accounts_of: AccountsOf) -> Iterator[Report]:
        dimension, end_ms = part.columns["dimension"], part.columns["end_ms"]
        accounts: _IndexArray | None = None
        only = self._only_month(end_ms)
        start = 0
        for origin, count in part.origins:
            place = slice(start, start + count)
            start += count
            if not origin.producer or not count:
                continue
            if accounts is None:
                accounts = self._accounts(dimension, accounts_of)
            key = (origin.account_id, origin.producer)
            if only is not None:
                yield from self._unknown(only, key, accounts[place])
                continue
            for month in self._months_of(end_ms[place]):
                inside = (end_ms[place] >= month.start_ms) & (end_ms[place] < month.end_ms)
                yield from self._unknown(month, key, accounts[place][inside])

    def _unknown(
        self, month: _Month, key: tuple[str, str], accounts: _IndexArray
    ) -> Iterator[Report]:
        array, mask = self._bits_of(month, key)
        missing = (array[accounts] & mask) == 0
        if missing.any():
            for number in np.unique(accounts[missing]).tolist():
                yield Report(self._account_ids[number], month.first_day, *key)

    def _accounts(self, dimension: Int64Array, accounts_of: AccountsOf) -> _IndexArray:
        """Return the number of each event's account."""
        highest = int(dimension.max())
        if highest >= len(self._account_numbers):
            room = np.full(2 * highest, _UNKNOWN, np.int32)
            room[: len(self._account_numbers)] = self._account_numbers
            self._account_numbers = room
        numbers = self._account_numbers[dimension]
        if int(numbers.min()) != _UNKNOWN:
            return numbers
        for dimension_id, account_id in accounts_of(
            np.unique(dimension[numbers == _UNKNOWN]).tolist()
        ).items():
            number = self._number_of.setdefault(account_id, len(self._account_ids))
            if number == len(self._account_ids):
                self._account_ids.append(account_id)
            self._account_numbers[dimension_id] = number
        return self._account_numbers[dimension]

    def _bits_of(self, month: _Month, key: tuple[str, str]) -> tuple[_BitArray, np.uint8]:
        place = month.places.setdefault(key, len(month.places))
        row, bit = divmod(place, _BITS)
        if row == len(month.bits):
            month.bits.append(np.zeros(_ROOM, np.uint8))
        if len(month.bits[row]) < len(self._account_ids):
            longer = np.zeros(2 * len(self._account_ids), np.uint8)
            longer[: len(month.bits[row])] = month.bits[row]
            month.bits[row] = longer
        return month.bits[row], np.uint8(1 << bit)

    def _only_month(self, end_ms: Int64Array) -> _Month | None:
        """Return the month in which all events ended, None when there are several."""
        month = self._month_at(int(end_ms.min()))
        return month if int(end_ms.max()) < month.end_ms else None

    def _months_of(self, end_ms: Int64Array) -> Iterator[_Month]:
        last_ms = int(end_ms.max())
        time_ms = int(end_ms.min())
        while time_ms <= last_ms:
            month = self._month_at(time_ms)
            yield month
            time_ms = month.end_ms

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


def month_of(time_ms: int) -> date:
    """Return the first day of an instant's month in UTC."""
    return to_time(time_ms).date().replace(day=1)


def _ms(day: date) -> int:
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
