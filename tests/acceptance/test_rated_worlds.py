"""Random worlds: whatever moves, changes, overlaps or rounds, product and oracle bill the same."""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from meter.toml_file import FileFaults
from tests.acceptance.oracle_bills import bill, to_event
from tests.acceptance.rated_worlds import (
    bill_by_product,
    differences,
    facts_by_event,
    facts_by_interval,
    is_exact,
    read_terms,
)
from tests.acceptance.worlds import random_world, terms_of

PARTS = 20


def disagreements(seeds: Iterable[int]) -> list[str]:
    """Return the seeds whose world the product and the oracle bill differently, and how."""
    found = []
    for seed in seeds:
        world = random_world(seed)
        bills = bill(map(to_event, world.events), terms=terms_of(world), month=world.month)
        try:
            terms = read_terms(world)
        except FileFaults as refusal:
            found.append(f"seed {seed}: {refusal}")
            continue
        by_event = bill_by_product(world, facts_by_event(world), terms=terms)
        by_interval = bill_by_product(world, facts_by_interval(world), terms=terms)
        faults = [*differences(bills, by_interval)]
        if by_event != by_interval:
            faults.append("by event it is not what it is by interval")
        if not all(map(is_exact, by_interval.values())):
            faults.append("its own sums do not close")
        found += [f"seed {seed}: {fault}" for fault in faults]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("worlds", [500, pytest.param(10_000, marks=pytest.mark.stacks)])
def test_world__billed_as_the_oracle_does(worlds: int) -> None:
    """By event, by interval and by the oracle random worlds come to the same lines."""
    parts = [range(part, worlds, PARTS) for part in range(PARTS)]
    # Spawned, not forked: gRPC, which other tests have used, does not like forks.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = [fault for faults in pool.map(disagreements, parts) for fault in faults]
    assert not found, found[:3]
