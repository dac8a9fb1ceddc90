"""What a catalogue of metrics says of each: the metrics themselves are made where they are kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A metric; `name` is as Prometheus shows it, without a histogram's suffixes."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
