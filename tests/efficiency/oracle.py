"""What a world's counters measured and whose tokens took it, worked out from the documents alone.

The standard library and nothing of the product: exact fractions, each interval from scratch, no
state that is carried from one to the next. All energy is in mJ, times are ms since 1970, in UTC.
"""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, NamedTuple

INTERVAL_MS: Final = 900_000
# A counter that is silent for longer begins anew, and may be so much older than its reading.
KEPT_MS: Final = 7 * 86_400_000
SLACK_MS: Final = 60_000
CACHED: Final = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})
OUTPUT: Final = frozenset(
    {"output", "reasoning", "audio_output", "image_output", "video_output"},
)


class Reading(NamedTuple):
    """A counter as it stood; `name` is a pool's, or a site's where the boundary is `facility`.

    After `range_mj` comes 0; 0 is for a counter that does not wrap. `source` is who read it.
    """

    boundary: str
    name: str
    device: str
    time_ms: int
    counter_mj: int
    range_mj: int = 0
    source: str = "reported"


class Event(NamedTuple):
    """Tokens of one request by class; what takes back the one of its number has them negative."""

    account: str
    pool: str
    model: str
    tier: str
    time_ms: int
    classes: Mapping[str, int]
    number: int = 0


class Meter(NamedTuple):
    """What is believed of counters: the most that a device draws, and how far samples may lie.

    The latter is by source; for as long a device belongs to who has read it.
    """

    watts_max: int
    gaps_ms: Mapping[str, int]


class Place(NamedTuple):
    """Where energy is: of a pool or a site, in an interval, by its begin."""

    boundary: str
    name: str
    start_ms: int


@dataclass(slots=True)
class Measured:
    """What was measured at a place; `gap_mj` and `unmapped_mj` are parts of `measured_mj`.

    `covered_ms` is of devices that are described, so that only they idle. Of `begin_count` devices
    samples lie around the begin or right at it, of `end_count` around the end.
    """

    measured_mj: int = 0
    gap_mj: int = 0
    unmapped_mj: int = 0
    covered_ms: int = 0
    gap_ms: int = 0
    reset_count: int = 0
    begin_count: int = 0
    end_count: int = 0


class Owner(NamedTuple):
    """Whose energy it is: an account's tokens of a model at a tier, or nobody's for a reason."""

    account: str
    model: str
    tier: str
    reason: str


Shares = dict[Place, dict[Owner, int]]


@dataclass(frozen=True, slots=True)
class Description:
    """A version of the factory's description, as its file has it; version 0 is none."""

    version: int = 0
    start_ms: int = 0
    pools: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[Any] = ()

    def weigh(self, event: Event) -> Fraction:
        """Return what an event's tokens weigh: by the first weights that fit, else its output."""
        hardware = self.pools.get(event.pool, {}).get("hardware", "")
        for each in self.weights:
            if each.get("hardware", hardware) == hardware and fnmatchcase(
                event.model, each.get("model", "*")
            ):
                return sum(
                    (Fraction(each[_kind(name)]) * count for name, count in event.classes.items()),
                    Fraction(),
                )
        return Fraction(sum(n for name, n in event.classes.items() if name in OUTPUT))


def describe(texts: Iterable[str]) -> list[Description]:
    """Read descriptions in the order in which they were set: they are numbered from 1."""
    found = []
    for version, text in enumerate(texts, start=1):
        told = tomllib.loads(text)
        begin: datetime = told["from"]
        found.append(
            Description(
                version=version,
                start_ms=int(begin.timestamp()) * 1000,
                pools=told.get("pools", {}),
                weights=told.get("weights", ()),
            )
        )
    return found


def in_force(descriptions: Iterable[Description], *, at_ms: int) -> Description:
    """Return the description that counts at a time; the empty one before the first."""
    return max(
        (it for it in descriptions if it.start_ms <= at_ms),
        key=lambda it: it.start_ms,
        default=Description(),
    )


