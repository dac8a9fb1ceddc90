"""What a catalogue of metrics says of each: the metrics themselves are made where they are kept."""

from dataclasses import dataclass
from enum import StrEnum


class Joining(StrEnum):
    """How the values that several servers show of one metric make one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A metric; `name` is as Prometheus shows it, without a histogram's suffixes.

    `joining` is a gauge's: what each server has for itself is added up, of what each shows alike
    the largest value is taken, or the smallest where that is the bad one.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    joining: Joining = Joining.MAX

    @property
    def over_servers(self) -> Joining:
        """How the values of several servers make one."""
        return self.joining if self.kind == "gauge" else Joining.SUM
