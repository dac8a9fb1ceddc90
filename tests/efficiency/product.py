"""Random factories lived through in the product's own pure code: counters, then attribution."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meter.domain.boundary import Boundary
from meter.domain.tokens import CACHED_CLASSES, OUTPUT_CLASSES, TokenClass
from meter.energy.attribute import attribute
from meter.energy.counters import Bounds, Reading, Source, take
from meter.energy.counters import Counter as EnergyCounter
from meter.energy.delta import IntervalEnergy
from meter.energy.factory import Factories, IdlePolicy, Pool
from meter.energy.factory_file import read_factory
from tests.efficiency import oracle
from tests.efficiency.oracle import Event, Measured, Owner, Place, Shares
from tests.efficiency.worlds import GAPS_MS, WATTS_MAX

BOUNDS: Final = Bounds(
    watts_max=dict.fromkeys(Boundary, WATTS_MAX),
    gaps_ms={source: GAPS_MS.get(source.value, GAPS_MS["dcgm"]) for source in Source},
)


def describe(texts: Iterable[str]) -> Factories:
    """Read descriptions as the product does."""
    return Factories(
        read_factory(text, version=version, tiers=None)
        for version, text in enumerate(texts, start=1)
    )


def measure(
    rounds: Iterable[Sequence[oracle.Reading]], *, factories: Factories
) -> dict[Place, Measured]:
    """Have the product take the rounds of readings, one after the other, and add up."""
    known: dict[str, EnergyCounter] = {}
    found: dict[Place, IntervalEnergy] = {}

    def is_mapped(device: str, pool: str, start_ms: int) -> bool:
        described = factories.at(start_ms).pools.get(pool)
        return described is None or not described.devices or device in described.devices

    for readings in rounds:
        done = take(
            map(to_reading, readings),
            source=Source(readings[0].source),
            known=known,
            bounds=BOUNDS,
            is_mapped=is_mapped,
        )
        known.update(done.counters)
        for ((boundary, name), start_ms), sums in done.delta.intervals.items():
            place = Place(boundary.value, name, start_ms)
            found.setdefault(place, IntervalEnergy()).add(sums)
    return {
        place: Measured(
            measured_mj=it.measured_mj,
            gap_mj=it.gap_mj,
            unmapped_mj=it.unmapped_mj,
            covered_ms=it.covered_ms,
            gap_ms=it.gap_ms,
            reset_count=it.reset_count,
            begin_count=it.begin_count,
            end_count=it.end_count,
        )
        for place, it in found.items()
    }


def share(
    measured: Mapping[Place, Measured], events: Iterable[Event], *, factories: Factories
) -> Shares:
    """Have the product share out what was measured."""
    weights: dict[tuple[str, int], Counter[Owner]] = {}
    for event in events:
        start_ms = event.time_ms - event.time_ms % oracle.INTERVAL_MS
        weighing = factories.at(start_ms).weights_of(pool=event.pool, model=event.model)
        kinds = _kinds(event.classes)
        owner = Owner(event.account, event.model, event.tier, "")
        weights.setdefault((event.pool, start_ms), Counter())[owner] += weighing.weigh(
            input_tokens=kinds["input"],
            cached_tokens=kinds["cached"],
            output_tokens=kinds["output"],
        )
    return {
        place: _share(
            sums,
            weights.get((place.name, place.start_ms), {}),
            pool=factories.at(place.start_ms).pools.get(place.name),
        )
        for place, sums in measured.items()
        if place.boundary != Boundary.FACILITY
    }


def to_reading(it: oracle.Reading) -> Reading:
    """Return a reading of a world as the product has it."""
    return Reading(
        boundary=Boundary(it.boundary),
        name=it.name,
        device=it.device,
        time_ms=it.time_ms,
        counter_mj=it.counter_mj,
        range_mj=it.range_mj,
    )


def _share(sums: Measured, weights: Mapping[Owner, int], *, pool: Pool | None) -> dict[Owner, int]:
    shared = attribute(
        measured_mj=sums.measured_mj,
        gap_mj=sums.gap_mj,
        unmapped_mj=sums.unmapped_mj,
        covered_ms=sums.covered_ms,
        weights=weights,
        idle_mw=0 if pool is None else pool.idle_mw,
        idle=IdlePolicy.UNATTRIBUTED if pool is None else pool.idle,
    )
    return {
        **shared.active_mj,
        **{owner._replace(reason="idle"): part for owner, part in shared.idle_mj.items()},
        **{
            Owner("", "", "", reason.value): part for reason, part in shared.unattributed_mj.items()
        },
    }


def _kinds(classes: Mapping[str, int]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for name, count in classes.items():
        token_class = TokenClass[name.upper()]
        if token_class in OUTPUT_CLASSES:
            kinds["output"] += count
        else:
            kinds["cached" if token_class in CACHED_CLASSES else "input"] += count
    return kinds