def measure(
    rounds: Iterable[Sequence[Reading]], *, meter: Meter, descriptions: Sequence[Description]
) -> dict[Place, Measured]:
    """Add up what the rounds of readings say, by place; each round is in the order of its times."""
    last: dict[str, Reading] = {}
    found: defaultdict[Place, Measured] = defaultdict(Measured)
    for readings in rounds:
        for reading in sorted(readings, key=lambda it: it.time_ms):
            before = last.get(reading.device)
            if before is not None and not _is_news(before, reading, meter=meter):
                continue
            last[reading.device] = reading
            if before is None or reading.time_ms - before.time_ms > KEPT_MS:
                continue
            if before.name != reading.name or before.boundary != reading.boundary:
                # Another pool's now: what it used meanwhile is nobody's to tell.
                continue
            _add(found, before, reading, meter=meter, descriptions=descriptions)
    return dict(found)


def share(
    measured: Mapping[Place, Measured],
    events: Iterable[Event],
    *,
    descriptions: Sequence[Description],
) -> Shares:
    """Share out what was measured of boards and hosts, by what the events' tokens weigh."""
    weights: defaultdict[tuple[str, int], Counter[Owner]] = defaultdict(Counter)
    for event in events:
        start_ms = _begin(event.time_ms)
        owner = Owner(event.account, event.model, event.tier, "")
        description = in_force(descriptions, at_ms=start_ms)
        # Fractions add up in a Counter as integers do.
        weights[event.pool, start_ms][owner] += description.weigh(event)  # type: ignore[assignment]
    return {
        place: _share(
            sums,
            weights[place.name, place.start_ms],
            pool=in_force(descriptions, at_ms=place.start_ms).pools.get(place.name, {}),
        )
        for place, sums in measured.items()
        if place.boundary != "facility"
    }


def is_valid(
    measured: Mapping[Place, Measured],
    *,
    pool: str,
    start_ms: int,
    descriptions: Sequence[Description],
) -> bool:
    """Tell whether a ratio may be made of a pool's interval.

    Boards decide where any are metered, else hosts: there is energy, all of it is of boards that
    are described, and samples cover 95 % of the time that is known of, and of the whole interval
    for all boards that are described, or where no number is for as many as were there at its begin
    or at its end.
    """
    boards, hosts = (
        measured.get(Place(boundary, pool, start_ms), Measured()) for boundary in ("board", "host")
    )
    sums = boards if boards.measured_mj else hosts
    described = in_force(descriptions, at_ms=start_ms).pools.get(pool, {})
    told = described.get("device_count", len(described.get("devices", ())))
    counts = [told] if told and sums is boards else [sums.begin_count, sums.end_count, 1]
    dues_ms = [sums.covered_ms + sums.gap_ms, *(count * INTERVAL_MS for count in counts)]
    return (
        sums.measured_mj > 0
        and not sums.unmapped_mj
        and all(Fraction(sums.covered_ms) >= Fraction(95, 100) * due_ms for due_ms in dues_ms)
    )


def deal(total: int, weights: Mapping[Any, Fraction | int]) -> dict[Any, int]:
    """Deal a total out in whole parts: what is left over goes to the largest rests, then by key.

    One by one: each of what is left over goes to whoever has the least beside their exact share.
    """
    if len(weights) == 1:
        return dict.fromkeys(weights, total)
    whole = sum(weights.values())
    exact = {key: Fraction(total) * weight / whole for key, weight in weights.items()}
    parts = {key: int(share) for key, share in exact.items()}
    for _ in range(total - sum(parts.values())):
        neediest = min(exact, key=lambda key: (parts[key] - exact[key], key))
        parts[neediest] += 1
    return parts


