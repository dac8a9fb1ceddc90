"""What an audit finds, in words for people and in values for programs; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meter.counting.audit import Catalogue, Difference
from meter.counting.repeats import Place, Repeat
from meter.domain.boundary import Boundary
from meter.domain.times import to_iso
from meter.domain.tokens import BAND_NAMES, FinishClass

# Places that one finding names; the rest is only counted.
_NAMED_MAX: Final = 5


class Check(StrEnum):
    """What the audit looks at, in the order in which it is told."""

    SEGMENTS = "segments"
    NUMBERS = "numbers"
    SUMS = "sums"
    TOTALS = "totals"
    EVENT_IDS = "event ids"
    ENERGY = "energy"
    INVOICES = "invoices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that should not be; `facts` has the same in values, for programs.

    One that is no fault may be right, and somebody should look.
    """

    check: Check
    says: str
    facts: Mapping[str, object]
    is_fault: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFault:
    """A pool's interval whose shares are not what was measured within a boundary, in mJ."""

    pool: str
    boundary: Boundary
    interval_start_ms: int
    measured_mj: int
    shared_mj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Usage of one key in a part of a month that is not what was added up before.

    `apart` is by how much usage is above, by name of the sum; of `cut_id`, its newest cut. Sums
    that agree are not in it.
    """

    account_id: str
    cell_start_ms: int
    model: str
    tier: str
    band: int
    apart: Mapping[str, int]


def missing_segments(shard: int, first: int, last: int) -> Finding:
    """Tell of a run of positions that a shard lacks, first and last."""
    span = f"segment {first:,}" if first == last else f"segments {first:,} to {last:,}"
    facts = {"shard": shard, "first_position": first, "last_position": last}
    return Finding(
        check=Check.SEGMENTS, says=f"shard {shard} lacks {span} of its journal", facts=facts
    )


def wrong_segment(shard: int, position: int, fault: str) -> Finding:
    """Tell of a segment and what is wrong with it."""
    return Finding(
        check=Check.SEGMENTS,
        says=f"segment {position:,} of shard {shard} {fault}",
        facts={"shard": shard, "position": position},
    )


def number_again(place: Place) -> Finding:
    """Tell of a batch whose number was there before."""
    return Finding(
        check=Check.NUMBERS,
        says=f"batch {place.sequence:,} of {_producer_name(place)} is recorded again in segment"
        f" {place.position:,} of shard {place.shard}",
        facts=_facts_of(place),
    )


def repeated_id(repeat: Repeat, catalogue: Catalogue) -> Finding:
    """Tell of an event that is counted more than once."""
    account = catalogue.account_name(repeat.account_number)
    places = ", ".join(
        f"{_producer_name(place)}{f' batch {place.sequence:,}' if place.sequence else ''}"
        f" at {to_iso(end_ms)}"
        for place, end_ms in repeat.places[:_NAMED_MAX]
    )
    return Finding(
        check=Check.EVENT_IDS,
        says=f"event {repeat.event_id.hex()} of {account} is counted {len(repeat.places)} times: "
        + places,
        facts={
            "event_id": repeat.event_id.hex(),
            "account": account,
            "places": [
                {**_facts_of(place), "end_time": to_iso(end_ms)} for place, end_ms in repeat.places
            ],
        },
        # A producer that names two of its own events alike may do so: its numbers keep them apart.
        is_fault=repeat.is_of_two_producers or repeat.is_counted_by_id,
    )


def different_sum(difference: Difference, places: Sequence[tuple[int, int]]) -> Finding:
    """Tell of a sum that differs, and of the segments (shard, position) with its events."""
    it, sku = difference, difference.sku
    finish = {each.value: each.name.lower() for each in FinishClass}.get(it.finish_class, "?")
    band = BAND_NAMES[it.band] if it.band < len(BAND_NAMES) else "?"
    facts: dict[str, object] = {
        "interval_start": to_iso(it.interval_start_ms),
        "account": it.account_id,
        "model": sku.model if sku else "?",
        "served_model": sku.served_model if sku else "?",
        "tier": sku.tier if sku else "?",
        "mode": sku.mode if sku else 0,
        "region": sku.region if sku else "?",
        "band": band,
        "finish": finish,
        "cut_id": it.cut_id,
        "name": it.name,
        "journal": it.journal,
        "usage": it.usage,
        "segments": [f"{shard}:{position}" for shard, position in places],
    }
    says = (
        f"{facts['interval_start']} {it.account_id}, {facts['model']}, {facts['tier']}, {it.name}:"
        f" {it.journal:,} by the journal, {it.usage:,} by usage"
        f" (prompts {band}, {finish}, cut {it.cut_id}"
    )
    if places:
        named = ", ".join(f"{shard}:{at}" for shard, at in places[:_NAMED_MAX])
        more = f" and {len(places) - _NAMED_MAX:,} more"
        says += f"; segments {named}{more if len(places) > _NAMED_MAX else ''}"
    return Finding(check=Check.SUMS, says=says + ")", facts=facts)


def drifted_total(drift: Drift) -> Finding:
    """Tell of a total that is not its usage."""
    start = to_iso(drift.cell_start_ms)
    apart = ", ".join(f"{name} {number:+,}" for name, number in drift.apart.items())
    return Finding(
        check=Check.TOTALS,
        says=f"from {start} {drift.account_id}, {drift.model}, {drift.tier}: usage is"
        f" not its total ({apart})",
        facts={
            "start": start,
            "account": drift.account_id,
            "model": drift.model,
            "tier": drift.tier,
            "band": BAND_NAMES[drift.band] if drift.band < len(BAND_NAMES) else "?",
            "apart": dict(drift.apart),
        },
    )


def energy_apart(fault: EnergyFault) -> Finding:
    """Tell of energy that does not add up."""
    start = to_iso(fault.interval_start_ms)
    return Finding(
        check=Check.ENERGY,
        says=f"{start} pool {fault.pool}, {fault.boundary}: {fault.measured_mj:,} mJ measured,"
        f" {fault.shared_mj:,} mJ attributed and unattributed",
        facts={
            "interval_start": start,
            "pool": fault.pool,
            "boundary": fault.boundary.value,
            "measured_mj": fault.measured_mj,
            "shared_mj": fault.shared_mj,
        },
    )


def _facts_of(place: Place) -> dict[str, object]:
    return {
        "account": place.account_id,
        "producer": place.producer,
        "sequence": place.sequence,
        "shard": place.shard,
        "position": place.position,
    }


def _producer_name(place: Place) -> str:
    name = f"producer {place.producer}" if place.producer else "a call"
    return f"{name} ({place.account_id or 'installation'})"
