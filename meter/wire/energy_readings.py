"""Readings of counters, and where energy is read, as messages."""

from collections.abc import Sequence
from typing import Final

from meter.domain import limits
from meter.domain.boundary import Boundary
from meter.energy.counters import Reading
from meter.energy.reading import SourceState
from meter.energy.validity import PoolPower, SilentDevice
from meter.journal.check import is_text
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb

_BOUNDARIES: Final = {
    pb.ENERGY_BOUNDARY_UNSPECIFIED: Boundary.BOARD,
    pb.ENERGY_BOUNDARY_BOARD: Boundary.BOARD,
    pb.ENERGY_BOUNDARY_HOST: Boundary.HOST,
    pb.ENERGY_BOUNDARY_FACILITY: Boundary.FACILITY,
}


def to_reading(reading: pb.EnergyReading, *, now_ms: int) -> Reading:
    """Return a reading; raises InvalidArgument with the field and the rule."""
    boundary = _BOUNDARIES.get(reading.boundary)
    if boundary is None:
        raise invalid("boundary", "board, host or facility")
    field, other = ("site", "pool") if boundary is Boundary.FACILITY else ("pool", "site")
    name = str(getattr(reading, field))
    for each, text, length_max in (
        (field, name, limits.POOL_CHARS_MAX),
        ("device", reading.device, limits.DEVICE_CHARS_MAX),
    ):
        if not text or not is_text(text, length_max):
            raise invalid(each, f"1–{length_max} printable characters")
    if getattr(reading, other):
        raise invalid(other, f"empty, as what is of a {boundary} has a {field}")
    time_ms = reading.time.seconds * 1000 + reading.time.nanos // 1_000_000
    if not now_ms - limits.LATE_MS_MAX <= time_ms <= now_ms + limits.FUTURE_MS_MAX:
        raise invalid("time", "at most 35 days ago and 5 minutes ahead")
    if not 0 <= reading.range_mj <= limits.COUNTER_MJ_MAX:
        raise invalid("range_mj", f"0 to {limits.COUNTER_MJ_MAX}")
    counter_mj_max = reading.range_mj or limits.COUNTER_MJ_MAX
    if not 0 <= reading.counter_mj <= counter_mj_max:
        raise invalid("counter_mj", f"0 to {counter_mj_max}")
    power_mw = reading.power_mw if reading.HasField("power_mw") else None
    if power_mw is not None and not 0 <= power_mw <= limits.POWER_MW_MAX:
        raise invalid("power_mw", f"0 to {limits.POWER_MW_MAX}")
    return Reading(
        boundary=boundary,
        name=name,
        device=reading.device,
        time_ms=time_ms,
        counter_mj=reading.counter_mj,
        range_mj=reading.range_mj,
        power_mw=power_mw,
    )


def to_sources(
    states: Sequence[SourceState], *, pools: Sequence[PoolPower], silent: Sequence[SilentDevice]
) -> pb.ListEnergySourcesResponse:
    """Return where energy is read, and how well it is known."""
    return pb.ListEnergySourcesResponse(
        sources=[_to_source(state) for state in states],
        pools=[_to_pool(power) for power in pools],
        silent_devices=[_to_silent(device) for device in silent],
    )


def _to_source(state: SourceState) -> pb.EnergySource:
    message = pb.EnergySource(
        pool=state.source.pool,
        url=state.source.url,
        device_count=state.device_count,
        failure=state.failure or "",
    )
    if state.read_ms is not None:
        message.read_time.FromMilliseconds(state.read_ms)
    return message


def _to_pool(power: PoolPower) -> pb.PoolPower:
    message = pb.PoolPower(
        pool=power.pool,
        valid=power.is_valid,
        device_count=power.device_count,
        fresh_count=power.fresh_count,
        faults=[pb.PowerFault.Value(f"POWER_FAULT_{fault.name}") for fault in power.faults],
        cross_check_ratio=power.cross_check_ratio,
    )
    message.last_sample_time.FromMilliseconds(power.last_sample_ms)
    return message


def _to_silent(silent: SilentDevice) -> pb.SilentDevice:
    message = pb.SilentDevice(pool=silent.pool, device=silent.device, source=silent.source)
    message.last_sample_time.FromMilliseconds(silent.last_sample_ms)
    return message
