"""Whether a run's totals close: tokens, energy and money, by the meter and by the truth files.

The money is worked out here by itself: tokens of the truth files by the prices of the keynote, a
line for each customer, model, tier and class, each rounded half up to the cent.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from cli.connection import PRICING_SECONDS_MAX, Client
from cli.simulate.site.size import TIERS
from cli.simulate.site.truth import TokenKey, Truth
from cli.simulate.site.watching import Energy, ask_energy, ask_rows, classes_of
from cli.simulate.site.world import World
from tokenworks.billing.v1 import billing_service_pb2 as pb

PRICES: Final = {tier.name: Decimal(tier.price) for tier in TIERS}
_MILLION: Final = 1_000_000
_CENT: Final = Decimal("0.01")
# Of differences, so many are named.
_NAMED_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Both sides of a run: `truth` and `money` (dollars by tier) by its files, the rest as asked.

    `faults` names each difference.
    """

    truth: Truth
    money: Mapping[str, Decimal]
    counted_events: Counter[str]
    counted: Counter[TokenKey]
    energy: Energy
    previewed: Mapping[str, Decimal]
    faults: list[str]

    @property
    def lost(self) -> int:
        """Tokens that were sent and not counted."""
        return (self.truth.tokens - self.counted).total()

    @property
    def doubled(self) -> int:
        """Tokens that were counted and not sent."""
        return (self.counted - self.truth.tokens).total()


def check(
    client: Client, world: World, *, truth: Truth, before: Energy, begin: datetime, end: datetime
) -> Result:
    """Ask the meter for a run's totals, and hold them against the truth.

    `before` is what was measured in the run's intervals before it.
    """
    rows = ask_rows(client, world, begin=begin, end=end)
    counted: Counter[TokenKey] = Counter()
    events: Counter[str] = Counter()
    for row in rows:
        events[row.tier] += row.request_count
        for word, count in classes_of(row).items():
            counted[TokenKey(row.account, row.model, row.tier, word)] += count
    energy = ask_energy(client, begin=begin, end=end).since(before)
    lines = [line for customer in world.customers for line in _lines(client, world, customer)]
    result = Result(
        truth=truth,
        money=work_out(truth, world),
        counted_events=events,
        counted=counted,
        energy=energy,
        previewed=_add_up(lines),
        faults=[],
    )
    result.faults.extend(name_faults(result))
    return result


def work_out(truth: Truth, world: World) -> dict[str, Decimal]:
    """Return the dollars by tier that the truth comes to."""
    sold: Counter[tuple[str, str, str, str]] = Counter()
    for key, count in truth.tokens.items():
        sold[world.payers[key.account], key.model, key.tier, key.token_class] += count
    money = {tier: Decimal(0) for tier in PRICES}
    for (_, _, tier, _), count in sold.items():
        exact = PRICES[tier] * count / _MILLION
        money[tier] += exact.quantize(_CENT, rounding=ROUND_HALF_UP)
    return money


def name_faults(result: Result) -> Iterator[str]:
    """Yield a sentence for each total that differs; of many tokens the first ones."""
    truth = result.truth
    if result.counted_events != truth.events:
        yield (
            f"requests: {truth.events.total():,} sent, {result.counted_events.total():,} counted"
        )
    differing = [
        key
        for key in sorted(truth.tokens.keys() | result.counted.keys())
        if truth.tokens[key] != result.counted[key]
    ]
    for key in differing[:_NAMED_MAX]:
        yield (
            f"tokens of {key.account}, {key.model}, {key.tier}, {key.token_class}:"
            f" {truth.tokens[key]:,} sent, {result.counted[key]:,} counted"
        )
    if len(differing) > _NAMED_MAX:
        yield f"and {len(differing) - _NAMED_MAX:,} other sums of tokens"
    for pool, energy_mj in truth.energy_mj.items():
        measured_mj = result.energy.pools_mj.get(pool, 0)
        if energy_mj != measured_mj:
            yield f"energy of {pool}: {energy_mj:,} mJ by its counters, {measured_mj:,} measured"
    if truth.facility_mj != result.energy.facility_mj:
        yield (
            f"energy of the site: {truth.facility_mj:,} mJ by its meters,"
            f" {result.energy.facility_mj:,} measured"
        )
    for tier, money in result.money.items():
        if money != result.previewed[tier]:
            yield f"dollars of {tier}: {money:,} by the truth, {result.previewed[tier]:,} previewed"


def _lines(client: Client, world: World, customer: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a customer's preview."""
    request = pb.PreviewInvoiceRequest(
        account=customer, month=world.month, format=pb.DOCUMENT_FORMAT_JSON
    )
    answer = client.billing.PreviewInvoice(request, timeout=PRICING_SECONDS_MAX)
    for preview in answer.previews:
        yield from json.loads(preview.document)["lines"]


def _add_up(lines: list[dict[str, Any]]) -> dict[str, Decimal]:
    money = {tier: Decimal(0) for tier in PRICES}
    for line in lines:
        money[line["tier"]] += Decimal(line["billed"])
    return money
