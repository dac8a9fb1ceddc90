"""Energy as the metrics show it: shared out at once by the tokens counted since the last time."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from meter.domain.boundary import Boundary
from meter.energy.attribute import attribute
from meter.energy.counters import EnergyDelta, IntervalEnergy, Source
from meter.energy.efficiency import PoolPower
from meter.energy.factory import IdlePolicy
from meter.energy.scrape import ScrapeFailure
from meter.metrics import Metrics

_MJ_PER_JOULE = 1_000
_MS_PER_SECOND = 1_000


class LiveEnergy:
    """Collects energy and tokens by pool until they are settled; safe to share between threads."""

    def __init__(self, metrics: Metrics, *, pools: Iterable[str]) -> None:
        """Take the metrics, and the pools whose power is to be known: invalid until it is."""
        self._metrics = metrics
        self._lock = threading.Lock()
        self._energy: dict[str, IntervalEnergy] = {}
        self._tokens: dict[str, Counter[str]] = {}
        self._settled_ms: dict[str, int] = {}
        for pool in pools:
            metrics.energy.power_valid.labels(pool).set(0)

    def add_tokens(self, *, pool: str, tier: str, output_tokens: int) -> None:
        """Take output tokens that were counted."""
        with self._lock:
            self._tokens.setdefault(pool, Counter())[tier] += output_tokens

    def add_energy(self, delta: EnergyDelta, *, source: Source) -> None:
        """Take energy that was recorded."""
        for pool, sums in delta.by_pool().items():
            metrics = self._metrics.energy
            joules = sums.measured_mj / _MJ_PER_JOULE
            metrics.joules.labels(pool, Boundary.BOARD, source).inc(joules)
            metrics.resets.labels(pool, source).inc(sums.reset_count)
            metrics.gap_seconds.labels(pool, source).inc(sums.gap_ms / _MS_PER_SECOND)
            with self._lock:
                total = self._energy.setdefault(pool, IntervalEnergy())
                total.measured_mj += sums.measured_mj
                total.gap_mj += sums.gap_mj

    def add_failure(self, failure: ScrapeFailure, *, pool: str) -> None:
        """Count a read of an exporter that gave less than it should."""
        self._metrics.energy.scrapes_failed.labels(pool, failure).inc()

    def settle(self, *, now_ms: int, gap_ms: int) -> None:
        """Share out what has been collected.

        Tokens wait for their pool's energy, which not each round brings, no longer than `gap_ms`.
        """
        with self._lock:
            energy, self._energy = self._energy, {}
            shares = []
            for pool, sums in energy.items():
                shares.append((pool, sums, self._tokens.pop(pool, Counter())))
                self._settled_ms[pool] = now_ms
            for pool in list(self._tokens):
                if now_ms - self._settled_ms.setdefault(pool, now_ms) > gap_ms:
                    del self._tokens[pool]
                    self._settled_ms[pool] = now_ms
        for pool, sums, tokens in shares:
            self._share_out(pool, sums, tokens)

    def show_power(self, pools: Sequence[PoolPower]) -> None:
        """Show whether each pool's power is known, and of when its last sample is."""
        for it in pools:
            self._metrics.energy.power_valid.labels(it.pool).set(it.is_valid)
            last_seconds = it.last_sample_ms / _MS_PER_SECOND
            self._metrics.energy.last_sample.labels(it.pool, Source.DCGM).set(last_seconds)

    def _share_out(self, pool: str, sums: IntervalEnergy, tokens: Counter[str]) -> None:
        shared = attribute(
            measured_mj=sums.measured_mj,
            gap_mj=sums.gap_mj,
            unmapped_mj=0,
            covered_ms=0,
            weights=dict(tokens),
            idle_mw=0,
            idle=IdlePolicy.UNATTRIBUTED,
        )
        for tier, share in shared.active_mj.items():
            self._metrics.energy.attributed.labels(pool, tier, "", Boundary.BOARD, "active").inc(
                share / _MJ_PER_JOULE
            )
        for reason, share in shared.unattributed_mj.items():
            self._metrics.energy.unattributed.labels(pool, Boundary.BOARD, reason).inc(
                share / _MJ_PER_JOULE
            )
