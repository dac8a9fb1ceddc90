"""Live energy of a factory that a test makes up, and what the metrics show of it."""

from meter.energy.counters import EnergyDelta, IntervalEnergy, Source
from meter.energy.live import LiveEnergy
from meter.metrics import Metrics
from tests.meter.plain_events import BEGIN_MS

GAP_MS = 60_000


class Factory:
    """Live energy, and what the metrics show of it."""

    def __init__(self, *pools: str) -> None:
        self.metrics = Metrics()
        self.live = LiveEnergy(self.metrics, pools=pools)

    def measure(
        self, measured_mj: int, *, gap_mj: int = 0, pool: str = "h100", source: Source = Source.DCGM
    ) -> None:
        """Add energy."""
        sums = IntervalEnergy(measured_mj=measured_mj, gap_mj=gap_mj)
        self.live.add_energy(EnergyDelta(intervals={(pool, BEGIN_MS): sums}), source=source)

    def serve(self, tokens: int, *, tier: str = "high", pool: str = "h100") -> None:
        """Add output tokens."""
        self.live.add_tokens(pool=pool, tier=tier, output_tokens=tokens)

    def settle(self, *, at_ms: int = 0) -> None:
        """Settle so many ms after the begin."""
        self.live.settle(now_ms=BEGIN_MS + at_ms, gap_ms=GAP_MS)

    def show(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"tokenworks_{name}" and labels.items() <= sample.labels.items()
        )
