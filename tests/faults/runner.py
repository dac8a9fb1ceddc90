"""A reporting process with long requests: counts grow by updates, and most are never finished.

    python -m tests.faults.runner ORDERS

Takes the orders and commands of `tests.faults.reporter`. Its truth has a line for each thing that
was said of a request, cumulative, all with the request's id; see `tests.faults.progress`.
"""

import json
import logging
import random
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from tests.faults.events import Source, Truth
from tests.faults.reporter import Orders, tell
from tokenworks.client import Meter

_OPEN_REQUESTS: Final = 40
_FINISHED_SHARE: Final = 0.05
_SYNC_SECONDS: Final = 0.3


class Runner:
    """Keeps some requests open, and lets them grow until told to drain."""

    def __init__(self, orders: Orders) -> None:
        """Make the client."""
        self._orders = orders
        self._truth = Truth(Path(orders.truth))
        self._source = Source(Path(orders.truth).stem)
        self._random = random.Random(orders.truth)
        self._meter = Meter(
            orders.target, api_key=orders.api_key, producer=orders.producer, **orders.client
        )
        self._open: list[tuple[dict[str, Any], Any]] = []
        self._commands: SimpleQueue[str] = SimpleQueue()

    def run(self) -> None:
        """Grow them at the rate."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._sync, daemon=True).start()
        tell({"started": True})
        while True:
            try:
                command = self._commands.get(timeout=1 / self._orders.rate)
            except Empty:
                command = ""
            if command.startswith("drain"):
                self._drain(float(command.split()[1]))
                return
            if len(self._open) < _OPEN_REQUESTS:
                self._begin()
            else:
                self._grow(self._random.randrange(len(self._open)))

    def _begin(self) -> None:
        event = self._source.draw(end_ms=time.time_ns() // 1_000_000)
        event["classes"]["output"] = 0
        self._truth.append([event])
        report = self._meter.begin(
            account=event["account"],
            model=event["model"],
            tier=event["tier"],
            request_id=event["request_id"],
            **event["classes"],
        )
        self._open.append((event, report))

    def _grow(self, index: int) -> None:
        event, report = self._open[index]
        event["classes"]["output"] += self._random.randint(1, 50)
        self._truth.append([event])
        if self._random.random() < _FINISHED_SHARE:
            report.finish(output=event["classes"]["output"])
            del self._open[index]
        else:
            report.update(output=event["classes"]["output"])

    def _sync(self) -> None:
        while True:
            # The newest line may not have been said yet.
            count = self._truth.count - 1
            if count > 0 and self._meter.sync(_SYNC_SECONDS * 20):
                self._truth.promise(count)
            time.sleep(_SYNC_SECONDS)

    def _drain(self, seconds: float) -> None:
        for event, report in self._open:
            self._truth.append([event])
            report.finish(output=event["classes"]["output"])
        flushed = self._meter.flush(seconds)
        closed = self._meter.close(1.0)
        tell({"flushed": flushed, "closed": closed})

    def _listen(self) -> None:
        for line in sys.stdin:
            self._commands.put(line.strip())
        self._commands.put("drain 1")


def main() -> None:
    """Read the orders and follow them."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    Runner(Orders(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
