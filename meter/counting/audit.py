"""Adds the journal up a second time, in a way of its own, and compares; pure, exact, in integers.

Nothing here is shared with `aggregate`: a mistake would have to be made twice to stay unseen.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from meter.counting.block import BANDS, EXTRAS, FINISHES, SUM_NAMES, Block, number_rows
from meter.counting.repeats import Int32Array
from meter.domain.event import Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.segment import Segment

_SKUS_MAX: Final = 2**31
# Events that are added up at a time: their columns stay near the processor.
_BLOCK_EVENTS: Final = 250_000
# Tables of sums grow to so many rows before those of one key are joined.
_ROWS_WAITING_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of event time that is audited in one piece: ms since 1970, on edges, half-open."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sku:
    """What was sold, as the database's dictionary has it."""

    model: str
    served_model: str
    tier: str
    mode: int
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The dictionaries of one snapshot.

    Account number n, from 1, is `accounts[n - 1]`; 0 stands for one that does not exist. The three
    arrays have an entry for each dimension.
    """

    accounts: Sequence[str]
    skus: Mapping[int, Sku]
    dimension_id: Int64Array
    account_number: Int64Array
    sku_id: Int64Array

    def account_name(self, number: int) -> str:
        """Return an account's id, or a mark that there is none."""
        return self.accounts[number - 1] if 1 <= number <= len(self.accounts) else "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRows:
    """Rows of usage as they are kept: an int64 array each, and `sums` of n × len(SUM_NAMES)."""

    account_number: Int64Array
    interval_start_ms: Int64Array
    sku_id: Int64Array
    band: Int64Array
    finish_class: Int64Array
    cut_id: Int64Array
    sums: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMarks:
    """Where cuts were taken: for each shard the cuts' ids and positions, in order."""

    newest_id: int
    by_shard: Mapping[int, tuple[Sequence[int], Sequence[int]]]

    def cut_of(self, shard: int, position: int) -> int:
        """Return the cut that a segment's usage carries: the first one taken at or above it."""
        ids, positions = self.by_shard.get(shard, ((), ()))
        place = bisect_left(positions, position)
        return ids[place] if place < len(ids) else self.newest_id + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A sum that is one number by the journal and another by usage.

    `name` is of SUM_NAMES. `finish_class` and `band` are as usage keeps them, and may be numbers
    that mean nothing where a row was damaged. `key` is what `Ledger.holds` takes.
    """

    interval_start_ms: int
    account_id: str
    sku: Sku | None
    band: int
    finish_class: int
    cut_id: int
    name: str
    journal: int
    usage: int
    key: int


class Ledger:
    """What one window comes to by the journal, beside what usage says.

    Segments are given with the cut that their usage carries; of their events those count that ended
    in the window.
    """

    def __init__(self, window: Window, *, catalogue: Catalogue, usage: UsageRows) -> None:
        self._window = window
        self._catalogue = catalogue
        self._usage = usage
        codes = catalogue.account_number * _SKUS_MAX + catalogue.sku_id
        used = usage.account_number * _SKUS_MAX + usage.sku_id
        # In the order of accounts, then of skus.
        self._pairs = np.unique(np.concatenate([codes, used]))
        self._cuts = int(usage.cut_id.max(initial=0)) + 2
        size = int(catalogue.dimension_id.max(initial=0)) + 1
        self._pair_of = np.full(size, -1, np.int64)
        self._pair_of[catalogue.dimension_id] = np.searchsorted(self._pairs, codes)
        self._account_of = np.zeros(size + 1, np.int32)
        self._account_of[catalogue.dimension_id] = catalogue.account_number
        self._tables: list[tuple[Int64Array, Int64Array]] = []
        self._waiting: list[Segment] = []
        self._waiting_cut = 0
        self._waiting_events = 0
        self.event_count = 0
        self.unknown_dimensions: set[int] = set()
        self.unknown_classes: set[int] = set()

    def add(self, segment: Segment, *, cut_id: int) -> None:
        """Take a segment."""
        if cut_id != self._waiting_cut or self._waiting_events >= _BLOCK_EVENTS:
            self._add_block()
            self._waiting_cut = cut_id
        self._waiting.append(segment)
        self._waiting_events += len(segment)

    def account_numbers(self, segment: Segment) -> Int32Array:
        """Return the number of each event's account; 0 where its dimension is not known."""
        # The last entry stands for all that is too large.
        known = np.minimum(segment.columns["dimension"], len(self._account_of) - 1)
        numbers: Int32Array = self._account_of[np.maximum(known, 0)]
        return numbers

    def totals(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return the window's sums by name, of the journal and of usage."""
        _, sums = self._joined()
        return _by_name(sums), _by_name(self._usage.sums)

    def differences(self) -> Iterator[Difference]:
        """Yield what differs, by interval, account and key; a row that one side lacks is zeros."""
        keys, sums = self._joined()
        kept_keys = self._usage_keys()
        every, places = np.unique(np.concatenate([keys, kept_keys]), return_inverse=True)
        journal = np.zeros((len(every), len(SUM_NAMES)), np.int64)
        usage = np.zeros_like(journal)
        np.add.at(journal, places[: len(keys)], sums)
        np.add.at(usage, places[len(keys) :], self._usage.sums)
        for row, column in np.argwhere(journal != usage).tolist():
            yield self._difference(
                int(every[row]),
                name=SUM_NAMES[column],
                journal=int(journal[row, column]),
                usage=int(usage[row, column]),
            )

    def holds(self, segment: Segment, *, cut_id: int, key: int) -> bool:
        """Tell whether a segment has an event of a difference's key."""
        keys, _, _ = self._sum_block([segment], cut_id=cut_id)
        return bool(np.isin(key, keys))

    def _difference(self, key: int, *, name: str, journal: int, usage: int) -> Difference:
        rest, cut_id = divmod(key, self._cuts)
        rest, extra = divmod(rest, EXTRAS)
        interval, pair = divmod(rest, len(self._pairs))
        account, sku_id = divmod(int(self._pairs[pair]), _SKUS_MAX)
        band, finish_class = divmod(extra, FINISHES)
        return Difference(
            interval_start_ms=self._window.start_ms + interval * INTERVAL_MS,
            account_id=self._catalogue.account_name(account),
            sku=self._catalogue.skus.get(sku_id),
            band=band,
            finish_class=finish_class,
            cut_id=cut_id,
            name=name,
            journal=journal,
            usage=usage,
            key=key,
        )

    def _usage_keys(self) -> Int64Array:
        rows = self._usage
        pair = np.searchsorted(self._pairs, rows.account_number * _SKUS_MAX + rows.sku_id)
        interval = (rows.interval_start_ms - self._window.start_ms) // INTERVAL_MS
        # What lies outside of all that exists is no key of the journal, and so is found.
        band = np.where((rows.band < 0) | (rows.band >= BANDS), BANDS - 1, rows.band)
        finish = np.where(
            (rows.finish_class < 0) | (rows.finish_class >= FINISHES), 0, rows.finish_class
        )
        cut = np.clip(rows.cut_id, 0, self._cuts - 1)
        code = interval * len(self._pairs) + pair
        keys: Int64Array = (code * EXTRAS + band * FINISHES + finish) * self._cuts + cut
        return keys

    def _find_pairs(self, dimension: Int64Array) -> Int64Array:
        if len(dimension) and dimension.min() >= 0 and dimension.max() < len(self._pair_of):
            pair: Int64Array = self._pair_of[dimension]
            return pair
        known = (dimension >= 0) & (dimension < len(self._pair_of))
        return np.where(known, self._pair_of[np.where(known, dimension, 0)], -1)

    def _joined(self) -> tuple[Int64Array, Int64Array]:
        """Return the rows of the journal's sums so far, each key once."""
        self._add_block()
        if not self._tables:
            return np.zeros(0, np.int64), np.zeros((0, len(SUM_NAMES)), np.int64)
        if len(self._tables) > 1:
            keys = np.concatenate([keys for keys, _ in self._tables])
            sums = np.concatenate([sums for _, sums in self._tables])
            order = np.argsort(keys, kind="stable")
            keys, sums = keys[order], sums[order]
            begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
            self._tables = [(keys[begins], np.add.reduceat(sums, begins))]
        return self._tables[0]

    def _add_block(self) -> None:
        waiting, self._waiting, self._waiting_events = self._waiting, [], 0
        if not waiting:
            return
        keys, sums, event_count = self._sum_block(waiting, cut_id=self._waiting_cut)
        self._tables.append((keys, sums))
        self.event_count += event_count
        if sum(len(keys) for keys, _ in self._tables) > _ROWS_WAITING_MAX:
            self._joined()

    def _sum_block(
        self, segments: Sequence[Segment], *, cut_id: int
    ) -> tuple[Int64Array, Int64Array, int]:
        """Return keys and sums of the events in the window, each key once, and their number."""
        block = Block(segments)
        end_ms = block.values("end_ms")
        if len(end_ms) and (
            end_ms.min() < self._window.start_ms or end_ms.max() >= self._window.end_ms
        ):
            block.keep((end_ms >= self._window.start_ms) & (end_ms < self._window.end_ms))
        pair = self._find_pairs(block.values("dimension"))
        if len(pair) and pair.min() < 0:
            self.unknown_dimensions.update(np.unique(block.values("dimension")[pair < 0]).tolist())
            block.keep(pair >= 0)
            pair = pair[pair >= 0]
        self.unknown_classes |= block.unknown_classes
        if not len(pair):
            return np.zeros(0, np.int64), np.zeros((0, len(SUM_NAMES)), np.int64), 0
        interval = (block.values("end_ms") - self._window.start_ms) // INTERVAL_MS
        extra = block.bands() * FINISHES + block.finish_classes()
        keys, row = number_rows(
            interval * len(self._pairs) + pair, size_of_pairs=len(self._pairs), extra=extra
        )
        sums = block.sums(row, count=len(keys), finish_class=keys % FINISHES)
        # A cut above all that usage has is one that no row carries.
        return keys * self._cuts + min(cut_id, self._cuts - 1), sums, len(pair)


def _by_name(sums: Int64Array) -> dict[str, int]:
    totals = sums.sum(axis=0)
    return {name: int(total) for name, total in zip(SUM_NAMES, totals, strict=True)}
