"""Reads this machine's own NVIDIA GPUs through the driver's library (NVML)."""

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from meter.domain.limits import (
    COUNTER_MJ_MAX,
    DEVICE_CHARS_MAX,
    ENERGY_PAGE_DEVICES_MAX,
    ENERGY_READ_SECONDS_MAX,
)
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure

# The module `pynvml` of nvidia-ml-py, or what stands for it.
Library: TypeAlias = Any

_LIBRARY: Final = "pynvml"


def load_library() -> Library:
    """Return NVML's Python library, which comes with the extra `nvml`; raises ImportError."""
    return importlib.import_module(_LIBRARY)


class NvmlReader:
    """The GPUs of this machine: of each board the energy counter and the gauge averaged over 1 s.

    A board is read as a whole, by the name of the whole, however it is divided (MIG). The library
    is loaded at the first read. After a read that failed NVML is begun anew: a card that came back,
    and one that was added, are only seen then.
    """

    def __init__(
        self,
        *,
        load: Callable[[], Library] = load_library,
        seconds_max: float = ENERGY_READ_SECONDS_MAX,
    ) -> None:
        """Take where the library is from, and how long a read may last."""
        self._load = load
        self._seconds_max = seconds_max
        self._session: _Session | None = None
        self._hung: threading.Thread | None = None

    def read(self) -> Found:
        """Return what the GPUs show now, within `seconds_max`; raises SourceFailed.

        A driver whose card has died may answer never: the read is left behind then, and no other
        is begun until it has ended. The fault that NVML gave is the cause of what is raised.
        """
        if self._hung is not None and self._hung.is_alive():
            raise SourceFailed(SourceFailure.UNREACHABLE)
        results: list[Found | SourceFailed] = []
        thread = threading.Thread(target=lambda: results.append(self._try()), daemon=True)
        thread.start()
        thread.join(self._seconds_max)
        if not results:
            self._hung = thread
            raise SourceFailed(SourceFailure.UNREACHABLE)
        (result,) = results
        if isinstance(result, SourceFailed):
            raise result
        return result

    def close(self) -> None:
        """Let go of the driver, unless a read hangs in it."""
        if self._hung is None or not self._hung.is_alive():
            self._end()

    def _try(self) -> Found | SourceFailed:
        try:
            if self._session is None:
                self._session = _Session(self._load())
            found = self._session.read()
        except ImportError as error:
            return _failed(SourceFailure.NO_LIBRARY, error)
        except SourceFailed as error:
            self._end()
            return error
        if found.failure is not None:
            self._end()
        return found

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class _Session:
    """NVML between its begin and its end."""

    def __init__(self, library: Library) -> None:
        """Begin; raises SourceFailed."""
        self._nvml = library
        self._error: type[Exception] = library.NVMLError
        # What a board does not have; any other error says that the board does not answer.
        self._absent = {
            library.NVML_ERROR_NOT_SUPPORTED,
            library.NVML_ERROR_FUNCTION_NOT_FOUND,
            library.NVML_ERROR_NO_PERMISSION,
            library.NVML_ERROR_NO_DATA,
        }
        with self._failing_as(SourceFailure.NO_LIBRARY):
            library.nvmlInit()

    def read(self) -> Found:
        """Return what each board shows; raises SourceFailed when there is nothing."""
        with self._failing_as(SourceFailure.NO_COUNTERS):
            count = self._nvml.nvmlDeviceGetCount()
        samples: dict[str, Sample] = {}
        failed = SourceFailed(SourceFailure.NO_COUNTERS)
        failure = SourceFailure.UNREADABLE if count > ENERGY_PAGE_DEVICES_MAX else None
        for index in range(min(count, ENERGY_PAGE_DEVICES_MAX)):
            try:
                sample = self._read_board(index)
            except SourceFailed as error:
                failed, failure = error, error.failure
                continue
            samples[sample.device] = sample
        if not samples:
            raise failed
        return Found(samples=list(samples.values()), failure=failure)

    def close(self) -> None:
        """End; what the driver says of that helps nobody."""
        try:
            self._nvml.nvmlShutdown()
        except self._error:
            return

    def _read_board(self, index: int) -> Sample:
        with self._failing_as(SourceFailure.DEVICE_LOST):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            device = str(self._nvml.nvmlDeviceGetUUID(handle))
            counter_mj = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
            power_mw = self._ask(self._nvml.nvmlDeviceGetPowerUsage, handle)
        if not 0 < len(device) <= DEVICE_CHARS_MAX or not device.isprintable():
            raise SourceFailed(SourceFailure.UNREADABLE)
        if counter_mj is not None and counter_mj > COUNTER_MJ_MAX:
            counter_mj = None
        if counter_mj is None and power_mw is None:
            raise SourceFailed(SourceFailure.NO_COUNTERS)
        return Sample(device=device, counter_mj=counter_mj, power_mw=power_mw)

    def _ask(self, question: Callable[[object], int], handle: object) -> int | None:
        """Return a board's answer, None when it has no such thing; raises NVML's errors."""
        try:
            return int(question(handle))
        except self._error as error:
            if getattr(error, "value", None) in self._absent:
                return None
            raise

    @contextmanager
    def _failing_as(self, failure: SourceFailure) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise SourceFailed(failure) from error


def _failed(failure: SourceFailure, cause: Exception) -> SourceFailed:
    failed = SourceFailed(failure)
    failed.__cause__ = cause
    return failed
