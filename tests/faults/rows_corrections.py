"""Corrections while the meter is killed and answers are lost."""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from tests.faults.fleet import Sender
from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import meter_service_pb2_grpc

_CORRECTIONS: Final = 60
# Calls of 20 events each that have to be answered before.
_CALLS: Final = 4
_PAUSE_SECONDS: Final = 0.05
_CALL_SECONDS_MAX: Final = 3.0
_ALL_SECONDS_MAX: Final = 120.0
_AGAIN: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}


@dataclass(kw_only=True)
class Corrector:
    """Voids events one after the other, each call repeated until it is answered."""

    site: Site
    event_ids: list[str]
    done: int = 0
    repeated: int = 0
    refused: str = ""

    def run(self) -> None:
        """Void them all; ends early where one is refused."""
        metadata = (("authorization", f"Bearer {self.site.api_key}"),)
        with grpc.insecure_channel(self.site.proxy.address) as channel:
            stub = meter_service_pb2_grpc.MeterServiceStub(channel)
            while self.done < len(self.event_ids) and not self.refused:
                request = pb.CorrectUsageRequest(
                    event_id=self.event_ids[self.done], reason="a fault is being tried"
                )
                try:
                    stub.CorrectUsage(request, metadata=metadata, timeout=_CALL_SECONDS_MAX)
                except grpc.RpcError as error:
                    if _code(error) not in _AGAIN:
                        self.refused = str(error)
                    self.repeated += 1
                else:
                    self.done += 1
                time.sleep(_PAUSE_SECONDS)


@row(
    "corrections-through-kills",
    fault="the meter is killed and answers are lost while events are voided",
    how="60 events are voided by id, each call repeated until it is answered",
    expected="each is taken back once, however often it was asked for",
)
def corrections_through_kills(site: Site) -> Seen:
    """Void events through kills."""
    site.report("west")
    sender = site.call("unary")
    # What is voided has to be there: the first calls are answered long before the load ends.
    wait_until(lambda: _answered(sender) >= _CALLS, seconds_max=30, what="calls are answered")
    site.load()
    corrector = Corrector(site=site, event_ids=_first_ids(sender))
    working = threading.Thread(target=corrector.run, daemon=True)
    working.start()
    for _ in range(3):
        site.load(1)
        site.proxy.mischief.swallows.add("down")
        site.load(1)
        site.meter.kill()
        site.meter.start()
        site.proxy.heal()
    working.join(_ALL_SECONDS_MAX)
    voided = site.folder / "truth" / f"{sender.name}.voided"
    voided.write_text("".join(f"{name}\n" for name in corrector.event_ids), "ascii")
    wrong = corrector.refused
    if corrector.done < len(corrector.event_ids):
        wrong = wrong or f"only {corrector.done} of {len(corrector.event_ids)} were voided"
    return Seen(
        count=corrector.repeated,
        what=f"calls repeated for {corrector.done} events voided",
        wrong=wrong,
    )


def _code(error: object) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.Call) else None


def _answered(sender: Sender) -> int:
    path = Path(sender.orders.latencies)
    return len(path.read_text("ascii").splitlines()) if path.exists() else 0


def _first_ids(sender: Sender) -> list[str]:
    lines = Path(sender.orders.truth).read_text("utf-8").splitlines()
    return [json.loads(line)["request_id"] for line in lines[:_CORRECTIONS]]
