"""Energy of devices that show what they draw and count nothing: their gauge's integral; pure."""

from dataclasses import dataclass
from typing import Final

from meter.energy.counters import Estimate

# A milliwatt for a millisecond is a microjoule, and trapezoids are halves.
_DOUBLED_UJ_PER_MJ: Final = 2_000


@dataclass(slots=True, kw_only=True)
class _Device:
    """A device as last seen; `doubled_uj` is twice what it used since `since_ms`, in µJ."""

    name: str
    time_ms: int
    power_mw: int
    since_ms: int
    doubled_uj: int = 0


class PowerIntegral:
    """Adds up trapezoids between samples; one of its methods at a time.

    Between samples that lie too far apart nothing is known: there the integral begins anew.
    """

    def __init__(self) -> None:
        """Know no device."""
        self._devices: dict[str, _Device] = {}

    def take(
        self, *, name: str, device: str, time_ms: int, power_mw: int, gap_ms: int
    ) -> Estimate | None:
        """Take a sample (mW), and return what the device used since it was last settled.

        None where nothing is known: at the first sample, and at those that are not newer. Samples
        more than `gap_ms` apart are too far apart.
        """
        last = self._devices.get(device)
        if last is not None and last.name == name and time_ms <= last.time_ms:
            return None
        if last is None or last.name != name or time_ms - last.time_ms > gap_ms:
            self._devices[device] = _Device(
                name=name, time_ms=time_ms, power_mw=power_mw, since_ms=time_ms
            )
            return None
        last.doubled_uj += (last.power_mw + power_mw) * (time_ms - last.time_ms)
        last.time_ms, last.power_mw = time_ms, power_mw
        return Estimate(
            name=name,
            device=device,
            since_ms=last.since_ms,
            time_ms=time_ms,
            energy_mj=last.doubled_uj // _DOUBLED_UJ_PER_MJ,
        )

    def settle(self, estimate: Estimate) -> None:
        """Begin anew behind an estimate, which is recorded; what is less than a mJ is kept."""
        device = self._devices.get(estimate.device)
        if device is not None and device.since_ms == estimate.since_ms:
            device.since_ms = estimate.time_ms
            device.doubled_uj -= estimate.energy_mj * _DOUBLED_UJ_PER_MJ

    def forget(self, device: str) -> None:
        """Begin anew with a device: its energy is known otherwise now."""
        self._devices.pop(device, None)

    def forget_before(self, time_ms: int) -> None:
        """Forget the devices whose last sample is older."""
        for device, state in list(self._devices.items()):
            if state.time_ms < time_ms:
                del self._devices[device]
