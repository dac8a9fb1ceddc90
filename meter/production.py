"""What a round of counting produced, as the metrics show it and as live energy is shared out by."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

import numpy as np

from meter.counted import Counted, Grouping
from meter.domain.event import Int64Array
from meter.domain.tokens import CACHED_CLASSES, OUTPUT_CLASSES, FinishClass, TokenClass
from meter.energy.live import LiveEnergy, Served
from meter.metrics import LAG_SECONDS, Metrics

_FINISHES: Final = len(FinishClass)
_MS_PER_SECOND: Final = 1_000
_BUCKETS: Final = len(LAG_SECONDS) + 1


class Production:
    """Hears what was counted, round by round, and notes it."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        live: LiveEnergy,
        now_ms: Callable[[], int],
        is_alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take where it is noted.

        Live energy hears of it while this server `is_alone`; else of what all servers counted, by
        `meter.energy.fleet`.
        """
        self._metrics = metrics
        self._live = live
        self._now_ms = now_ms
        self._is_alone = is_alone
        self._groups = Grouping(lambda of: (of.tier, of.model, of.pool))
        self._pools = Grouping(lambda of: of.pool)

    def counted(self, counted: Counted) -> None:
        """Note a round of counting."""
        numbers = self._groups.numbers(counted)
        by_group: defaultdict[int, dict[TokenClass, int]] = defaultdict(dict)
        for number, token_class, total in counted.totals_by(numbers):
            by_group[number][token_class] = total
            self._metrics.tokens.labels(*self._groups.keys[number], token_class.name).inc(total)
        codes = numbers * _FINISHES + (counted.finish_class - 1)
        counts: defaultdict[int, int] = defaultdict(int)
        for code, count in _sums(codes, counted.request_count):
            number, finish = divmod(code, _FINISHES)
            name = FinishClass(finish + 1).name.lower()
            self._metrics.requests.labels(*self._groups.keys[number], name).inc(count)
            counts[number] += count
        for number, tokens in by_group.items():
            self._serve(number, tokens, request_count=counts[number])
        self._note_lag(counted)

    def _serve(self, number: int, tokens: dict[TokenClass, int], *, request_count: int) -> None:
        tier, model, pool = self._groups.keys[number]
        if not pool or not self._is_alone():
            return
        output = sum(tokens[it] for it in tokens.keys() & OUTPUT_CLASSES)
        cached = sum(tokens[it] for it in tokens.keys() & CACHED_CLASSES)
        self._live.add_served(
            Served(
                pool=pool,
                tier=tier,
                model=model,
                input_tokens=sum(tokens.values()) - output - cached,
                cached_tokens=cached,
                output_tokens=output,
                request_count=request_count,
            )
        )

    def _note_lag(self, counted: Counted) -> None:
        sampled = counted.sampled
        numbers = self._pools.numbers_of(sampled.dimension_id, counted.dimensions)
        # A request that ended after now, by a clock that runs ahead, came at once.
        lag_seconds = np.maximum(self._now_ms() - sampled.end_ms, 0) / _MS_PER_SECOND
        codes = numbers * _BUCKETS + np.searchsorted(LAG_SECONDS, lag_seconds)
        counts = np.bincount(codes, minlength=_BUCKETS * len(self._pools.keys))
        totals = np.bincount(numbers, lag_seconds, minlength=len(self._pools.keys))
        for number in np.unique(numbers).tolist():
            buckets = counts[number * _BUCKETS : (number + 1) * _BUCKETS].tolist()
            total = float(totals[number])
            pool = self._pools.keys[number]
            self._metrics.report_lag.add(pool, counts=buckets, total=total)


def _sums(codes: Int64Array, values: Int64Array) -> list[tuple[int, int]]:
    distinct, places = np.unique(codes, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, places, values)
    return [
        (code, count) for code, count in zip(distinct.tolist(), sums.tolist(), strict=True) if count
    ]
