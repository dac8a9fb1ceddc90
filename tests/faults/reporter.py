"""A reporting process: writes each event down, then records it with the client, at a steady rate.

    python -m tests.faults.reporter ORDERS

ORDERS is JSON. Commands come as lines on stdin, answers go as JSON lines to stdout: `hold`,
`resume`, `drain SECONDS` (flush, close, tell the statistics, end).
"""

import json
import logging
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from tests.faults.events import Source, Truth
from tokenworks.client import Meter, State

_SYNC_SECONDS: Final = 0.5
_CHUNKS_A_SECOND: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a reporting process is told."""

    target: str
    api_key: str | None
    producer: str
    truth: str
    """File to write down what is about to be recorded."""
    latencies: str
    """File for `monotonic seconds, milliseconds until acknowledged` of each chunk."""
    rate: int = 2_000
    """Events a second."""
    client: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the client."""


class Reporter:
    """Records until it is told to drain."""

    def __init__(self, orders: Orders) -> None:
        """Make the client; nothing is recorded yet."""
        self._orders = orders
        self._truth = Truth(Path(orders.truth))
        self._source = Source(Path(orders.truth).stem)
        self._latencies = Path(orders.latencies)
        self._latencies.touch()
        self._meter = Meter(
            orders.target,
            api_key=orders.api_key,
            producer=orders.producer,
            buffer_events_max=2_000_000,
            **orders.client,
        )
        self._promises_each = orders.client.get("fsync") == "event"
        self._chunks: deque[tuple[float, int]] = deque()
        self._commands: SimpleQueue[str] = SimpleQueue()

    def run(self) -> None:
        """Record at the rate; commands come between chunks."""
        threading.Thread(target=self._listen, daemon=True).start()
        if "spool" in self._orders.client and not self._promises_each:
            threading.Thread(target=self._sync, daemon=True).start()
        tell({"started": True})
        is_held = False
        due = time.monotonic()
        while True:
            command = self._command()
            if command.startswith("drain"):
                self._drain(float(command.split()[1]))
                return
            is_held = command == "hold" or (is_held and command != "resume")
            if not is_held:
                self._record_chunk()
            self._measure()
            due = max(due + 1 / _CHUNKS_A_SECOND, time.monotonic() - 1)
            time.sleep(max(due - time.monotonic(), 0))

    def _record_chunk(self) -> None:
        size = self._orders.rate // _CHUNKS_A_SECOND
        end_ms = time.time_ns() // 1_000_000
        events = [self._source.draw(end_ms=end_ms) for _ in range(size)]
        self._truth.append(events)
        refused = [event["request_id"] for event in events if not self._record(event)]
        if refused:
            self._truth.refuse(refused)
        self._chunks.append((time.monotonic(), self._truth.count))
        if self._promises_each:
            self._truth.promise(self._truth.count)

    def _record(self, event: dict[str, Any]) -> bool:
        return self._meter.record(
            account=event["account"],
            model=event["model"],
            tier=event["tier"],
            end_time=event["end_time_ms"] / 1000,
            request_id=event["request_id"],
            **event["classes"],
        )

    def _measure(self) -> None:
        acknowledged = self._meter.statistics.acknowledged
        lines = []
        while self._chunks and self._chunks[0][1] <= acknowledged:
            begin, _ = self._chunks.popleft()
            taken_ms = (time.monotonic() - begin) * 1000
            lines.append(f"{begin:.3f} {taken_ms:.1f}\n")
        if lines:
            with self._latencies.open("a", encoding="ascii") as file:
                file.writelines(lines)

    def _sync(self) -> None:
        while True:
            count = self._truth.count - self._orders.rate // _CHUNKS_A_SECOND
            if count > 0 and self._meter.sync(_SYNC_SECONDS * 20):
                self._truth.promise(count)
            time.sleep(_SYNC_SECONDS)

    def _drain(self, seconds: float) -> None:
        flushed = self._meter.flush(seconds)
        statistics = self._meter.statistics
        if statistics.state is State.TAKEN_OVER:
            flushed = False
        closed = self._meter.close(1.0)
        names = ("recorded", "acknowledged", "held", "set_aside", "dropped", "invalid", "resent")
        told = {name: getattr(statistics, name) for name in (*names, "gaps")}
        tell({**told, "state": statistics.state.value, "flushed": flushed, "closed": closed})

    def _command(self) -> str:
        try:
            return self._commands.get_nowait()
        except Empty:
            return ""

    def _listen(self) -> None:
        for line in sys.stdin:
            self._commands.put(line.strip())
        # Whoever gave the orders is gone.
        self._commands.put("drain 1")


def tell(what: dict[str, Any]) -> None:
    """Print an answer."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the orders and follow them."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    Reporter(Orders(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