def _share(
    sums: Measured, weights: Mapping[Owner, Any], *, pool: Mapping[str, Any]
) -> dict[Owner, int]:
    known = sums.measured_mj - sums.gap_mj - sums.unmapped_mj
    # Watts × ms are millijoules.
    idle_watts = Fraction(pool.get("idle_watts", "0"))
    idle = min(known, int(idle_watts * sums.covered_ms))
    positive = {owner: weight for owner, weight in weights.items() if weight > 0}
    shares: Counter[Owner] = Counter()
    shares[_nobody("gap")] = sums.gap_mj
    shares[_nobody("unmapped")] = sums.unmapped_mj
    if positive:
        shares.update(deal(known - idle, positive))
    else:
        shares[_nobody("no_tokens")] = known - idle
    if positive and pool.get("idle", "unattributed") == "proportional":
        for owner, part in deal(idle, positive).items():
            shares[owner._replace(reason="idle")] = part
    else:
        shares[_nobody("idle")] = idle
    return {owner: part for owner, part in shares.items() if part}


def _is_news(before: Reading, reading: Reading, *, meter: Meter) -> bool:
    """Tell whether a reading says anything: an exporter repeats itself, and a report comes late.

    Of a device that others have read of late nobody else is believed.
    """
    if _reader(before) != _reader(reading):
        return reading.time_ms - before.time_ms > meter.gaps_ms[before.source]
    return reading.time_ms > before.time_ms and reading.counter_mj != before.counter_mj


def _reader(reading: Reading) -> tuple[str, str, str]:
    return reading.boundary, reading.name, reading.source


def _add(
    found: dict[Place, Measured],
    before: Reading,
    reading: Reading,
    *,
    meter: Meter,
    descriptions: Sequence[Description],
) -> None:
    passed_ms = reading.time_ms - before.time_ms
    energy_mj = reading.counter_mj - before.counter_mj
    most_mj = meter.watts_max * (passed_ms + SLACK_MS)
    is_reset = False
    if energy_mj < 0:
        wrapped_mj = energy_mj + reading.range_mj + 1
        is_reset = not (reading.range_mj and 0 <= wrapped_mj <= most_mj)
        energy_mj = reading.counter_mj if is_reset else wrapped_mj
    is_known = energy_mj <= most_mj
    is_gap = passed_ms > meter.gaps_ms[reading.source] or not is_known
    if before.source != reading.source:
        # Who reads it now counts from there on: what lies between is a gap without energy.
        energy_mj, is_known, is_reset, is_gap = 0, True, False, True
    spans = _spans(before.time_ms, reading.time_ms)
    parts = deal(energy_mj if is_known else 0, spans)
    for start_ms, length_ms in spans.items():
        place = Place(reading.boundary, reading.name, start_ms)
        sums = found[place]
        sums.measured_mj += parts[start_ms]
        # Whoever is read from before an edge on, or from right at it, is there at the edge.
        sums.begin_count += start_ms in range(before.time_ms, reading.time_ms)
        sums.end_count += start_ms + INTERVAL_MS in range(before.time_ms + 1, reading.time_ms + 1)
        if is_gap:
            sums.gap_mj += parts[start_ms]
            sums.gap_ms += length_ms
        elif _is_unmapped(reading, in_force(descriptions, at_ms=start_ms)):
            sums.unmapped_mj += parts[start_ms]
        else:
            sums.covered_ms += length_ms
    if is_reset or not is_known:
        found[Place(reading.boundary, reading.name, max(spans))].reset_count += 1


def _is_unmapped(reading: Reading, description: Description) -> bool:
    devices = description.pools.get(reading.name, {}).get("devices")
    return reading.boundary == "board" and bool(devices) and reading.device not in devices


def _spans(start_ms: int, end_ms: int) -> dict[int, int]:
    """Return how many ms of a span lie in each interval."""
    edges = [start_ms, *range(_begin(start_ms) + INTERVAL_MS, end_ms, INTERVAL_MS), end_ms]
    return {_begin(low): high - low for low, high in pairwise(edges)}


def _begin(time_ms: int) -> int:
    return time_ms // INTERVAL_MS * INTERVAL_MS


def _kind(token_class: str) -> str:
    """Return by which weight a class of tokens weighs."""
    if token_class in OUTPUT:
        return "output"
    return "cached_input" if token_class in CACHED else "input"


def _nobody(reason: str) -> Owner:
    return Owner("", "", "", reason)
