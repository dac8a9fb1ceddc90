"""A billing office: stubs on a running sandbox, and what most tests begin with."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.counted import wait_until_counted
from tests.running_meter import RunningMeter
from tests.wire.session import CALL_SECONDS_MAX, Session
from tokenworks.billing.v1 import billing_service_pb2_grpc
from tokenworks.meter.v1 import (
    account_service_pb2,
    clock_service_pb2,
    clock_service_pb2_grpc,
    usage_pb2,
)

_NUMBERS = itertools.count(1)
BEGIN = "2026-10-10T00:00:00Z"
NOVEMBER = "2026-11-01T00:00:00Z"


class Office:
    """Calls of the billing service with an API key (the installation's unless given)."""

    def __init__(self, meter: RunningMeter, *, api_key: str | None = None) -> None:
        self.meter = meter
        self.session = Session(meter, api_key=api_key)
        self._stub = billing_service_pb2_grpc.BillingServiceStub(self.session.channel)
        self._clock = clock_service_pb2_grpc.ClockServiceStub(self.session.channel)

    def call(self, name: str, request: Any) -> Any:  # noqa: ANN401
        """Make a unary call."""
        return getattr(self._stub, name)(
            request,
            metadata=self.session.metadata,
            timeout=CALL_SECONDS_MAX,
            wait_for_ready=True,
        )

    def advance(self, to: str) -> None:
        """Move the driven clock."""
        request = clock_service_pb2.AdvanceClockRequest(to=timestamp(to))
        self._clock.AdvanceClock(request, metadata=self.session.metadata, timeout=CALL_SECONDS_MAX)

    def use(
        self,
        account: str,
        *,
        at: str = BEGIN,
        tier: str = "high",
        pool: str = "",
        **classes: int,
    ) -> None:
        """Record one event of llama-4 that ended then, and wait until it is counted."""
        tokens = [
            usage_pb2.TokenCount(
                token_class=usage_pb2.TokenClass.Value(f"TOKEN_CLASS_{name.upper()}"), count=count
            )
            for name, count in classes.items()
        ]
        event = usage_pb2.UsageEvent(
            event_id=f"office-{next(_NUMBERS)}",
            end_time=timestamp(at),
            dimensions=usage_pb2.Dimensions(account=account, model="llama-4", tier=tier, pool=pool),
            tokens=tokens,
        )
        outcomes = self.session.record(event)
        assert outcomes == [1], outcomes
        wait_until_counted(self.meter.database_url)

    def key_for(self, account: str, roles: Sequence[int]) -> str:
        """Create an API key with these roles on an account; "" is the installation."""
        scopes = [
            account_service_pb2.Scope(role=it, account=account)  # type: ignore[arg-type]
            for it in roles
        ]
        answer = self.session.call(
            "CreateApiKey", account_service_pb2.CreateApiKeyRequest(account=account, scopes=scopes)
        )
        return str(answer.secret)


def timestamp(text: str) -> Timestamp:
    """Return an instant of the wire."""
    message = Timestamp()
    message.FromDatetime(datetime.fromisoformat(text).astimezone(UTC))
    return message
