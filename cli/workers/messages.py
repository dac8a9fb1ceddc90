"""What a parent and its workers tell each other, over two pipes for each worker.

On one the parent gives an order and asks; on the other the worker tells how its start went, and
asks the parent what is true of all. The end of a pipe is the end of who held it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from meter.options import Addresses, MeterOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is to run, and the numbers of the sockets that it is given for HTTP."""

    options: MeterOptions
    customer_metrics_max: int
    log_level: str
    log_format: str
    http: int
    otlp_http: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A worker answers calls."""

    addresses: Addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker ends for this reason, as the command would with this exit code."""

    message: str
    code: int


class Question(StrEnum):
    """What is asked: of a worker about itself, of the parent about all of them."""

    METRICS = "metrics"
    OBSTACLES = "obstacles"
    # Only the parent is asked: who answers nothing is silent.
    SILENT = "silent"


# Metrics, or lines.
Answer: TypeAlias = Sequence[Any]
