"""A process that reports by unary calls, and repeats each until it is answered: once by event id.

    python -m tests.faults.caller ORDERS

Takes the orders and commands of `tests.faults.reporter`.
"""

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import grpc

from tests.faults.events import Source, Truth
from tests.faults.reporter import Orders, tell
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import meter_service_pb2_grpc, usage_pb2

_CALL_SECONDS_MAX: Final = 4.0
_CALLS_A_SECOND: Final = 10
_RETRY_SECONDS_MAX: Final = 1.0
_KEPT_OUTCOMES: Final = 10
_CLASSES: Final = {
    "input": usage_pb2.TOKEN_CLASS_INPUT,
    "cache_read": usage_pb2.TOKEN_CLASS_CACHE_READ,
    "output": usage_pb2.TOKEN_CLASS_OUTPUT,
}


class Caller:
    """Calls at a steady rate; a call that failed is made again with the same events."""

    def __init__(self, orders: Orders) -> None:
        """`orders.client` may have `naive`: a repetition gets new ids, which is the mistake."""
        self._orders = orders
        self._naive = bool(orders.client.get("naive"))
        self._truth = Truth(Path(orders.truth))
        self._source = Source(Path(orders.truth).stem)
        self._channel = grpc.insecure_channel(
            orders.target,
            options=[("grpc.initial_reconnect_backoff_ms", 100),
                     ("grpc.max_reconnect_backoff_ms", 500)],
        )  # fmt: skip
        self._stub = meter_service_pb2_grpc.MeterServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {orders.api_key}"),)
        self._counts = {"recorded": 0, "acknowledged": 0, "set_aside": 0, "resent": 0}
        self._deadline: float | None = None
        self._held = False

    def run(self) -> None:
        """Call until told to drain."""
        threading.Thread(target=self._listen, daemon=True).start()
        tell({"started": True})
        with Path(self._orders.latencies).open("w", 1, encoding="ascii") as latencies:
            due = time.monotonic()
            while self._deadline is None:
                if not self._held:
                    begin = time.monotonic()
                    self._call()
                    taken_ms = (time.monotonic() - begin) * 1000
                    latencies.write(f"{begin:.3f} {taken_ms:.1f}\n")
                due = max(due + 1 / _CALLS_A_SECOND, time.monotonic() - 1)
                time.sleep(max(due - time.monotonic(), 0))
        done = self._counts["recorded"] == self._counts["acknowledged"]
        tell({**self._counts, "flushed": done, "closed": done})

    def _call(self) -> None:
        end_ms = time.time_ns() // 1_000_000
        size = max(self._orders.rate // _CALLS_A_SECOND, 1)
        events = [self._source.draw(end_ms=end_ms) for _ in range(size)]
        self._truth.append(events)
        self._counts["recorded"] += size
        request = pb.RecordUsageRequest(events=[to_event(event) for event in events])
        while self._deadline is None or time.monotonic() < self._deadline:
            try:
                answer = self._stub.RecordUsage(
                    request, metadata=self._metadata, timeout=_CALL_SECONDS_MAX
                )
            except grpc.RpcError:
                self._counts["resent"] += 1
                if self._naive:
                    for event in request.events:
                        event.event_id = f"{random.getrandbits(120):032x}"
                time.sleep(random.uniform(0.1, _RETRY_SECONDS_MAX))
                continue
            kept = sum(1 for outcome in answer.outcomes if outcome >= _KEPT_OUTCOMES)
            self._counts["set_aside"] += kept
            self._counts["acknowledged"] += size
            return

    def _listen(self) -> None:
        for line in sys.stdin:
            command, *words = line.split()
            if command == "drain":
                self._deadline = time.monotonic() + float(words[0])
            self._held = command == "hold"
        self._deadline = self._deadline or time.monotonic()


def to_event(event: dict[str, Any]) -> usage_pb2.UsageEvent:
    """Return the message of an event of the truth; its id is the request's."""
    message = usage_pb2.UsageEvent(
        event_id=event["request_id"],
        request_id=event["request_id"],
        dimensions=usage_pb2.Dimensions(
            account=event["account"], model=event["model"], tier=event["tier"]
        ),
        tokens=[
            usage_pb2.TokenCount(token_class=_CLASSES[name], count=count)
            for name, count in event["classes"].items()
        ],
    )
    message.end_time.FromMilliseconds(event["end_time_ms"])
    return message


if __name__ == "__main__":
    Caller(Orders(**json.loads(sys.argv[1]))).run()
