"""One simulated inference server: a process that reports its share of the requests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, TextIO

from cli.simulate.wiretap import Wiretap
from cli.simulate.workload import Request, Workload, share_of
from tokenworks.client import Meter, Mode
from tokenworks.client.clock import monotonic, time_ns

# Events that may wait in the SDK: half of its buffer, so that none is ever dropped.
BUFFERED_EVENTS_MAX: Final = 250_000
REPORT_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterAddress:
    """Where a server reports to; `target` is host:port."""

    target: str
    api_key: str | None
    ca_certificate: Path | None
    client_certificate: Path | None
    client_key: Path | None
    insecure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What every server of a fleet is told.

    `end_ms` is when the last request ends, by the meter's clock; `report_end_ms` is when it is
    reported, by this machine's: both are one unless the meter is a sandbox.
    `speed` is how many seconds of the trace pass in one; 0 means as fast as possible, else ≥ 1.
    `deadline_seconds` bounds each wait for the meter. `truth` is the folder of the truth files.
    """

    workload: Workload
    meter: MeterAddress
    server_count: int
    end_ms: int
    report_end_ms: int
    speed: float
    resend_percent: float
    deadline_seconds: float
    truth: Path

    def producer(self, server_index: int) -> str:
        """Return a server's name; those of two fleets with one seed fence each other."""
        return f"simulate-{self.workload.seed}-{server_index + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a server is, in events but for the last four.

    A batch counts once among `batches`, again when it is resent on purpose, and again when the SDK
    repeats it on a new stream because no ack had come on the old one.
    """

    server_index: int
    is_final: bool
    sent: int
    acknowledged: int
    set_aside: int
    dropped: int
    batches: int
    resent_batches: int
    repeated_batches: int
    streams: int


def serve(
    replay: Replay, server_index: int, reports: "Connection[Progress, None]", stop: Event
) -> None:
    """Report one server's share, then a final Progress; the body of a process of its own.

    `stop` ends it early: what was handed to the SDK is still waited for.
    """
    path = replay.truth / f"{replay.producer(server_index)}.jsonl"
    with path.open("x", encoding="utf-8", buffering=1) as truth:
        _Server(replay, server_index=server_index, reports=reports, stop=stop, truth=truth).run()


class _Server:
    """The process's state."""

    def __init__(
        self,
        replay: Replay,
        *,
        server_index: int,
        reports: "Connection[Progress, None]",
        stop: Event,
        truth: TextIO,
    ) -> None:
        self._replay = replay
        self._server_index = server_index
        self._reports = reports
        self._stop = stop
        self._truth = truth
        self._sent = 0
        self._report_due = 0.0
        self._wiretap = Wiretap(
            resend_percent=replay.resend_percent, phase=server_index / replay.server_count
        )
        self._meter = Meter(
            replay.meter.target,
            api_key=replay.meter.api_key,
            producer=replay.producer(server_index),
            ca_certificate=replay.meter.ca_certificate,
            client_certificate=replay.meter.client_certificate,
            client_key=replay.meter.client_key,
            insecure=replay.meter.insecure,
            interceptors=(self._wiretap,),
        )

    def run(self) -> None:
        for request in self._share():
            if not self._wait_until_due(request) or not self._wait_for_room():
                break
            self._send(request)
            self._report(is_final=False)
        self._wait_for_acks()
        self._meter.close(self._replay.deadline_seconds)
        self._report(is_final=True)

    def _share(self) -> Iterator[Request]:
        return share_of(
            self._replay.workload.requests(),
            server_index=self._server_index,
            server_count=self._replay.server_count,
        )

    def _wait_until_due(self, request: Request) -> bool:
        """Wait for the request's end at the fleet's speed; False when told to stop."""
        if self._replay.speed == 0:
            return not self._stop.is_set()
        due_ms = self._replay.report_end_ms + request.offset_ms / self._replay.speed
        while (wait_ms := due_ms - time_ns() / 1_000_000) > 0:
            if self._stop.wait(min(wait_ms / 1_000, REPORT_SECONDS)):
                return False
            self._report(is_final=False)
        return not self._stop.is_set()

    def _wait_for_room(self) -> bool:
        """Wait while the SDK holds as much as it should; False when that takes too long."""
        end = monotonic() + self._replay.deadline_seconds
        while self._unacknowledged() >= BUFFERED_EVENTS_MAX:
            if monotonic() > end or self._stop.wait(_POLL_SECONDS):
                return False
            self._report(is_final=False)
        return True

    def _send(self, request: Request) -> None:
        """Write the truth, then report it: what was reported is in the file, come what may."""
        end_ms = self._replay.end_ms + request.offset_ms
        self._truth.write(truth_line(request, end_ms=end_ms))
        self._sent += 1
        self._meter.record(
            account=request.account,
            model=request.model,
            tier=request.tier,
            pool=request.pool,
            mode=Mode.BATCH if request.is_batch else Mode.ONLINE,
            input=request.input,
            cache_read=request.cache_read,
            output=request.output,
            reasoning=request.reasoning,
            end_time=end_ms / 1_000,
            duration_ms=request.duration_ms,
            request_id=request.request_id,
        )

    def _wait_for_acks(self) -> None:
        """Wait until all is acknowledged, at most for the deadline, and tell how far it is."""
        end = monotonic() + self._replay.deadline_seconds
        while self._unacknowledged() and monotonic() < end:
            self._meter.flush(REPORT_SECONDS)
            self._report(is_final=False)

    def _unacknowledged(self) -> int:
        statistics = self._meter.statistics
        lost = statistics.dropped + statistics.invalid
        return self._sent - statistics.acknowledged - lost

    def _report(self, *, is_final: bool) -> None:
        if not is_final and monotonic() < self._report_due:
            return
        self._report_due = monotonic() + REPORT_SECONDS
        statistics = self._meter.statistics
        self._reports.send(
            Progress(
                server_index=self._server_index,
                is_final=is_final,
                sent=self._sent,
                acknowledged=statistics.acknowledged,
                set_aside=statistics.set_aside,
                dropped=statistics.dropped + statistics.invalid,
                batches=self._wiretap.batch_count,
                resent_batches=self._wiretap.resent_count,
                repeated_batches=self._wiretap.repeated_count,
                streams=self._wiretap.stream_count,
            )
        )


def truth_line(request: Request, *, end_ms: int) -> str:
    """Return what the meter has to hold of a request, as a line of JSON without classes of 0."""
    counts = {
        name: getattr(request, name) for name in ("input", "cache_read", "output", "reasoning")
    }
    return (
        json.dumps(
            {
                "account": request.account,
                "tier": request.tier,
                "model": request.model,
                "mode": "batch" if request.is_batch else "online",
                "classes": {name: count for name, count in counts.items() if count},
                "end_time_ms": end_ms,
                "request_id": request.request_id,
            }
        )
        + "\n"
    )
