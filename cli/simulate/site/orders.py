"""What the process that plays the site is told, and what it tells of itself."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cli.simulate.server import MeterAddress
from cli.simulate.site.size import Size
from cli.simulate.trace import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a site does: `keys` are API keys by tier, None where a certificate says who calls.

    `arrivals` have the lengths that requests are drawn from. A server seals a batch a second, for
    `seconds`. `truth` is the folder of the truth files.
    """

    size: Size
    seed: int
    seconds: int
    arrivals: tuple[Arrival, ...]
    accounts: tuple[str, ...]
    meter: MeterAddress
    keys: dict[str, str]
    deadline_seconds: float
    truth: Path

    def producer(self, pool: str, number: int) -> str:
        """Return a server's name; those of two sites with one seed fence each other."""
        return f"{pool}-{self.seed}-{number + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a site is; counts are of the whole run, but `ack_ms` of the time since the last one.

    `ack_ms` counts batches by the whole milliseconds from their sealing to their ack. `begin_ms` is
    0 until all streams are open. `read_ms` is when the counters of energy were read last, of which
    the meter has said that they are recorded. `trouble` is why a stream broke last, `fault` why the
    site ended.
    """

    is_final: bool = False
    begin_ms: int = 0
    read_ms: int = 0
    open_count: int = 0
    sealed_batches: int = 0
    sealed_events: int = 0
    acknowledged_events: int = 0
    held_batches: int = 0
    resent_batches: int = 0
    set_aside_events: int = 0
    set_aside_outcomes: frozenset[str] = frozenset()
    broken_streams: int = 0
    trouble: str = ""
    fault: str = ""
    processor_seconds: float = 0.0
    ack_ms: Counter[int] = field(default_factory=Counter)
