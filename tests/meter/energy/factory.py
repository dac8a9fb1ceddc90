"""Live energy of a factory that a test makes up, and what the metrics show of it."""

from meter.domain.boundary import Boundary
from meter.energy.counters import Source
from meter.energy.delta import EnergyDelta, IntervalEnergy
from meter.energy.live import LiveEnergy, Served
from meter.metrics import Metrics
from tests.meter.plain_events import BEGIN_MS

GAP_MS = 60_000


class Factory:
    """Live energy, and what the metrics show of it."""

    def __init__(self, *pools: str) -> None:
        self.metrics = Metrics()
        self.live = LiveEnergy(self.metrics, pools=pools)

    def measure(
        self,
        measured_mj: int,
        *,
        pool: str = "h100",
        boundary: Boundary = Boundary.BOARD,
        source: Source = Source.DCGM,
        **sums: int,
    ) -> None:
        """Add energy; `sums` are other sums of the interval."""
        added = IntervalEnergy(measured_mj=measured_mj, **sums)
        delta = EnergyDelta(intervals={((boundary, pool), BEGIN_MS): added})
        self.live.add_energy(delta, source=source)

    def serve(
        self,
        output_tokens: int,
        *,
        tier: str = "high",
        model: str = "m",
        pool: str = "h100",
        input_tokens: int = 0,
        request_count: int = 1,
    ) -> None:
        """Add tokens."""
        served = Served(
            pool=pool,
            tier=tier,
            model=model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            request_count=request_count,
        )
        self.live.add_served(served)

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

    def shown(self, name: str) -> list[dict[str, str]]:
        """Return the labels of a metric's samples."""
        return [
            dict(sample.labels)
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"tokenworks_{name}"
        ]
