"""QueryEfficiency's question and answer, as messages."""

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain import limits
from meter.domain.boundary import Boundary
from meter.domain.interval import is_on_edge
from meter.energy.efficiency import (
    TIME_GROUPS,
    Efficiency,
    EfficiencyGroup,
    EfficiencyQuery,
    EfficiencyRow,
    PoolEnergy,
)
from meter.energy.sites import SiteEnergy
from meter.journal.check import is_text
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb

# The last second that a timestamp may name: the year 9999 ends.
_SECONDS_MAX: Final = 253_402_300_799
_BOUNDARIES: Final = {
    pb.ENERGY_BOUNDARY_UNSPECIFIED: Boundary.BOARD,
    pb.ENERGY_BOUNDARY_BOARD: Boundary.BOARD,
    pb.ENERGY_BOUNDARY_HOST: Boundary.HOST,
}
_NUMBERS: Final = {
    Boundary.BOARD: pb.ENERGY_BOUNDARY_BOARD,
    Boundary.HOST: pb.ENERGY_BOUNDARY_HOST,
}


def to_query(request: pb.QueryEfficiencyRequest) -> EfficiencyQuery:
    """Return a question; raises InvalidArgument with the field and the rule."""
    groups = [int(group) for group in request.group_by]
    known = frozenset(EfficiencyGroup)
    if any(group not in known for group in groups) or len(set(groups)) < len(groups):
        raise invalid("group_by", "known fields, each once")
    if len(set(groups).intersection(TIME_GROUPS)) > 1:
        raise invalid("group_by", "one of interval, hour and day")
    if not is_text(request.pool, limits.POOL_CHARS_MAX):
        raise invalid("pool", f"at most {limits.POOL_CHARS_MAX} printable characters")
    boundary = _BOUNDARIES.get(request.boundary)
    if boundary is None:
        raise invalid("boundary", "board or host: that of a facility follows from the sites")
    start_ms = to_edge(request.start_time, "start_time")
    end_ms = to_edge(request.end_time, "end_time")
    if end_ms <= start_ms:
        raise invalid("end_time", "after start_time")
    return EfficiencyQuery(
        start_ms=start_ms,
        end_ms=end_ms,
        group_by=tuple(EfficiencyGroup(group) for group in groups),
        pool=request.pool,
        boundary=boundary,
    )


def to_edge(time: Timestamp, field: str) -> int:
    """Return a time (ms) that has to be on an edge; raises InvalidArgument."""
    if not 0 <= time.seconds <= _SECONDS_MAX or time.nanos or not is_on_edge(time.seconds * 1000):
        raise invalid(field, "a 15-minute edge in the years 1970 to 9999")
    return time.seconds * 1000


def to_response(answer: Efficiency, *, boundary: Boundary) -> pb.QueryEfficiencyResponse:
    """Return an answer about energy within a boundary."""
    return pb.QueryEfficiencyResponse(
        rows=[_to_row(row) for row in answer.rows],
        pools=[_to_pool(it, boundary=boundary) for it in answer.pools],
        sites=[_to_site(it) for it in answer.sites],
    )


def _to_row(row: EfficiencyRow) -> pb.EfficiencyRow:
    keys = row.keys
    message = pb.EfficiencyRow(
        pool=str(keys.get(EfficiencyGroup.POOL, "")),
        tier=str(keys.get(EfficiencyGroup.TIER, "")),
        model=str(keys.get(EfficiencyGroup.MODEL, "")),
        account=str(keys.get(EfficiencyGroup.ACCOUNT, "")),
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        total_tokens=row.total_tokens,
        request_count=row.request_count,
        energy_mj=row.energy_mj,
        idle_mj=row.idle_mj,
        attributed_output_tokens=row.attributed_output_tokens,
        valid_energy_mj=row.valid_energy_mj,
        valid_output_tokens=row.valid_output_tokens,
        valid_total_tokens=row.valid_total_tokens,
    )
    for key in TIME_GROUPS:
        if key in keys:
            message.start_time.FromMilliseconds(int(keys[key]))
    return message


def _to_pool(pool: PoolEnergy, *, boundary: Boundary) -> pb.PoolEnergy:
    message = pb.PoolEnergy(
        pool=pool.pool,
        boundary=_NUMBERS[boundary],
        measured_mj=pool.measured_mj,
        attributed_mj=pool.attributed_mj,
        estimated_mj=pool.estimated_mj,
        covered_ms=pool.covered_ms,
        gap_ms=pool.gap_ms,
        reset_count=pool.reset_count,
        interval_count=pool.interval_count,
        valid_interval_count=pool.valid_interval_count,
    )
    if pool.start_ms is not None:
        message.start_time.FromMilliseconds(pool.start_ms)
    for reason, energy_mj in pool.unattributed_mj.items():
        number = pb.UnattributedReason.Value(f"UNATTRIBUTED_REASON_{reason.upper()}")
        message.unattributed.add(reason=number, energy_mj=energy_mj)
    return message


def _to_site(site: SiteEnergy) -> pb.SiteEnergy:
    message = pb.SiteEnergy(site=site.site, facility_mj=site.facility_mj, pools_mj=site.pools_mj)
    if site.pue is not None:
        message.pue = f"{site.pue.pue:f}"
        message.basis = pb.PUE_BASIS_MEASURED if site.pue.is_measured else pb.PUE_BASIS_CONFIGURED
    return message
