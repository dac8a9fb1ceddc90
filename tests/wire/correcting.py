"""Corrections by a test that has names of its own, and how they are refused."""

from typing import Any

import grpc
import pytest

from tests.wire.apart import Apart
from tests.wire.session import reason_of
from tokenworks.meter.v1 import meter_service_pb2

Correction = meter_service_pb2.Correction


def correct(session: Apart, **changes: Any) -> Correction:  # noqa: ANN401
    """Correct an event by `event_id` or `place`; `changes` are the request's other fields."""
    changes.setdefault("reason", "a test run")
    changes["account"] = session.own(changes.get("account", ""))
    if isinstance(changes.get("place"), tuple):
        names = ("producer", "sequence", "index")
        place = dict(zip(names, changes["place"], strict=True))
        place["producer"] = session.own(place["producer"])
        changes["place"] = meter_service_pb2.EventPlace(**place)
    times = {name: changes.pop(name) for name in ("start_time", "end_time") if name in changes}
    request = meter_service_pb2.CorrectUsageRequest(**changes)
    for name, time_ms in times.items():
        getattr(request, name).FromMilliseconds(time_ms)
    correction: Correction = session.call("CorrectUsage", request).correction
    return correction


def refusal(session: Apart, **changes: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """Return code, reason and message of a correction that must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        correct(session, **changes)
    code, reason, _ = reason_of(failure.value)
    return code.name, reason, str(failure.value.details())
