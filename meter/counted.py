"""What a round of counting has just added, in columns, and its sums by whatever listeners ask for.

A round has some ten thousand rows, several times a second: nothing here makes an object of a row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from meter.domain.event import BoolArray, Dimensions, Int64Array
from meter.domain.tokens import TokenClass

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Some of a round's events, evenly taken: what each ran on, and when it ended (ms, UTC)."""

    dimension_id: Int64Array
    end_ms: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """r rows, an int64 array each; `tokens` maps each class that occurs to its sums.

    `dimensions` has what the ids stand for, and maybe others. `sampled` are events of all rows.
    """

    dimension_id: Int64Array
    interval_start_ms: Int64Array
    band: Int64Array
    finish_class: Int64Array
    tokens: Mapping[TokenClass, Int64Array]
    request_count: Int64Array
    dimensions: Mapping[int, Dimensions]
    sampled: Sampled

    def of_interval(self, start_ms: int) -> "Counted":
        """Return the rows of one interval."""
        keep: BoolArray = self.interval_start_ms == start_ms
        return Counted(
            dimension_id=self.dimension_id[keep],
            interval_start_ms=self.interval_start_ms[keep],
            band=self.band[keep],
            finish_class=self.finish_class[keep],
            tokens={it: counts[keep] for it, counts in self.tokens.items()},
            request_count=self.request_count[keep],
            dimensions=self.dimensions,
            sampled=self.sampled,
        )

    def sums_by(self, groups: Int64Array) -> tuple[Int64Array, Mapping[TokenClass, Int64Array]]:
        """Return the distinct groups of the rows, in order, and the tokens of each."""
        distinct, places = np.unique(groups, return_inverse=True)
        sums = {}
        for token_class, counts in self.tokens.items():
            sums[token_class] = np.zeros(len(distinct), np.int64)
            np.add.at(sums[token_class], places, counts)
        return distinct, sums

    def totals_by(self, groups: Int64Array) -> Iterator[tuple[int, TokenClass, int]]:
        """Yield each group's tokens of each class; those of 0 are left out."""
        distinct, sums = self.sums_by(groups)
        for token_class, tokens in sums.items():
            for group, total in zip(distinct.tolist(), tokens.tolist(), strict=True):
                if total:
                    yield group, token_class, total


class Grouping(Generic[Key]):
    """Numbers what dimensions are grouped by, from 0; each dimension is looked at once."""

    def __init__(self, key_of: Callable[[Dimensions], Key]) -> None:
        """Take what a dimension is grouped by; keys are hashable."""
        self._key_of = key_of
        self._numbers: dict[Key, int] = {}
        # By dimension id, the number of its group; -1 is not looked at yet.
        self._known = np.full(1, -1, np.int64)
        self._keys: list[Key] = []

    @property
    def keys(self) -> Sequence[Key]:
        """The keys, by their numbers."""
        return self._keys

    def numbers(self, counted: Counted) -> Int64Array:
        """Return the number of each row's group."""
        return self.numbers_of(counted.dimension_id, counted.dimensions)

    def numbers_of(self, ids: Int64Array, dimensions: Mapping[int, Dimensions]) -> Int64Array:
        """Return the number of the group of each of these dimensions."""
        highest = int(ids.max(initial=0))
        if highest >= len(self._known):
            grown = np.full(highest + 1 - len(self._known), -1, np.int64)
            self._known = np.concatenate([self._known, np.append(grown, grown)])
        for dimension_id in np.unique(ids[self._known[ids] < 0]).tolist():
            key = self._key_of(dimensions[dimension_id])
            number = self._numbers.setdefault(key, len(self._keys))
            if number == len(self._keys):
                self._keys.append(key)
            self._known[dimension_id] = number
        return self._known[ids]
