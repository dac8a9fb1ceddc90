"""The journal, read back for one key: which segments hold the events of a sum."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from sqlalchemy import ARRAY, Engine, Text, and_, any_, literal, select

from meter.domain.event import SIGN, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_time
from meter.domain.tokens import BAND_EDGES, PROMPT_CLASSES
from meter.evidence import EvidenceQuery, SegmentEvidence
from meter.runtime.engine import store_faults
from meter.segment import Segment, decode
from meter.store.tables import cut_positions, dimensions, journal, skus

# Segments are large: each may hold some hundred thousand events.
_SEGMENTS_AT_ONCE: Final = 10
# Intervals since 1970 stay below this for a hundred thousand years.
_INTERVALS_MAX: Final = 2**32


class EvidenceStore:
    """Reads segments by their span of time, and their events by key."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find_segments(self, query: EvidenceQuery) -> Sequence[SegmentEvidence]:
        """Return the segments with tokens of the key's class, by shard and position."""
        starts = [start_ms for intervals in query.places.values() for start_ms in intervals]
        statement = (
            select(journal.c.shard, journal.c.position, journal.c.body)
            .join(
                cut_positions,
                and_(
                    cut_positions.c.shard == journal.c.shard,
                    cut_positions.c.cut_id == query.cut_id,
                    journal.c.position <= cut_positions.c.position,
                ),
            )
            .where(
                journal.c.first_end_time < to_time(max(starts) + INTERVAL_MS),
                journal.c.last_end_time >= to_time(min(starts)),
            )
            .order_by(journal.c.shard, journal.c.position)
        )
        found = []
        with store_faults(), self._engine.connect() as connection:
            wanted = _Wanted(query, dimension_ids=self._dimension_ids(query))
            rows = connection.execution_options(yield_per=_SEGMENTS_AT_ONCE).execute(statement)
            for shard, position, body in rows:
                events, tokens = wanted.sum_of(decode(bytes(body)))
                if events:
                    found.append(
                        SegmentEvidence(
                            shard=shard, position=position, event_count=events, token_count=tokens
                        )
                    )
        return found

    def _dimension_ids(self, query: EvidenceQuery) -> dict[str, list[int]]:
        """Return the ids of the key's dimensions, by account."""
        statement = (
            select(dimensions.c.account_id, dimensions.c.dimension_id)
            .join(skus, skus.c.sku_id == dimensions.c.sku_id)
            .where(
                dimensions.c.account_id == any_(literal(list(query.places), ARRAY(Text))),
                skus.c.tier == query.tier,
                skus.c.mode == int(query.mode),
            )
        )
        if query.model:
            statement = statement.where(skus.c.model == query.model)
        if query.served_model:
            statement = statement.where(skus.c.served_model == query.served_model)
        found: dict[str, list[int]] = {}
        with store_faults(), self._engine.connect() as connection:
            for account_id, dimension_id in connection.execute(statement):
                found.setdefault(account_id, []).append(dimension_id)
        return found


class _Wanted:
    """Tells a segment's events of a key from all others, by columns."""

    def __init__(self, query: EvidenceQuery, *, dimension_ids: dict[str, list[int]]) -> None:
        self._token_class = int(query.token_class)
        self._bands = np.array(sorted(query.bands), np.int64)
        self._codes = np.array(
            [
                dimension_id * _INTERVALS_MAX + start_ms // INTERVAL_MS
                for account_id, ids in dimension_ids.items()
                for dimension_id in ids
                for start_ms in query.places[account_id]
            ],
            np.int64,
        )

    def sum_of(self, segment: Segment) -> tuple[int, int]:
        """Return how many events have tokens of the class, and how many tokens.

        What a correction takes back is negative; its band is that of its prompt all the same.
        """
        counts = segment.tokens.get(self._token_class)
        if counts is None:
            return 0, 0
        intervals = segment.columns["end_ms"] // INTERVAL_MS
        codes = segment.columns["dimension"] * _INTERVALS_MAX + intervals
        matches = np.isin(codes, self._codes) & (counts != 0)
        if not matches.any():
            return 0, 0
        matches &= np.isin(np.searchsorted(BAND_EDGES, _prompt(segment), "right"), self._bands)
        if segment.is_correction:
            counts = counts * segment.columns[SIGN]
        return int(matches.sum()), int(counts[matches].sum())


def _prompt(segment: Segment) -> Int64Array:
    prompt = np.zeros(len(segment), np.int64)
    for token_class in PROMPT_CLASSES:
        counts = segment.tokens.get(int(token_class))
        if counts is not None:
            prompt += counts
    return prompt
