"""What the wire tests share: stubs with a key, events, a stream as a list of messages."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import grpc
from google.rpc import error_details_pb2, status_pb2

from tests.running_meter import RunningMeter
from tokenworks.meter.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    producer_service_pb2_grpc,
    usage_pb2,
)

CALL_SECONDS_MAX = 60
# Between two looks: whoever is waited for needs the processor more.
LOOK_SECONDS = 0.01
Response = meter_service_pb2.StreamUsageResponse


class Session:
    """Stubs on a running meter, with an API key (the installation's unless given)."""

    def __init__(
        self,
        meter: RunningMeter,
        *,
        api_key: str | None = None,
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.meter = meter
        self.channel = grpc.insecure_channel(meter.target, options=options)
        self.metadata = (("authorization", f"Bearer {api_key or meter.api_key}"),)
        self._usage = meter_service_pb2_grpc.MeterServiceStub(self.channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(self.channel)
        self._producers = producer_service_pb2_grpc.ProducerServiceStub(self.channel)

    def call(self, name: str, request: Any) -> Any:  # noqa: ANN401
        """Make a unary call of whichever service has it."""
        stubs = (self._usage, self._accounts, self._producers)
        method = next(getattr(stub, name) for stub in stubs if hasattr(stub, name))
        return method(
            request, metadata=self.metadata, timeout=CALL_SECONDS_MAX, wait_for_ready=True
        )

    def create_account(self, account: str, *, parent: str = "") -> str:
        """Create an account whose id and handle are the same."""
        self.call(
            "CreateAccount",
            account_service_pb2.CreateAccountRequest(
                account=account, handle=account, parent=parent
            ),
        )
        return account

    def record(self, *events: usage_pb2.UsageEvent) -> list[int]:
        """Record events by id and return the outcomes."""
        request = meter_service_pb2.RecordUsageRequest(events=events)
        return list(self.call("RecordUsage", request).outcomes)

    def stream(self, messages: Iterable[Any]) -> Iterator[Response]:
        """Open a stream that sends these messages."""
        responses: Iterator[Response] = self._usage.StreamUsage(
            iter(messages), metadata=self.metadata, timeout=CALL_SECONDS_MAX, wait_for_ready=True
        )
        return responses

    def exchange(self, *messages: Any) -> list[Response]:  # noqa: ANN401
        """Send messages, end the stream, and return all answers."""
        return list(self.stream(messages))

    def counted(self) -> dict[tuple[str, str, int], int]:
        """Return tokens by account, tier and class once all that was recorded is counted.

        It asks again where the server says so, whose database was away or had no time for it.
        """
        recorded_ns = time.time_ns()
        edge = 900 * 10**9
        now = recorded_ns - recorded_ns % edge
        request = meter_service_pb2.QueryUsageRequest(
            group_by=[meter_service_pb2.GROUP_BY_ACCOUNT, meter_service_pb2.GROUP_BY_TIER]
        )
        request.start_time.FromNanoseconds(now - 60 * 86400 * 10**9)
        request.end_time.FromNanoseconds(now + 2 * edge)
        deadline = time.monotonic() + CALL_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                response = self.call("QueryUsage", request)
            except grpc.RpcError as error:
                failed: Any = error
                told = dict(failed.trailing_metadata() or ())
                if told.get("tokenworks-error-reason") != "STORE_UNAVAILABLE":
                    raise
                time.sleep(LOOK_SECONDS)
                continue
            if response.counted_until.ToNanoseconds() >= recorded_ns:
                return {
                    (row.account, row.tier, item.token_class): item.count
                    for row in response.rows
                    for item in row.tokens
                }
            time.sleep(LOOK_SECONDS)
        raise AssertionError("counting did not catch up")


def event(account: str = "acme", **changes: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401
    """Return a valid event with a fresh id; `changes` set fields, `tokens` a dict by class."""
    dimensions: dict[str, Any] = {"account": account, "model": "m", "tier": "high"}
    dimensions |= {
        name: changes.pop(name)
        for name in ("model", "served_model", "tier", "mode", "pool", "region")
        if name in changes
    }
    tokens = changes.pop("tokens", {usage_pb2.TOKEN_CLASS_INPUT: 3})
    at_ms = changes.pop("end_ms", None)
    message = usage_pb2.UsageEvent(
        event_id=changes.pop("event_id", os.urandom(16).hex()),
        dimensions=usage_pb2.Dimensions(**dimensions),
        tokens=[usage_pb2.TokenCount(token_class=k, count=v) for k, v in tokens.items()],
        **changes,
    )
    message.end_time.FromMilliseconds(time.time_ns() // 10**6 if at_ms is None else at_ms)
    return message


def opening(
    producer: str = "p1", *, instance: bytes = b"i" * 16, first_sequence: int = 0
) -> meter_service_pb2.StreamUsageRequest:
    """Return an OpenStream."""
    return meter_service_pb2.StreamUsageRequest(
        open=meter_service_pb2.OpenStream(
            producer=producer, instance=instance, first_sequence=first_sequence
        )
    )


def rows(sequence: int, *events: usage_pb2.UsageEvent) -> meter_service_pb2.StreamUsageRequest:
    """Return a batch in rows."""
    return meter_service_pb2.StreamUsageRequest(
        batch=usage_pb2.UsageBatch(sequence=sequence, rows=usage_pb2.UsageRows(events=events))
    )


def columns(
    sequence: int, column_form: usage_pb2.UsageColumns
) -> meter_service_pb2.StreamUsageRequest:
    """Return a batch in columns."""
    return meter_service_pb2.StreamUsageRequest(
        batch=usage_pb2.UsageBatch(sequence=sequence, columns=column_form)
    )


def to_columns(events: Sequence[usage_pb2.UsageEvent]) -> usage_pb2.UsageColumns:
    """Return the same events in columns, written plainly."""
    form = usage_pb2.UsageColumns()
    # Offsets reach 24 days to either side: the middle serves late and early events alike.
    ends = [item.end_time.ToMilliseconds() for item in events] or [0]
    base_ms = (min(ends) + max(ends)) // 2
    form.base_time.FromMilliseconds(base_ms)
    distinct = list({item.dimensions.SerializeToString(): item.dimensions for item in events})
    form.dimensions.extend(usage_pb2.Dimensions.FromString(blob) for blob in distinct)
    classes = sorted({count.token_class for item in events for count in item.tokens})
    by_class = {number: form.tokens.add(token_class=number) for number in classes}
    for item in events:
        form.dimensions_index.append(distinct.index(item.dimensions.SerializeToString()))
        form.end_offset_ms.append(item.end_time.ToMilliseconds() - base_ms)
        form.duration_ms.append(item.duration_ms)
        form.finish.append(item.finish)
        form.quality.append(item.quality)
        form.attempt.append(item.attempt)
        form.request_id.append(item.request_id)
        for name in ("reported_input_count", "reported_output_count"):
            getattr(form, name).append(getattr(item, name) if item.HasField(name) else -1)
        counts = {count.token_class: count.count for count in item.tokens}
        for number, column in by_class.items():
            column.counts.append(counts.get(number, 0))
    if all(len(item.event_id) == 32 for item in events):
        form.event_ids = b"".join(bytes.fromhex(item.event_id) for item in events)
    return form


def planes(
    sequence: int, plane_form: usage_pb2.UsagePlanes
) -> meter_service_pb2.StreamUsageRequest:
    """Return a batch in planes."""
    return meter_service_pb2.StreamUsageRequest(
        batch=usage_pb2.UsageBatch(sequence=sequence, planes=plane_form)
    )


def to_planes(events: Sequence[usage_pb2.UsageEvent]) -> usage_pb2.UsagePlanes:
    """Return the same events in planes, written plainly."""
    form = usage_pb2.UsagePlanes(event_count=len(events))
    ends = [item.end_time.ToMilliseconds() for item in events] or [0]
    form.base_time.FromMilliseconds(ends[0])
    accounts = [item.dimensions.account for item in events]
    form.accounts.extend(dict.fromkeys(accounts))
    services = [_without_account(item.dimensions) for item in events]
    distinct = list(dict.fromkeys(services))
    form.services.extend(usage_pb2.Dimensions.FromString(blob) for blob in distinct)
    form.account_index.CopyFrom(to_plane([list(form.accounts).index(it) for it in accounts]))
    form.service_index.CopyFrom(to_plane([distinct.index(it) for it in services]))
    form.end_offset_ms.CopyFrom(to_plane([end - ends[0] for end in ends]))
    for name in ("duration_ms", "finish", "quality", "attempt"):
        getattr(form, name).CopyFrom(to_plane([getattr(item, name) for item in events]))
    names: tuple[Literal["reported_input_count", "reported_output_count"], ...]
    names = ("reported_input_count", "reported_output_count")
    for reported in names:
        said = [getattr(item, reported) if item.HasField(reported) else -1 for item in events]
        getattr(form, reported).CopyFrom(to_plane(said))
    form.request_id.extend(item.request_id for item in events)
    for number in sorted({count.token_class for item in events for count in item.tokens}):
        counts = [
            next((it.count for it in item.tokens if it.token_class == number), 0) for item in events
        ]
        form.tokens.add(token_class=number, counts=to_plane(counts))
    if all(len(item.event_id) == 32 for item in events):
        form.event_ids = b"".join(bytes.fromhex(item.event_id) for item in events)
    return form


def to_plane(values: Sequence[int]) -> usage_pb2.PlaneColumn:
    """Return numbers as planes of half bytes above the least of them, one digit at a time."""
    base = min(values, default=0)
    digits = max((len(f"{value - base:x}") for value in values if value != base), default=0)
    written = [f"{value - base:0{digits}x}"[::-1] for value in values]
    data = bytearray()
    for low in range(0, digits - 1, 2):
        data += bytes(int(text[low + 1] + text[low], 16) for text in written)
    if digits % 2:
        last = [int(text[-1], 16) for text in written] + [0] * (len(values) % 2)
        data += bytes(low + 16 * high for low, high in zip(last[::2], last[1::2], strict=True))
    return usage_pb2.PlaneColumn(half_bytes=digits, base=base, planes=bytes(data))


def _without_account(dimensions: usage_pb2.Dimensions) -> bytes:
    service = usage_pb2.Dimensions()
    service.CopyFrom(dimensions)
    service.account = ""
    return service.SerializeToString()


def reason_of(error: Any) -> tuple[grpc.StatusCode, str, bool]:  # noqa: ANN401
    """Return an error's code, its ErrorInfo's reason, and whether it says when to retry."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    has_retry = any(detail.Unpack(retry) for detail in status.details)
    assert info.domain == "tokenworks"
    assert info.reason == trailing["tokenworks-error-reason"]
    return error.code(), info.reason, has_retry
