"""The workers of one machine: whole meters that listen to the same ports, and speak for each other.

Nobody who asks for a page can choose which worker answers, so each answers for all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from socket import socket
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Crew(Protocol):
    """All workers, as one of them knows them; any thread may ask, and waits for the slowest."""

    @property
    def http(self) -> socket:
        """What all of them listen to for HTTP; it does not block."""
        ...

    @property
    def otlp_http(self) -> socket | None:
        """The same of OTLP, where that is on."""
        ...

    def attend(
        self,
        *,
        collect: Callable[[], Iterable[Metric]],
        find_obstacles: Callable[[], Sequence[str]],
    ) -> None:
        """Answer the others from now on: with own metrics, and what stands against own readiness.

        Both are called on a thread.
        """
        ...

    def families(self) -> Sequence[Metric]:
        """Return the metrics of all, as one server's."""
        ...

    def obstacles(self) -> Sequence[str]:
        """Return what stands against sending calls to this machine, a line each."""
        ...

    def silent(self) -> Sequence[str]:
        """Return a line for each worker that runs and does not answer."""
        ...


def joint_registry(crew: Crew) -> CollectorRegistry:
    """Return what a page of the metrics of all workers is made of."""
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(_Joint(crew))
    return registry


class _Joint(Collector):
    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def collect(self) -> Iterator[Metric]:
        yield from self._crew.families()
