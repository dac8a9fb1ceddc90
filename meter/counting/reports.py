"""Which producers report for which accounts, as counting meets it; pure.

Nearly every batch says what is known already, so what is known lies in arrays of bits: looking at
an event takes some ten nanoseconds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from meter.domain.event import BoolArray, IntArray, ProducerKey
from meter.domain.times import to_ms, to_time
from meter.segment import Gathered

AccountsOf: TypeAlias = Callable[[Collection[int]], Mapping[int, str]]

# Usage is recorded up to 35 days late: at one time reports are of two months, seldom three.
_MONTHS_KEPT: Final = 3
_UNKNOWN: Final = -1
_ROOM: Final = 1024
_BITS: Final = 8
# A pair is a producer's place above an account's number, which is an int32.
_NUMBER_BITS: Final = 32
_NO_PAIRS: Final = np.zeros(0, np.int64)
_ALL: Final = 255
# A place that is nobody's, among those of the first row.
_NOBODY: Final = 0
# Small segments are looked at together, up to so many events: each look has a price of its own.
_EVENTS_AT_ONCE: Final = 32_768
# Numbered accounts are int32: more than there can be.
_IndexArray: TypeAlias = "npt.NDArray[np.int32]"
_BitArray: TypeAlias = "npt.NDArray[np.uint8]"


class Reports(NamedTuple):
    """A producer reported usage of these accounts in a month, which is its first day in UTC."""

    key_account: str
    producer: str
    month: date
    account_ids: Sequence[str]


class ReportsOf(Protocol):
    """Knows what is written of producers."""

    def __call__(self, month: date, keys: Collection[ProducerKey], /) -> Iterable[Reports]:
        """Return what some producers have reported in a month; one may stand there often."""
        ...


@dataclass(slots=True, eq=False)
class _Month:
    """Who is known to have reported in a month: a bit for each producer and account.

    Eight producers share a row of `bits`, whose columns are accounts. The first row has all bits:
    it is nobody's, who says nothing new. Of producers that are `met` all is known that is written.
    """

    start_ms: int
    end_ms: int
    first_day: date
    places: dict[ProducerKey, int] = field(default_factory=dict)
    met: set[int] = field(default_factory=set)
    bits: _BitArray = field(default_factory=lambda: np.full((1, _ROOM), _ALL, np.uint8))

    def place_of(self, key: ProducerKey) -> int:
        """Return the place of a producer: its row, and its bit there."""
        return self.places.setdefault(key, _BITS + len(self.places)) if key[1] else _NOBODY

    def keys(self) -> list[ProducerKey]:
        """Return producers by their places."""
        return [("", "")] * _BITS + list(self.places)

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

    def know(self, pairs: IntArray) -> None:
        """Take over pairs of a producer's place and an account's number; there is room."""
        places, numbers = _apart(pairs)
        np.bitwise_or.at(self.bits, (places // _BITS, numbers), _mask(places))

    def without_known(self, pairs: IntArray) -> IntArray:
        """Return the pairs that are not known."""
        places, numbers = _apart(pairs)
        unknown: IntArray = pairs[(self.bits[places // _BITS, numbers] & _mask(places)) == 0]
        return unknown


@dataclass(frozen=True, slots=True)
class News:
    """What was found and is not known, as pairs of places and numbers; sorted, each once."""

    month: _Month
    pairs: IntArray


class ReportMemory:
    """What counting has written of who reported for whom; for one thread.

    `find_new` names what is not known, `spell_out` tells it in names, and `learn` takes it over
    once that is committed.
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

    def find_new(
        self, segments: Iterable[Gathered], *, accounts_of: AccountsOf, reports_of: ReportsOf
    ) -> list[News]:
        """Return what these segments say and is not known, in any order.

        Calls without a producer say nothing, and corrections neither. `accounts_of` returns the
        accounts of dimensions; `reports_of` what is written of producers that were not met before.
        """
        found: dict[_Month, list[IntArray]] = {}
        for parts in _portions(filter(_says_something, segments)):
            accounts = self._accounts(_joined(parts, "dimension"), accounts_of)
            for month, pairs in self._of_segments(parts, accounts):
                found.setdefault(month, []).append(pairs)
        news = []
        for month, portions in found.items():
            pairs = _distinct(np.concatenate(portions))
            self._meet(month, _distinct(_apart(pairs)[0]).tolist(), reports_of)
            pairs = month.without_known(pairs)
            if len(pairs):
                news.append(News(month, pairs))
        return news

    def knows(self, part: Gathered) -> bool:
        """Tell whether a segment says nothing new; False where a dimension was not met before."""
        if not _says_something(part):
            return True
        accounts = self._find_accounts(part.columns["dimension"])
        return accounts is not None and next(self._of_segments([part], accounts), None) is None

    def spell_out(self, news: Iterable[News]) -> Iterator[Reports]:
        """Yield what was found, a producer's accounts of a month together and sorted."""
        parts: dict[_Month, list[IntArray]] = {}
        for it in news:
            parts.setdefault(it.month, []).append(it.pairs)
        for month, found in parts.items():
            keys = month.keys()
            places, numbers = _apart(_distinct(np.concatenate(found)))
            ids, rank = self._in_order(numbers)
            # A producer's accounts in the order of their names, and those of all in one sort.
            places, ranks = _apart(np.sort((places << _NUMBER_BITS) + rank))
            names = ids.take(ranks).tolist()
            starts = np.flatnonzero(np.diff(places, prepend=_UNKNOWN))
            ends = [*starts[1:].tolist(), len(names)]
            for place, start, end in zip(
                places[starts].tolist(), starts.tolist(), ends, strict=True
            ):
                key_account, producer = keys[place]
                yield Reports(key_account, producer, month.first_day, names[start:end])

    def learn(self, news: Iterable[News]) -> None:
        """Take over what was written."""
        for it in news:
            it.month.make_room(len(self._account_ids))
            it.month.know(it.pairs)

    def _meet(self, month: _Month, places: Collection[int], reports_of: ReportsOf) -> None:
        """Know of producers what is written of them: another server may have, or one of before."""
        strange = sorted(set(places) - month.met)
        if not strange:
            return
        keys = month.keys()
        for it in reports_of(month.first_day, [keys[place] for place in strange]):
            place = month.places[it.key_account, it.producer]
            numbers = [self._number(account_id) for account_id in it.account_ids]
            month.make_room(len(self._account_ids))
            month.know((place << _NUMBER_BITS) + np.array(numbers, np.int64))
        month.met.update(strange)

    def _of_segments(
        self, parts: Sequence[Gathered], accounts: _IndexArray
    ) -> Iterator[tuple[_Month, IntArray]]:
        end_ms = _joined(parts, "end_ms")
        first_ms, last_ms = int(end_ms.min()), int(end_ms.max())
        time_ms = first_ms
        while time_ms <= last_ms:
            month = self._month_at(time_ms)
            is_whole = time_ms == first_ms and last_ms < month.end_ms
            inside = None if is_whole else (end_ms >= month.start_ms) & (end_ms < month.end_ms)
            pairs = self._unknown(parts, month, accounts, inside)
            if len(pairs):
                yield month, pairs
            time_ms = month.end_ms

    def _unknown(
        self,
        parts: Sequence[Gathered],
        month: _Month,
        accounts: _IndexArray,
        inside: BoolArray | None,
    ) -> IntArray:
        """Return what events of a month say and is not known."""
        origins = [it for part in parts for it in part.origins]
        counts = [count for _, count in origins]
        places = np.array([month.place_of(origin.producer_key) for origin, _ in origins], np.int64)
        month.make_room(len(self._account_ids))
        bits = month.bits
        cells = np.repeat(places // _BITS * bits.shape[1], counts) + accounts
        is_new = (bits.ravel().take(cells) & np.repeat(_mask(places), counts)) == 0
        if inside is not None:
            is_new &= inside
        new = np.flatnonzero(is_new)
        if not len(new):
            return _NO_PAIRS
        return _distinct(np.repeat(places << _NUMBER_BITS, counts)[new] + accounts[new])

    def _find_accounts(self, dimension: IntArray) -> "_IndexArray | None":
        """Return the number of each event's account, None where one is not known."""
        if int(dimension.max()) >= len(self._account_numbers):
            return None
        # Three times as fast as brackets, of numbers that are narrow.
        numbers = self._account_numbers.take(dimension)
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
            self._account_numbers[dimension_id] = self._number(account_id)
        return self._account_numbers[dimension]

    def _in_order(self, numbers: IntArray) -> "tuple[npt.NDArray[np.object_], IntArray]":
        """Return the names of accounts, sorted, and the place of each one's among them."""
        known = sorted(_distinct(numbers).tolist(), key=self._account_ids.__getitem__)
        rank = np.zeros(len(self._account_ids), np.int64)
        rank[known] = np.arange(len(known))
        return np.array([self._account_ids[it] for it in known], np.object_), rank[numbers]

    def _number(self, account_id: str) -> int:
        number = self._number_of.setdefault(account_id, len(self._account_ids))
        if number == len(self._account_ids):
            self._account_ids.append(account_id)
        return number

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


def _apart(pairs: IntArray) -> tuple[IntArray, IntArray]:
    """Return the places and the numbers of pairs."""
    return pairs >> _NUMBER_BITS, pairs & ((1 << _NUMBER_BITS) - 1)


def _distinct(values: IntArray) -> IntArray:
    """Return values sorted, each once: of large numbers numpy's `unique` takes forty times this."""
    ordered = np.sort(values)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=_UNKNOWN))]


def _mask(places: IntArray) -> _BitArray:
    """Return the bit of each place in its row."""
    return (1 << places % _BITS).astype(np.uint8)


def _portions(segments: Iterable[Gathered]) -> Iterator[list[Gathered]]:
    """Yield segments, small ones together."""
    portion: list[Gathered] = []
    event_count = 0
    for part in segments:
        portion.append(part)
        event_count += len(part)
        if event_count >= _EVENTS_AT_ONCE:
            yield portion
            portion, event_count = [], 0
    if portion:
        yield portion


def _joined(parts: Sequence[Gathered], name: str) -> IntArray:
    """Return a column that all segments have."""
    columns = [part.columns[name] for part in parts]
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _says_something(part: Gathered) -> bool:
    return not part.is_correction and any(origin.producer for origin, _ in part.origins)


def month_of(time_ms: int) -> date:
    """Return the first day of an instant's month in UTC."""
    return to_time(time_ms).date().replace(day=1)


def _ms(day: date) -> int:
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
