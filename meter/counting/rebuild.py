"""Usage made again from the journal, as counting makes it, and kept in memory; exact, in integers.

Who reads it reads what usage would say if nobody had ever touched it. It has no ways of ending:
nothing is priced by them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from meter.counting.aggregate import UsageDelta, aggregate
from meter.counting.audit import Catalogue, Sku, Window
from meter.domain.event import BoolArray, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES, FinishClass, Mode, TokenClass
from meter.segment import Segment
from meter.usage import UsageFact

_BANDS: Final = len(BAND_EDGES) + 1
_SKUS_MAX: Final = 2**31
# A key is (pair, interval, cut, band): there are fewer cuts, and fewer intervals, than this.
_CUTS_MAX: Final = 2**16
_INTERVALS_MAX: Final = 2**22

# Events that are added up at a time, and rows of sums that wait before those of one key are joined.
_BLOCK_EVENTS: Final = 250_000
_ROWS_WAITING_MAX: Final = 1_000_000
# Keys, and their sums: requests, then tokens by class in the order in which classes were seen.
_Table: TypeAlias = tuple[Int64Array, Int64Array]


class Rebuilding:
    """Takes segments window by window, and becomes the usage that they come to."""

    def __init__(self) -> None:
        """Begin with nothing."""
        # Numbers of accounts may move while an audit runs: accounts are told by their ids.
        self._pairs: dict[tuple[str, int], int] = {}
        self._catalogue: Catalogue | None = None
        self._pair_of: Int64Array = np.zeros(0, np.int64)
        self._classes: list[TokenClass] = []
        self._tables: list[_Table] = []
        self._waiting: list[Segment] = []
        self._waiting_for: tuple[int, Window] | None = None
        self._waiting_events = 0

    def add(self, segment: Segment, *, cut_id: int, window: Window, catalogue: Catalogue) -> None:
        """Take the events of a segment that ended in a window, which usage has under a cut."""
        if catalogue is not self._catalogue:
            self._add_waiting()
            self._take_catalogue(catalogue)
        if self._waiting_for != (cut_id, window) or self._waiting_events >= _BLOCK_EVENTS:
            self._add_waiting()
            self._waiting_for = (cut_id, window)
        self._waiting.append(segment)
        self._waiting_events += len(segment)

    def usage(self) -> "RebuiltUsage":
        """Return what all of it comes to."""
        self._add_waiting()
        self._join()
        keys = np.zeros(0, np.int64)
        sums = np.zeros((0, len(self._classes) + 1), np.int64)
        if self._tables:
            keys, sums = self._tables[0]
        skus = {} if self._catalogue is None else self._catalogue.skus
        return RebuiltUsage(
            keys=keys, sums=sums, classes=self._classes, pairs=list(self._pairs), skus=skus
        )

    def _take_catalogue(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        size = int(catalogue.dimension_id.max(initial=0)) + 1
        codes = catalogue.account_number * _SKUS_MAX + catalogue.sku_id
        distinct, place = np.unique(codes, return_inverse=True)
        numbers = []
        for code in distinct.tolist():
            account, sku_id = divmod(code, _SKUS_MAX)
            pair = (catalogue.account_name(account), sku_id)
            numbers.append(self._pairs.setdefault(pair, len(self._pairs)))
        self._pair_of = np.full(size, -1, np.int64)
        self._pair_of[catalogue.dimension_id] = np.array(numbers, np.int64)[place]

    def _add_waiting(self) -> None:
        waiting, self._waiting, self._waiting_events = self._waiting, [], 0
        if not waiting:
            return
        assert self._waiting_for is not None
        cut_id, window = self._waiting_for
        delta = aggregate(waiting)
        known = (delta.dimension_id >= 0) & (delta.dimension_id < len(self._pair_of))
        pair = np.where(known, self._pair_of[np.where(known, delta.dimension_id, 0)], -1)
        kept = (delta.interval_start_ms >= window.start_ms) & (pair >= 0)
        kept &= delta.interval_start_ms < window.end_ms
        self._classes += sorted(delta.tokens.keys() - set(self._classes))
        self._tables.append(_to_table(delta, kept, pair=pair, cut_id=cut_id, classes=self._classes))
        if sum(len(keys) for keys, _ in self._tables) > _ROWS_WAITING_MAX:
            self._join()

    def _join(self) -> None:
        if not self._tables:
            return
        keys = np.concatenate([keys for keys, _ in self._tables])
        # Of a class that was not seen yet, earlier tables have none.
        wide = len(self._classes) + 1
        sums = np.concatenate(
            [np.pad(sums, ((0, 0), (0, wide - sums.shape[1]))) for _, sums in self._tables]
        )
        order = np.argsort(keys, kind="stable")
        keys, sums = keys[order], sums[order]
        if len(keys):
            begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
            keys, sums = keys[begins], np.add.reduceat(sums, begins)
        self._tables = [(keys, sums)]


class RebuiltUsage:
    """Usage by account, sku, interval, cut and band, read as that of the database is.

    See `meter.usage`: facts and sums are those of the journal.
    """

    def __init__(
        self,
        *,
        keys: Int64Array,
        sums: Int64Array,
        classes: Sequence[TokenClass],
        pairs: Sequence[tuple[str, int]],
        skus: Mapping[int, Sku],
    ) -> None:
        """Take rows in the order of their keys."""
        rest, self._band = np.divmod(keys, _BANDS)
        rest, self._cut = np.divmod(rest, _CUTS_MAX)
        self._pair, interval = np.divmod(rest, _INTERVALS_MAX)
        self._start_ms = interval * INTERVAL_MS
        self._sums = sums
        self._classes = classes
        self._pairs = pairs
        self._skus = skus
        self._pairs_of: dict[str, list[int]] = {}
        for number, (account_id, _) in enumerate(pairs):
            self._pairs_of.setdefault(account_id, []).append(number)

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield the facts in a span, by account, interval and key."""
        starts = np.unique(self._start_ms[self._rows(account_ids, start_ms, end_ms, cut_id)])
        edges = [*starts.tolist(), end_ms]
        if len(edges) > 1:
            yield from self.sums(account_ids=account_ids, edges_ms=edges, cut_id=cut_id)

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield usage added up between edges, by account, edge and key."""
        rows = self._rows(account_ids, edges_ms[0], edges_ms[-1], cut_id)
        edges = np.array(edges_ms, np.int64)
        place = np.searchsorted(edges, self._start_ms[rows], "right") - 1
        codes = (self._pair[rows] * len(edges) + place) * _BANDS + self._band[rows]
        distinct, at = np.unique(codes, return_inverse=True)
        sums = np.zeros((len(distinct), self._sums.shape[1]), np.int64)
        np.add.at(sums, at, self._sums[rows])
        found = []
        for code, counts in zip(distinct.tolist(), sums.tolist(), strict=True):
            rest, band = divmod(code, _BANDS)
            pair, place_of = divmod(rest, len(edges))
            account_id, sku_id = self._pairs[pair]
            found.append(((account_id, place_of, sku_id, band), counts))
        for (account_id, place_of, sku_id, band), counts in sorted(found):
            yield self._to_fact(account_id, sku_id, edges_ms[place_of], band=band, counts=counts)

    def latest_cuts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """Return for each account with usage in a span its newest cut in there."""
        rows = self._rows(account_ids, start_ms, end_ms, None)
        found: dict[str, int] = {}
        for pair, cut_id in zip(self._pair[rows].tolist(), self._cut[rows].tolist(), strict=True):
            account_id = self._pairs[pair][0]
            found[account_id] = max(found.get(account_id, 0), cut_id)
        return found

    def drifted(
        self,
        *,
        account_ids: Collection[str],  # noqa: ARG002  as of `UsageSums`
        start_ms: int,  # noqa: ARG002
        end_ms: int,  # noqa: ARG002
    ) -> frozenset[str]:
        """Return nothing: these sums are made of what they are compared with."""
        return frozenset()

    def accounts_with_usage(self, *, start_ms: int, end_ms: int) -> frozenset[str]:
        """Return the ids of the accounts that have any usage in a span."""
        found = self.sums(
            account_ids=list(self._pairs_of), edges_ms=[start_ms, end_ms], cut_id=None
        )
        return frozenset(fact.account_id for fact in found if fact.request_count)

    def counted_until_ms(self) -> int:
        """Return 0: what is rebuilt says by its cut how far it goes."""
        return 0

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return nothing: there is nothing to wait for."""
        return {}

    def is_counted(self, positions: Mapping[int, int]) -> bool:  # noqa: ARG002  see above
        """Tell that there is nothing to wait for."""
        return True

    def _rows(
        self, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Int64Array:
        """Return the rows of accounts in a span, at or below a cut; they lie together by pair."""
        numbers = sorted(it for each in account_ids for it in self._pairs_of.get(each, ()))
        first = np.searchsorted(self._pair, numbers)
        last = np.searchsorted(self._pair, numbers, "right")
        parts = [np.arange(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
        rows = np.concatenate([np.zeros(0, np.int64), *parts])
        wanted: BoolArray = (self._start_ms[rows] >= start_ms) & (self._start_ms[rows] < end_ms)
        if cut_id is not None:
            wanted &= self._cut[rows] <= cut_id
        return rows[wanted]

    def _to_fact(
        self, account_id: str, sku_id: int, start_ms: int, *, band: int, counts: Sequence[int]
    ) -> UsageFact:
        sku = self._skus[sku_id]
        return UsageFact(
            account_id=account_id,
            interval_start_ms=start_ms,
            model=sku.model,
            served_model=sku.served_model or sku.model,
            tier=sku.tier,
            mode=Mode(sku.mode),
            region=sku.region,
            band=band,
            finish_class=FinishClass.DELIVERED,
            tokens={it: n for it, n in zip(self._classes, counts[1:], strict=True) if n},
            request_count=counts[0],
        )


def _to_table(
    delta: UsageDelta,
    kept: BoolArray,
    *,
    pair: Int64Array,
    cut_id: int,
    classes: Sequence[TokenClass],
) -> _Table:
    interval = delta.interval_start_ms[kept] // INTERVAL_MS
    assert cut_id < _CUTS_MAX, "there are fewer cuts"
    keys = (pair[kept] * _INTERVALS_MAX + interval) * _CUTS_MAX + cut_id
    sums = np.zeros((len(keys), len(classes) + 1), np.int64)
    sums[:, 0] = delta.request_count[kept]
    for place, token_class in enumerate(classes, 1):
        counts = delta.tokens.get(token_class)
        if counts is not None:
            sums[:, place] = counts[kept]
    return keys * _BANDS + delta.band[kept], sums
