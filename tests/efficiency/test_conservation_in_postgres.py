"""Random factories lived through on a real Postgres: described, read, counted, shared out."""

from collections.abc import Iterator, Sequence

import pytest

from meter.domain.times import to_ms
from meter.energy.counters import Source
from meter.store.attribution import AttributionStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from tests.billing.town import TIERS, Town, TownEvent, town_on
from tests.efficiency import oracle
from tests.efficiency.oracle import INTERVAL_MS, Event, Measured, Meter, Owner, Place, Shares
from tests.efficiency.product import BOUNDS, to_reading
from tests.efficiency.worlds import (
    ACCOUNTS,
    BEGIN_MS,
    GAPS_MS,
    MODELS,
    WATTS_MAX,
    World,
    random_world,
)
from tests.efficiency.worlds import TIERS as WORLD_TIERS
from tests.meter.store.recording import ask
from tests.postgres import Cluster

METER = Meter(watts_max=WATTS_MAX, gaps_ms=GAPS_MS)
WORLDS = 60
PARTS = 6
ATTRIBUTED_MAX = 500
MEASURED = """
SELECT boundary, name, interval_start, measured_mj, gap_mj, unmapped_mj, covered_ms, gap_ms,
       reset_count, begin_count, end_count
FROM energy_intervals
"""
SHARED = """
SELECT boundary, pool, interval_start, account_id, coalesce(model, ''), coalesce(tier, ''), reason,
       sum(energy_mj)::bigint, min(factory_version), max(factory_version)
FROM energy_shares LEFT JOIN skus USING (sku_id)
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
VALID = """
SELECT pool, interval_start, fault = '' FROM pool_intervals WHERE version = attributed_version
"""
# What was attributed before stays in the table: later revisions only add differences.
REWRITTEN = """
SELECT count(*) FROM (SELECT pool, interval_start, boundary, account_id, sku_id, reason, revision
FROM energy_shares GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING count(*) > 1) AS doubled
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    # One of them is enough for everyday.
    [pytest.param(it, marks=[pytest.mark.stacks] if it else []) for it in range(PARTS)],
)
def test_world__kept_to_the_millijoule(cluster: Cluster, part: int) -> None:
    """At each step what is attributed is what was measured; at the end all is the oracle's."""
    seeds = range(part, WORLDS, PARTS) if part else range(0, WORLDS // 2, PARTS)
    for seed in seeds:
        with cluster.database() as url:
            _live(random_world(seed), url)


def _live(world: World, url: str) -> None:
    with town_on(url, now_ms=world.end_ms) as town:
        factories = FactoryStore(town.engine, tiers=TIERS)
        energy = EnergyStore(town.engine, factories=factories)
        attribution = AttributionStore(town.engine, factories=factories)
        _settle(town)
        for step in world.steps:
            if step.description is not None:
                factories.set(step.description, key_id="key_1", now_ms=BEGIN_MS)
            for readings in step.rounds:
                source = Source(readings[0].source)
                energy.record(list(map(to_reading, readings)), source=source, bounds=BOUNDS)
            _count(town, step.events)
            attribution.attribute(end_ms=step.until_ms, intervals_max=ATTRIBUTED_MAX)
            _check_step(town, until_ms=step.until_ms, seed=world.seed)
        end_ms = world.end_ms + INTERVAL_MS
        attribution.attribute(end_ms=end_ms, intervals_max=ATTRIBUTED_MAX)
        assert attribution.attribute(end_ms=end_ms, intervals_max=ATTRIBUTED_MAX) == 0
        _check_end(town, world)


def _check_step(town: Town, *, until_ms: int, seed: int) -> None:
    shares = _shares_of(town)
    for place, sums in _measured_of(town).items():
        if place.boundary != "facility" and place.start_ms < until_ms:
            shared = sum(shares.get(place, {}).values())
            assert shared == sums.measured_mj, (seed, place)


def _check_end(town: Town, world: World) -> None:
    descriptions = oracle.describe(world.descriptions)
    measured = oracle.measure(world.rounds, meter=METER, descriptions=descriptions)
    assert _measured_of(town) == measured, f"seed {world.seed}"
    own = oracle.share(measured, world.events, descriptions=descriptions)
    assert _shares_of(town) == {place: it for place, it in own.items() if it}, f"seed {world.seed}"
    for _, _, start, *_, least, most in ask(town.database_url, SHARED):
        version = oracle.in_force(descriptions, at_ms=to_ms(start)).version
        assert least == most == version, f"seed {world.seed}"
    for pool, start, valid in ask(town.database_url, VALID):
        place = {"pool": pool, "start_ms": to_ms(start)}
        expected = oracle.is_valid(measured, descriptions=descriptions, **place)
        assert valid == expected, (world.seed, place)
    assert ask(town.database_url, REWRITTEN) == [(0,)]


def _settle(town: Town) -> None:
    """Add the accounts, and have each sku get its number in the order of the names."""
    for account in ACCOUNTS:
        town.add_account(account)
    for model in sorted(MODELS):
        for tier in sorted(WORLD_TIERS):
            town.record(
                TownEvent(
                    account=ACCOUNTS[0],
                    end_ms=BEGIN_MS,
                    classes={"input": 1},
                    model=model,
                    tier=tier,
                )
            )


def _count(town: Town, events: Sequence[Event]) -> None:
    """Record and count events, and take back those that are to be taken back."""
    recorded = list(_to_town(events))
    if recorded:
        town.record(*recorded)
    for event in events:
        if min(event.classes.values()) < 0:
            town.correct(event.number)


def _to_town(events: Sequence[Event]) -> Iterator[TownEvent]:
    for event in events:
        if min(event.classes.values()) > 0:
            yield TownEvent(
                account=event.account,
                end_ms=event.time_ms,
                classes=event.classes,
                model=event.model,
                tier=event.tier,
                pool=event.pool,
                event_id=event.number,
            )


def _measured_of(town: Town) -> dict[Place, Measured]:
    return {
        Place(boundary, name, to_ms(start)): Measured(*sums)
        for boundary, name, start, *sums in ask(town.database_url, MEASURED)
    }


def _shares_of(town: Town) -> Shares:
    shares: Shares = {}
    for boundary, pool, start, account, model, tier, reason, energy_mj, *_ in ask(
        town.database_url, SHARED
    ):
        if energy_mj:
            place = Place(boundary, pool, to_ms(start))
            shares.setdefault(place, {})[Owner(account, model, tier, reason)] = energy_mj
    return shares
