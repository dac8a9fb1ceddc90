"""The factory's description as the metrics show it, and as live energy is shared out by it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from meter.consumption import SitePue
from meter.domain.clock import Clock
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.energy.factory import Factories, Factory
from meter.energy.live import LiveEnergy, grid_carbon
from meter.energy.marks import SoftwareMark
from meter.metrics import Metrics

_PUE_INTERVALS: Final = 4


class AskPues(Protocol):
    """Tells the PUE by pool of a span on edges; measured, or else described."""

    def __call__(self, *, start_ms: int, end_ms: int) -> Mapping[str, SitePue]:
        """Return it, of the pools whose site has one; raises Unavailable."""
        ...


class DescribedFactory:
    """Follows the version in force and the software that is marked; one look at a time."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        live: LiveEnergy,
        factories: Callable[[], Factories],
        marks: Callable[[], Sequence[SoftwareMark]],
        pues: AskPues,
        version: str,
        clock: Clock,
    ) -> None:
        """Take where it is shown and where it is read; `version` is this server's.

        PUE is that of the last hour of whole intervals.
        """
        self._metrics = metrics
        self._live = live
        self._factories = factories
        self._marks = marks
        self._ask_pues = pues
        # The interval and the version that PUE was asked in.
        self._asked: tuple[int, int] | None = None
        self._pues: Mapping[str, SitePue] = {}
        self._version = version
        self._clock = clock

    def look(self) -> None:
        """Show what is in force now; raises Unavailable."""
        now_ms = self._clock.now_ms()
        factory = self._factories().at(now_ms)
        software: dict[str, str] = {}
        for mark in sorted(self._marks(), key=lambda it: it.start_ms):
            if mark.start_ms <= now_ms:
                software[mark.pool] = mark.software
        self._live.describe(factory, pues=self._find_pues(factory, now_ms=now_ms))
        self._show_pools(factory, software)
        self._show_sites(factory)
        build = (self._version, str(factory.version))
        self._metrics.build_info.labels(*build).set(1)
        self._metrics.build_info.keep({build})

    def _find_pues(self, factory: Factory, *, now_ms: int) -> Mapping[str, SitePue]:
        end_ms = interval_start_ms(now_ms)
        if self._asked != (end_ms, factory.version):
            start_ms = end_ms - _PUE_INTERVALS * INTERVAL_MS
            self._pues = self._ask_pues(start_ms=start_ms, end_ms=end_ms)
            self._asked = (end_ms, factory.version)
        return self._pues

    def _show_pools(self, factory: Factory, software: dict[str, str]) -> None:
        gauge = self._metrics.energy.pool_info
        wanted = {
            (name, pool.site, pool.hardware, software.get(name, ""))
            for name, pool in factory.pools.items()
        }
        # First what ends: between two scrapes a pool stands at one site alone.
        gauge.keep(wanted)
        for labels in sorted(wanted):
            gauge.labels(*labels).set(1)

    def _show_sites(self, factory: Factory) -> None:
        metrics = self._metrics.energy
        budgets, ratios, reserved, grids = {}, {}, {}, {}
        for name, site in factory.sites.items():
            budgets[name,] = float(site.contracted_watts)
            if site.pue is not None:
                ratios[name, "configured"] = float(site.pue)
            for tier, watts in site.reserved_watts.items():
                reserved[name, tier] = float(watts)
            if site.carbon is not None:
                for method, grams in grid_carbon(site.carbon):
                    grids[name, method] = float(grams)
        for gauge, values in (
            (metrics.power_budget, budgets),
            (metrics.pue, ratios),
            (metrics.power_reserved, reserved),
            (metrics.grid_carbon, grids),
        ):
            gauge.keep(values.keys())
            for labels, value in values.items():
                gauge.labels(*labels).set(value)
