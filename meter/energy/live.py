"""Energy as the metrics show it: shared out at once by the tokens counted since the last time.

The function that shares it out is the one by which whole intervals are attributed; only the time
over which it looks is another.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from meter.consumption import SitePue
from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.domain.units import MJ_PER_JOULE, MJ_PER_KILOWATT_HOUR
from meter.energy.attribute import Attribution, attribute
from meter.energy.counters import Source
from meter.energy.delta import EnergyDelta, IntervalEnergy, Place
from meter.energy.factory import UNDESCRIBED, Carbon, Factory, IdlePolicy
from meter.energy.sources.port import SourceFailure
from meter.energy.validity import PoolPower, PowerFault
from meter.metrics import Metrics

_MS_PER_SECOND: Final = 1_000
# Tokens belong to boards and to hosts alike: each boundary's energy is shared out on its own.
_BOUNDARIES: Final = (Boundary.BOARD, Boundary.HOST)
# A host that reported within this time is what a pool's machines take; else its boards are.
_HOST_KNOWN_MS: Final = 2 * INTERVAL_MS

_NOTHING: Final[Mapping[str, SitePue]] = MappingProxyType({})

# Tier and model.
_Kind: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a pool served of a model at a tier, as it was counted; counts ≥ 0."""

    pool: str
    tier: str
    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    request_count: int = 0


@dataclass(slots=True)
class _Waiting:
    """What waits for its pool's energy: what its tokens weigh, and how many requests they are."""

    weight: int = 0
    request_count: int = 0


