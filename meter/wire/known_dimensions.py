"""Handles of dimensions by their bytes, as messages bring them."""

from collections.abc import Callable, Sequence

import numpy as np

from meter.domain import limits
from meter.domain.event import Int64Array
from meter.wire.known_texts import KnownTexts
from meter.wire.texts import Texts


class KnownDimensions:
    """Which handle serialized Dimensions have; grows until it is forgotten whole.

    `intern` gives the handle of those that are seen for the first time.
    """

    def __init__(self, intern: Callable[[bytes], int]) -> None:
        """Begin with none."""
        self._intern = intern
        self._handles: dict[bytes, int] = {}
        # Of the same ones, as many as it takes.
        self._texts = KnownTexts()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._handles)

    def find(self, blobs: Sequence[bytes]) -> Int64Array:
        """Return the handle of each."""
        known = self._handles
        handles = list(map(known.get, blobs))
        if None in handles:
            for place, blob in enumerate(blobs):
                if handles[place] is None:
                    handles[place] = found = self._intern(blob)
                    if len(blob) <= limits.DIMENSIONS_BYTES_REMEMBERED:
                        known[blob] = found
        return np.array(handles, np.int64)

    def find_texts(self, texts: Texts) -> Int64Array:
        """Return the handle of each, most of which have been seen: no object is made of those."""
        handles = self._texts.find(texts)
        if int(handles.min(initial=0)) < 0:
            is_unknown = handles < 0
            unknown = texts.take(is_unknown)
            blobs = unknown.each()
            new = {blob: place for place, blob in enumerate(blobs) if blob not in self._handles}
            handles[is_unknown] = found = self.find(blobs)
            if new:
                places = np.array(list(new.values()))
                self._texts.learn(unknown.take(places), found[places])
        return handles
