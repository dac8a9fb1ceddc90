"""Software marks over a real server: kept, listed, refused."""

from collections.abc import Callable
from functools import partial

import grpc
import pytest

from tests.running_meter import RunningMeter
from tests.wire.session import CALL_SECONDS_MAX, Session
from tests.wire.talk import failure_of, info_of
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import account_service_pb2
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub

NOW_MS = time_ns() // 1_000_000
DAY_MS = 24 * 3_600_000
INVALID = ("INVALID_ARGUMENT", "ARGUMENT_INVALID", False)


class Marker:
    """Marks and lists with an API key, the installation's unless given."""

    def __init__(self, meter: RunningMeter, *, api_key: str | None = None) -> None:
        self.session = Session(meter, api_key=api_key)
        self._stub = EnergyServiceStub(self.session.channel)

    def mark(self, pool: str, software: str, *, time_ms: int | None = None) -> bool:
        """Mark; return whether that changed something."""
        request = pb.MarkSoftwareRequest(pool=pool, software=software)
        if time_ms is not None:
            request.time.FromMilliseconds(time_ms)
        answer = self._stub.MarkSoftware(
            request,
            metadata=self.session.metadata,
            timeout=CALL_SECONDS_MAX,
            wait_for_ready=True,
        )
        return bool(answer.changed)

    def marks(self, pool: str = "") -> list[tuple[str, str, int]]:
        """List marks."""
        answer = self._stub.ListSoftwareMarks(
            pb.ListSoftwareMarksRequest(pool=pool),
            metadata=self.session.metadata,
            timeout=CALL_SECONDS_MAX,
            wait_for_ready=True,
        )
        return [(it.pool, it.software, it.time.ToMilliseconds()) for it in answer.marks]


@pytest.fixture
def marker(shared_meter: RunningMeter) -> Marker:
    """Who may do everything."""
    return Marker(shared_meter)


def test_mark__is_kept_and_listed(marker: Marker) -> None:
    """A mark is there once, at its time, or at that of the call."""
    begin_ms = NOW_MS - 3 * DAY_MS
    assert marker.mark("marked", "vllm 0.10", time_ms=begin_ms)
    assert not marker.mark("marked", "vllm 0.10")
    assert marker.mark("marked", "vllm 0.11")
    first, second = marker.marks("marked")
    assert first == ("marked", "vllm 0.10", begin_ms)
    assert second[:2] == ("marked", "vllm 0.11")
    assert abs(second[2] - time_ns() // 1_000_000) < DAY_MS
    assert first in marker.marks()


def test_mark__another_software_at_the_same_time(marker: Marker) -> None:
    """What was marked stays, and the caller is told so."""
    marker.mark("settled", "vllm 0.10", time_ms=NOW_MS - DAY_MS)
    refused = partial(marker.mark, "settled", "vllm 0.11", time_ms=NOW_MS - DAY_MS)
    assert failure_of(refused) == ("FAILED_PRECONDITION", "FACTORY_REFUSED", False)


@pytest.mark.parametrize(
    ("field", "act"),
    [
        ("pool", lambda it: it.mark("", "vllm")),
        ("pool", lambda it: it.mark("p" * 65, "vllm")),
        ("pool", lambda it: it.marks("p" * 65)),
        ("software", lambda it: it.mark("broken", "")),
        ("software", lambda it: it.mark("broken", "v" * 65)),
        ("software", lambda it: it.mark("broken", "v\u0000")),
        ("time", lambda it: it.mark("broken", "vllm", time_ms=NOW_MS - 36 * DAY_MS)),
        ("time", lambda it: it.mark("broken", "vllm", time_ms=NOW_MS + DAY_MS)),
    ],
)
def test_mark__what_makes_no_sense(
    marker: Marker, field: str, act: Callable[[Marker], object]
) -> None:
    """What is no pool, no software or no time of now is refused, and nothing is kept."""
    assert failure_of(partial(act, marker)) == INVALID
    with pytest.raises(grpc.RpcError) as failure:
        act(marker)
    assert info_of(failure.value).metadata["field"] == field
    assert marker.marks("broken") == []


def test_mark__needs_the_whole_installation(shared_meter: RunningMeter, marker: Marker) -> None:
    """A key that may report may mark and not list; one that may read may list and not mark."""
    refused = ("PERMISSION_DENIED", "SCOPE_MISSING", False)
    reporter = Marker(shared_meter, api_key=key_for(marker, account_service_pb2.ROLE_PRODUCER))
    reader = Marker(shared_meter, api_key=key_for(marker, account_service_pb2.ROLE_READER))
    assert reporter.mark("scoped", "vllm")
    assert reader.marks("scoped")
    assert failure_of(lambda: reporter.marks("scoped")) == refused
    assert failure_of(lambda: reader.mark("scoped", "other")) == refused


def key_for(marker: Marker, role: account_service_pb2.Role.ValueType) -> str:
    """Create an API key with one role on the whole installation."""
    request = account_service_pb2.CreateApiKeyRequest()
    request.scopes.add(role=role)
    secret: str = marker.session.call("CreateApiKey", request).secret
    return secret
