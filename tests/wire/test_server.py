"""What the server has gRPC wait for."""

import asyncio
from collections.abc import Collection
from typing import Any
from unittest.mock import Mock

import pytest

from meter.metrics import Metrics
from meter.wire.server import Server


def test_start__waits_for_the_next_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for a call of each method, which every call would have to pay for."""
    waited: list[int] = []
    wait = asyncio.wait

    def noting(futures: Collection[Any], **kwargs: Any) -> Any:  # noqa: ANN401
        waited.append(len(futures))
        return wait(futures, **kwargs)

    async def serve() -> None:
        server = Server(
            Mock(),
            accounts=Mock(),
            clock=Mock(),
            energy=Mock(),
            engines=Mock(),
            producers=Mock(),
            audit=Mock(),
            metrics=Metrics(),
            door=Mock(),
            bounds=Mock(),
            driven=None,
            certificates=None,
            connection_age_seconds=60,
            shares_ports=False,
            residents={},
            receivers=(),
            access={},
        )
        await server.start(Mock(grpc_address="127.0.0.1:0", otlp=False))
        await asyncio.sleep(0)
        await server.stop(grace_seconds=0)

    monkeypatch.setattr(asyncio, "wait", noting)
    asyncio.run(serve())

    assert set(waited) == {1}