class LiveEnergy:
    """Collects energy and tokens by place until they are settled; safe to share between threads."""

    def __init__(self, metrics: Metrics, *, pools: Iterable[str]) -> None:
        """Take the metrics, and the pools whose power is to be known: invalid until it is."""
        self._metrics = metrics.energy
        self._pools = frozenset(pools)
        self._lock = threading.Lock()
        self._factory = UNDESCRIBED
        self._pues: Mapping[str, SitePue] = _NOTHING
        self._energy: dict[Place, IntervalEnergy] = {}
        self._waiting: dict[Place, dict[_Kind, _Waiting]] = {}
        self._settled_ms: dict[Place, int] = {}
        self._hosts_ms: dict[str, int] = {}
        self._reported: set[Place] = set()
        # By place, what was measured less what was shared out; whole mJ, as all sums here.
        self._balances_mj: dict[Place, int] = {}
        for pool in self._pools:
            self._metrics.power_valid.labels(pool).set(0)

    def describe(self, factory: Factory, *, pues: Mapping[str, SitePue] = _NOTHING) -> None:
        """Take the description by which energy is shared out from now on, and PUE by pool."""
        with self._lock:
            self._factory, self._pues = factory, pues

    def add_served(self, served: Served) -> None:
        """Take tokens that were counted."""
        with self._lock:
            weights = self._factory.weights_of(pool=served.pool, model=served.model)
            weight = weights.weigh(
                input_tokens=served.input_tokens,
                cached_tokens=served.cached_tokens,
                output_tokens=served.output_tokens,
            )
            for boundary in _BOUNDARIES:
                kinds = self._waiting.setdefault((boundary, served.pool), {})
                waiting = kinds.setdefault((served.tier, served.model), _Waiting())
                waiting.weight += weight
                waiting.request_count += served.request_count

    def add_energy(self, delta: EnergyDelta, *, source: Source) -> None:
        """Take energy that was recorded."""
        for place, sums in delta.by_place().items():
            boundary, name = place
            if boundary is Boundary.FACILITY:
                self._metrics.site_joules.labels(name).inc(sums.measured_mj / MJ_PER_JOULE)
                continue
            self._count(name, boundary, sums, source=source)
            with self._lock:
                self._energy.setdefault(place, IntervalEnergy()).add(sums)
                self._balances_mj[place] = self._balances_mj.get(place, 0) + sums.measured_mj
                (self._reported.add if source is Source.REPORTED else self._reported.discard)(place)

    def add_failure(self, failure: SourceFailure, *, pool: str) -> None:
        """Count a read of a source that gave less than it should."""
        self._metrics.scrapes_failed.labels(pool, failure).inc()

    def add_ignored(self, *, pool: str) -> None:
        """Count a reading of a device that another source or pool has."""
        self._metrics.ignored.labels(pool, "conflict").inc()

    def settle(self, *, now_ms: int, gap_ms: int) -> None:
        """Share out what has been collected.

        Tokens wait for their place's energy, which not each round brings, no longer than `gap_ms`,
        or than an interval where it is reported.
        """
        with self._lock:
            factory = self._factory
            energy, self._energy = self._energy, {}
            shares = []
            for place, sums in energy.items():
                shares.append((place, sums, self._waiting.pop(place, {})))
                self._settled_ms[place] = now_ms
                if place[0] is Boundary.HOST:
                    self._hosts_ms[place[1]] = now_ms
            self._forget_waiting(now_ms=now_ms, gap_ms=gap_ms)
        for place, sums, waiting in shares:
            self._share_out(place, sums, waiting, factory=factory, now_ms=now_ms)

    def show_power(self, pools: Sequence[PoolPower]) -> None:
        """Show whether each pool's power is known, why not, and of when its last samples are."""
        metrics = self._metrics
        samples, checks = set(), set()
        for it in pools:
            metrics.power_valid.labels(it.pool).set(it.is_valid)
            for fault in PowerFault:
                metrics.power_fault.labels(it.pool, fault).set(fault in it.faults)
            for source, last_ms in it.last_samples_ms.items():
                metrics.last_sample.labels(it.pool, source).set(last_ms / _MS_PER_SECOND)
                samples.add((it.pool, source.value))
            if it.cross_check_ratio is not None:
                metrics.cross_check.labels(it.pool).set(it.cross_check_ratio)
                checks.add((it.pool,))
        known = {it.pool for it in pools}
        metrics.power_valid.keep({(pool,) for pool in known | self._pools})
        metrics.power_fault.keep({(pool, fault.value) for pool in known for fault in PowerFault})
        metrics.last_sample.keep(samples)
        metrics.cross_check.keep(checks)

    def _count(
        self, pool: str, boundary: Boundary, sums: IntervalEnergy, *, source: Source
    ) -> None:
        metrics = self._metrics
        metrics.joules.labels(pool, boundary, source).inc(sums.measured_mj / MJ_PER_JOULE)
        if sums.estimated_mj:
            method = "static" if source is Source.STATIC else "gauge_integral"
            joules = sums.estimated_mj / MJ_PER_JOULE
            metrics.estimated.labels(pool, boundary, method).inc(joules)
        metrics.resets.labels(pool, source).inc(sums.reset_count)
        metrics.gap_seconds.labels(pool, source).inc(sums.gap_ms / _MS_PER_SECOND)

    def _forget_waiting(self, *, now_ms: int, gap_ms: int) -> None:
        for place in list(self._waiting):
            is_prompt = place[0] is Boundary.BOARD and place not in self._reported
            kept_ms = gap_ms if is_prompt else max(gap_ms, INTERVAL_MS)
            if now_ms - self._settled_ms.setdefault(place, now_ms) > kept_ms:
                del self._waiting[place]
                self._settled_ms[place] = now_ms

    def _share_out(
        self,
        place: Place,
        sums: IntervalEnergy,
        waiting: dict[_Kind, _Waiting],
        *,
        factory: Factory,
        now_ms: int,
    ) -> None:
        boundary, pool = place
        described = factory.pools.get(pool)
        shared = attribute(
            measured_mj=sums.measured_mj,
            gap_mj=sums.gap_mj,
            unmapped_mj=sums.unmapped_mj,
            covered_ms=sums.covered_ms,
            weights={kind: it.weight for kind, it in waiting.items()},
            idle_mw=0 if described is None else described.idle_mw,
            idle=IdlePolicy.UNATTRIBUTED if described is None else described.idle,
        )
        metrics = self._metrics
        for kind, shares in (("active", shared.active_mj), ("idle", shared.idle_mj)):
            for (tier, model), share in shares.items():
                joules = share / MJ_PER_JOULE
                metrics.attributed.labels(pool, tier, model, boundary, kind).inc(joules)
        for reason, share in shared.unattributed_mj.items():
            metrics.unattributed.labels(pool, boundary, reason).inc(share / MJ_PER_JOULE)
        self._balance(place, shared)
        totals = _totals(shared)
        if boundary is Boundary.BOARD:
            for (tier, model), total in totals.items():
                count = waiting[tier, model].request_count
                if count > 0:
                    mean = total / count / MJ_PER_JOULE
                    metrics.request_joules.observe(tier, mean, count=count)
        if boundary is self._it_boundary(pool, now_ms=now_ms):
            self._emit(totals, pool=pool, factory=factory)

    def _balance(self, place: Place, shared: Attribution[_Kind]) -> None:
        """Show what is neither shared out nor waits to be."""
        parts = (shared.active_mj, shared.idle_mj, shared.unattributed_mj)
        with self._lock:
            self._balances_mj[place] -= sum(sum(it.values()) for it in parts)
            waiting = self._energy.get(place, IntervalEnergy()).measured_mj
            residual_mj = self._balances_mj[place] - waiting
        boundary, pool = place
        self._metrics.residual.labels(pool, boundary).set(residual_mj / MJ_PER_JOULE)

    def _it_boundary(self, pool: str, *, now_ms: int) -> Boundary:
        host_ms = self._hosts_ms.get(pool)
        is_host = host_ms is not None and now_ms - host_ms <= _HOST_KNOWN_MS
        return Boundary.HOST if is_host else Boundary.BOARD

    def _emit(self, totals: dict[_Kind, int], *, pool: str, factory: Factory) -> None:
        """Count what the energy of machines emitted, where PUE and grid are known."""
        site, pue = factory.find_site(pool), self._pues.get(pool)
        if site is None or site.carbon is None or pue is None:
            return
        for method, grams_per_kwh in grid_carbon(site.carbon):
            for (tier, _), share_mj in totals.items():
                grams = share_mj * pue.pue * grams_per_kwh / MJ_PER_KILOWATT_HOUR
                self._metrics.carbon.labels(tier, method).inc(float(grams))


def grid_carbon(carbon: Carbon) -> Iterable[tuple[str, Decimal]]:
    """Return what is known of a grid, in grams a kilowatt-hour, by method."""
    known = (("location", carbon.location), ("market", carbon.market))
    return [(method, grams) for method, grams in known if grams is not None]


def _totals(shared: Attribution[_Kind]) -> dict[_Kind, int]:
    kinds = shared.active_mj.keys() | shared.idle_mj.keys()
    return {
        kind: shared.active_mj.get(kind, 0) + shared.idle_mj.get(kind, 0) for kind in sorted(kinds)
    }
