"""What `tokenworks energy show` tells as JSON."""

from collections.abc import Sequence
from typing import Final

from cli.energy.money import Revenue
from cli.energy.question import BOUNDARIES, REASONS, TIMES, tokens_per_joule
from cli.energy.sources import time_to_json
from tokenworks.meter.v1 import energy_service_pb2 as pb

_BASES: Final = {
    pb.PUE_BASIS_MEASURED: "measured",
    pb.PUE_BASIS_CONFIGURED: "configured",
}


def to_json(
    answer: pb.QueryEfficiencyResponse,
    *,
    request: pb.QueryEfficiencyRequest,
    by: Sequence[str],
    revenue: Revenue,
) -> dict[str, object]:
    """Return an answer, with what its rows earned where that is known."""
    return {
        "start_time": request.start_time.ToJsonString(),
        "end_time": request.end_time.ToJsonString(),
        "boundary": next(it for it, number in BOUNDARIES.items() if number == request.boundary),
        "attributed_until": time_to_json(
            answer.attributed_until, is_there=answer.HasField("attributed_until")
        ),
        "rows": [_row_to_json(row, by=by, revenue=revenue) for row in answer.rows],
        "pools": [
            {
                "pool": pool.pool,
                **_time_of(pool),
                "measured_mj": pool.measured_mj,
                "estimated_mj": pool.estimated_mj,
                "attributed_mj": pool.attributed_mj,
                "unattributed_mj": {
                    REASONS.get(it.reason, str(it.reason)): it.energy_mj for it in pool.unattributed
                },
                "gap_ms": pool.gap_ms,
                "reset_count": pool.reset_count,
                "interval_count": pool.interval_count,
                "valid_interval_count": pool.valid_interval_count,
            }
            for pool in answer.pools
        ],
        "sites": [
            {
                "site": site.site,
                "facility_mj": site.facility_mj if site.HasField("facility_mj") else None,
                "pools_mj": site.pools_mj,
                "pue": site.pue or None,
                "pue_basis": _BASES.get(site.basis),
            }
            for site in answer.sites
        ],
    }


def _time_of(pool: pb.PoolEnergy) -> dict[str, object]:
    is_there = pool.HasField("start_time")
    return {"start_time": pool.start_time.ToJsonString()} if is_there else {}


def _row_to_json(
    row: pb.EfficiencyRow, *, by: Sequence[str], revenue: Revenue
) -> dict[str, object]:
    keys: dict[str, object] = {}
    for name in by:
        if name in TIMES:
            keys["start_time"] = row.start_time.ToJsonString()
        else:
            keys[name] = getattr(row, name)
    return {
        **keys,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": row.total_tokens,
        "request_count": row.request_count,
        "energy_mj": row.energy_mj if row.HasField("energy_mj") else None,
        "idle_mj": row.idle_mj,
        "attributed_output_tokens": row.attributed_output_tokens,
        "valid_energy_mj": row.valid_energy_mj if row.HasField("valid_energy_mj") else None,
        "valid_output_tokens": row.valid_output_tokens,
        "output_tokens_per_joule": tokens_per_joule([row]),
        **_money_to_json(row, revenue=revenue),
    }


def _money_to_json(row: pb.EfficiencyRow, *, revenue: Revenue) -> dict[str, object]:
    if not revenue:
        return {}
    amount = revenue.find(row)
    ratio = revenue.per_megawatt_hour([row])
    return {
        "usd": None if amount is None else f"{amount:f}",
        "usd_per_mwh": None if ratio is None else f"{ratio:f}",
    }
