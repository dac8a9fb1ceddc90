"""What is asked of tokens and energy: by which keys, within which boundary, over which time."""

from collections.abc import Sequence
from typing import Final

from cli.usage.span import Span
from meter.domain.units import MJ_PER_JOULE
from tokenworks.meter.v1 import energy_service_pb2 as pb

GROUPS: Final = {
    name.removeprefix("EFFICIENCY_GROUP_BY_").lower(): number
    for name, number in pb.EfficiencyGroupBy.items()
    if number
}
TIMES: Final = ("interval", "hour", "day")
REASONS: Final = {
    number: name.removeprefix("UNATTRIBUTED_REASON_").lower()
    for name, number in pb.UnattributedReason.items()
    if number
}
BOUNDARIES: Final = {
    "board": pb.ENERGY_BOUNDARY_BOARD,
    "host": pb.ENERGY_BOUNDARY_HOST,
}


def to_request(
    span: Span, *, by: Sequence[str], pool: str = "", boundary: str = "board"
) -> pb.QueryEfficiencyRequest:
    """Return the question for a span; an empty pool is all of them."""
    request = pb.QueryEfficiencyRequest(pool=pool, boundary=BOUNDARIES[boundary])
    for name in by:
        request.group_by.append(pb.EfficiencyGroupBy.Name(GROUPS[name]))  # type: ignore[arg-type]
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    return request


def tokens_per_joule(rows: Sequence[pb.EfficiencyRow]) -> float | None:
    """Return output tokens per joule of the rows' valid intervals; None where there are none."""
    energy_mj = sum(row.valid_energy_mj for row in rows)
    if not energy_mj:
        return None
    return sum(row.valid_output_tokens for row in rows) * MJ_PER_JOULE / energy_mj
