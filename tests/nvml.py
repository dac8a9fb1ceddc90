"""Stands for NVML's Python library: boards that a test sets, or that play what an H100 showed."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

H100 = Path(__file__).parent / "fixtures" / "h100"
UUID = "GPU-5ad1c0de-0000-4000-8000-000000000001"
NOT_SUPPORTED = 3
_NAMES = (
    *("NOT_SUPPORTED", "NO_PERMISSION", "NO_DATA", "FUNCTION_NOT_FOUND", "GPU_IS_LOST"),
    *("LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "UNKNOWN"),
)


class NVMLError(Exception):
    """What NVML answers instead of a value."""

    def __init__(self, value: int) -> None:
        """Take its number."""
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass(slots=True)
class Board:
    """A board, or the error that it answers instead; None is not supported."""

    uuid: str = UUID
    counter_mj: int | None = 0
    power_mw: int | None = 75_000
    # Names of its parts, which nobody should ask for: the counter is of the whole.
    parts: tuple[str, ...] = ()
    error: str = ""
    before: Callable[[], None] = field(default=lambda: None)


class FakeNvml(ModuleType):
    """The library, with as many of its functions as are to be used; others are missing."""

    NVMLError = NVMLError

    def __init__(self, *boards: Board) -> None:
        """Take the boards of the machine."""
        super().__init__("pynvml")
        self.boards = list(boards)
        self.init_error = ""
        self.init_count = 0
        self.open_count = 0
        self.numbers = {name: place for place, name in enumerate(_NAMES, NOT_SUPPORTED)}
        for name, number in self.numbers.items():
            setattr(self, f"NVML_ERROR_{name}", number)
        self.nvmlInit = self._begin
        self.nvmlShutdown = self._end
        self.nvmlDeviceGetCount = self._count
        self.nvmlDeviceGetHandleByIndex = self._board
        self.nvmlDeviceGetUUID = _uuid
        self.nvmlDeviceGetTotalEnergyConsumption = _counter
        self.nvmlDeviceGetPowerUsage = _gauge

    def _begin(self) -> None:
        self.init_count += 1
        if self.init_error:
            raise NVMLError(self.numbers[self.init_error])
        self.open_count += 1

    def _end(self) -> None:
        self.open_count -= 1

    def _count(self) -> int:
        assert self.open_count == 1
        return len(self.boards)

    def _board(self, index: int) -> Board:
        board = self.boards[index]
        board.before()
        if board.error:
            raise NVMLError(self.numbers[board.error])
        return board


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the H100 showed at a time (unix µs): its counter in mJ and both gauges in mW."""

    time_us: int
    counter_mj: int
    power_mw: int
    instant_mw: int


def played() -> list[Shown]:
    """Return what an H100 showed, every 100 ms for three minutes, from idle to load and back."""
    with (H100 / "trace.csv").open(encoding="utf-8", newline="") as file:
        return [
            Shown(**{name: int(row[name]) for name in Shown.__slots__})
            for row in csv.DictReader(file)
        ]


def _uuid(handle: Board) -> str:
    return handle.uuid


def _counter(handle: Board) -> int:
    return _value(handle.counter_mj)


def _gauge(handle: Board) -> int:
    return _value(handle.power_mw)


def _value(value: int | None) -> int:
    if value is None:
        raise NVMLError(NOT_SUPPORTED)
    return value
