"""The journal, read back for one key: which segments hold the events of a sum."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import ARRAY, Engine, Text, and_, any_, literal, select

from meter.domain.event import Int64Array
from meter.domain.times import to_time
from meter.domain.tokens import BAND_EDGES, PROMPT_CLASSES
from meter.evidence import EvidenceQuery, SegmentEvidence
from meter.runtime.engine import store_faults
from meter.segment import Segment, decode
from meter.store.tables import cut_positions, dimensions, journal, skus


class EvidenceStore:
    """Reads segments by their span of time, and their events by key."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find_segments(self, query: EvidenceQuery) -> Sequence[SegmentEvidence]:
        """Return the segments with events of the key, by shard and position."""
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
                journal.c.first_end_time < to_time(query.end_ms),
                journal.c.last_end_time >= to_time(query.start_ms),
            )
            .order_by(journal.c.shard, journal.c.position)
        )
        found = []
        with store_faults(), self._engine.connect() as connection:
            wanted = self._dimension_ids(query)
            rows = connection.execution_options(yield_per=10).execute(statement)
            for shard, position, body in rows:
                segment = decode(bytes(body))
                matches = _matches(segment, query=query, dimension_ids=wanted)
                if not matches.any():
                    continue
                counts = segment.tokens.get(int(query.token_class))
                tokens = 0 if counts is None else int(counts[matches].sum())
                if tokens:
                    found.append(
                        SegmentEvidence(
                            shard=shard,
                            position=position,
                            event_count=int(matches.sum()),
                            token_count=tokens,
                        )
                    )
        return found

    def _dimension_ids(self, query: EvidenceQuery) -> Int64Array:
        statement = (
            select(dimensions.c.dimension_id)
            .join(skus, skus.c.sku_id == dimensions.c.sku_id)
            .where(
                dimensions.c.account_id == any_(literal(list(query.account_ids), ARRAY(Text))),
                skus.c.tier == query.tier,
                skus.c.mode == int(query.mode),
            )
        )
        if query.model:
            statement = statement.where(skus.c.model == query.model)
        if query.served_model:
            statement = statement.where(skus.c.served_model == query.served_model)
        with store_faults(), self._engine.connect() as connection:
            return np.array(connection.execute(statement).scalars().all(), np.int64)


def _matches(
    segment: Segment, *, query: EvidenceQuery, dimension_ids: Int64Array
) -> np.typing.NDArray[np.bool_]:
    ends = segment.columns["end_ms"]
    prompt = np.zeros(len(segment), np.int64)
    for token_class in PROMPT_CLASSES:
        counts = segment.tokens.get(int(token_class))
        if counts is not None:
            prompt += counts
    band = np.searchsorted(BAND_EDGES, prompt, "right")
    return (
        np.isin(segment.columns["dimension"], dimension_ids)
        & np.isin(band, np.array(list(query.bands), np.int64))
        & (ends >= query.start_ms)
        & (ends < query.end_ms)
    )
