"""What one of several servers does for all of them."""

from dataclasses import replace

import pytest

from cli.meter_process import make_options
from cli.settings import Settings
from meter.options import EnergySource, MeterOptions
from meter.tasks import machine_task, tasks_of


def options_of(*sources: str, crew: str | None = None) -> MeterOptions:
    """Options with energy sources of one pool, of a worker of a crew or of a whole meter."""
    options = make_options(Settings(), database_url="", key_pepper=b"")
    named = tuple(EnergySource(pool="h100", url=source) for source in sources)
    return replace(options, energy_sources=named, crew=crew)


def test_machine_task__of_the_workers_of_one_machine() -> None:
    """Workers of a crew have one task in their machine's accelerators, and no other crew has it."""
    first, second = (options_of("nvml", crew="a") for _ in range(2))
    assert machine_task(first) == machine_task(second)
    assert machine_task(first) in tasks_of(first)
    assert machine_task(first) != machine_task(options_of("nvml", crew="b"))


@pytest.mark.parametrize(
    "options", [options_of("nvml"), options_of("http://node-1:9400/metrics", crew="a")]
)
def test_machine_task__is_none(options: MeterOptions) -> None:
    """A meter that is alone on its machine asks nobody, and who reads no accelerator does not."""
    assert machine_task(options) == ""
    assert "" not in tasks_of(options)
