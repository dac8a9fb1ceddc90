"""One GPU as NVML shows it: its energy counter, its power gauges, and what it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pynvml

_SCOPES: Final = ("GPU", "MODULE", "MEMORY")
_STEP_SECONDS_MAX: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The moment at which the counter was seen to step: unix µs, and millijoules since then."""

    time_us: int
    counter_mj: int


class Board:
    """The first GPU of this machine. Raises pynvml.NVMLError when there is none."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def counter_mj(self) -> int:
        """Energy since the driver was loaded, in millijoules."""
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def usage_mw(self) -> int:
        """The gauge that everybody reads, in milliwatts."""
        return int(pynvml.nvmlDeviceGetPowerUsage(self._handle))

    def instant_mw(self) -> int:
        """The gauge that is not averaged, of the GPU alone, in milliwatts; 0 without one."""
        found = self.field(pynvml.NVML_FI_DEV_POWER_INSTANT, scope=0)
        return found if isinstance(found, int) else 0

    def field(self, field: int, *, scope: int) -> int | str:
        """Return the value of a field in a scope, or the error that NVML has for it."""
        value = pynvml.nvmlDeviceGetFieldValues(self._handle, [(field, scope)])[0]
        if value.nvmlReturn != pynvml.NVML_SUCCESS:
            return str(pynvml.NVMLError(value.nvmlReturn))
        wide = value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        return int(value.value.ullVal if wide else value.value.uiVal)

    def edge(self) -> Edge:
        """Wait until the counter steps, a second at most, and return that moment."""
        before = self.counter_mj()
        until = time.monotonic() + _STEP_SECONDS_MAX
        while True:
            time_us = time.time_ns() // 1000
            value = self.counter_mj()
            if value != before or time.monotonic() > until:
                return Edge(time_us=time_us, counter_mj=value)
            time.sleep(0.0005)

    def facts(self) -> dict[str, Any]:
        """Return what NVML says of the GPU; what it refuses is there as the words of its error."""
        handle = self._handle
        asked = {
            "driver": pynvml.nvmlSystemGetDriverVersion,
            "nvml": pynvml.nvmlSystemGetNVMLVersion,
            "gpu_count": pynvml.nvmlDeviceGetCount,
            "name": lambda: pynvml.nvmlDeviceGetName(handle),
            "architecture": lambda: pynvml.nvmlDeviceGetArchitecture(handle),
            "total_energy_mj": self.counter_mj,
            "power_usage_mw": self.usage_mw,
            "mig_mode": lambda: pynvml.nvmlDeviceGetMigMode(handle),
            "persistence_mode": lambda: pynvml.nvmlDeviceGetPersistenceMode(handle),
            "power_limit_mw": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle),
            "performance_state": lambda: pynvml.nvmlDeviceGetPerformanceState(handle),
            "sm_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(
                handle, pynvml.NVML_TEMPERATURE_GPU
            ),
            # The UUID names one card in the world: its form is told, not itself.
            "uuid_form": lambda: _form(pynvml.nvmlDeviceGetUUID(handle)),
        }
        found = {name: _answer(ask) for name, ask in asked.items()}
        fields = {
            "power_average_mw": pynvml.NVML_FI_DEV_POWER_AVERAGE,
            "power_instant_mw": pynvml.NVML_FI_DEV_POWER_INSTANT,
            "field_total_energy_mj": pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
        }
        for name, number in fields.items():
            found[name] = {
                scope: self.field(number, scope=place) for place, scope in enumerate(_SCOPES)
            }
        return found


def _answer(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except pynvml.NVMLError as error:
        return str(error)


def _form(uuid: str) -> str:
    return "".join("x" if letter in "0123456789abcdef" else letter for letter in uuid)
