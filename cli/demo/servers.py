"""Four simulated inference servers: processes that report their requests through the client.

Each writes to its truth file what it is about to report, and only then reports it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Final, TextIO

from cli.demo.children import LINK_ENDED, Link, child
from cli.demo.traffic import Request, Traffic
from cli.demo.world import SERVERS
from cli.process import CommandError
from cli.simulate.server import Progress
from cli.simulate.wiretap import Wiretap
from tokenworks.client import Meter, Mode
from tokenworks.client.clock import monotonic

# So many lines of truth are written at once, ahead of their reports.
_CHUNK_REQUESTS: Final = 256
_FLUSH_SECONDS: Final = 0.02
_REPORT_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 1.0
# An outage of the meter is waited out.
_ACKNOWLEDGED_SECONDS_MAX: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every server is told; `truth` and `logs` are folders."""

    target: str
    api_key: str
    event_count: int
    seed: int
    resend_percent: float
    truth: Path
    logs: Path

    def producer(self, server_index: int) -> str:
        """Return a server's name."""
        return f"server-{server_index + 1}"


class Servers:
    """The running servers, as the demo sees them."""

    def __init__(self, links: Sequence[Link], *, on_progress: Callable[[int], None]) -> None:
        """Take their links; `on_progress` hears how many requests are acknowledged in all."""
        self._links = links
        self._on_progress = on_progress
        self._last: dict[int, Progress] = {}
        self._waiting: set[int] = set()

    @property
    def progress(self) -> list[Progress]:
        """What each of them last said."""
        return [self._last[index] for index in sorted(self._last)]

    def report(self, *, until_ms: int) -> None:
        """Have all of them report the requests that ended before a time, and not wait for it."""
        assert not self._waiting
        for index, link in enumerate(self._links):
            self._waiting.add(index)
            with suppress(*LINK_ENDED):
                # One that has died is told of when it is waited for.
                link.send(until_ms)

    @property
    def are_reporting(self) -> bool:
        """Whether one of them is not done with what it was last asked for."""
        return bool(self._waiting)

    def wait_for_batch(self) -> None:
        """Wait until one has sent a batch of what it was last asked for, or all are done."""
        before = sum(it.batches for it in self.progress)
        while self._waiting and sum(it.batches for it in self.progress) == before:
            self._hear()

    def wait_until_stuck(self) -> int:
        """Wait until one of them has all batches under way and hears nothing of them.

        Returns how many requests all of them have sent without an acknowledgement.
        """
        before: dict[int, Progress] = {}
        while self._waiting:
            for progress in self._hear():
                is_stuck = progress == before.get(progress.server_index) and not progress.is_final
                if is_stuck and progress.acknowledged < progress.sent:
                    return sum(it.sent - it.acknowledged for it in self.progress)
                before[progress.server_index] = progress
        return 0

    def wait(self) -> None:
        """Wait until all have reported, and all of that is acknowledged."""
        while self._waiting:
            self._hear()

    def _hear(self) -> list[Progress]:
        """Take in what they say next; raises CommandError when one died or gave up."""
        waiting = {self._links[index]: index for index in self._waiting}
        heard = []
        for ready in connection.wait(list(waiting)):
            assert isinstance(ready, connection.Connection)
            index = waiting[ready]
            try:
                progress = ready.recv()
            except LINK_ENDED as error:
                raise CommandError(f"server-{index + 1} has died; see its log") from error
            heard.append(progress)
            self._last[index] = progress
            if progress.is_final:
                self._waiting.remove(index)
                _demand_acknowledgement(progress)
        self._on_progress(sum(it.acknowledged for it in self._last.values()))
        return heard


@contextmanager
def running_servers(plan: Plan, *, on_progress: Callable[[int], None]) -> Iterator[Servers]:
    """Run the servers for the time of the block."""
    with ExitStack() as stack:
        links = [
            stack.enter_context(
                child(serve, plan, index, name=plan.producer(index), logs=plan.logs)
            )
            for index in range(len(SERVERS))
        ]
        try:
            yield Servers(links, on_progress=on_progress)
        finally:
            # All of them end at once, not one after the other.
            for link in links:
                link.close()


def serve(plan: Plan, server_index: int, link: Link) -> None:
    """Report what is asked for, a span after the other; the body of a process of its own."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    path = plan.truth / f"{plan.producer(server_index)}.jsonl"
    with path.open("x", encoding="utf-8") as truth:
        server = _Server(plan, server_index=server_index, link=link, truth=truth)
        try:
            while True:
                server.report(until_ms=link.recv())
        finally:
            server.close()


def _demand_acknowledgement(progress: Progress) -> None:
    missing = progress.sent - progress.acknowledged
    if missing or progress.set_aside or progress.dropped:
        raise CommandError(
            f"server-{progress.server_index + 1}: {missing:,} requests not acknowledged,"
            f" {progress.set_aside:,} set aside, {progress.dropped:,} dropped; see its log"
        )


class _Server:
    """The process's state."""

    def __init__(self, plan: Plan, *, server_index: int, link: Link, truth: TextIO) -> None:
        self._server_index = server_index
        self._link = link
        self._truth = truth
        self._traffic = Traffic(
            event_count=plan.event_count, seed=plan.seed, server_index=server_index
        )
        self._wiretap = Wiretap(
            resend_percent=plan.resend_percent, phase=server_index / len(SERVERS)
        )
        self._meter = Meter(
            plan.target,
            api_key=plan.api_key,
            producer=plan.producer(server_index),
            pool=SERVERS[server_index],
            flush_interval_seconds=_FLUSH_SECONDS,
            interceptors=(self._wiretap,),
        )
        self._sent = 0
        self._report_due = 0.0

    def report(self, *, until_ms: int) -> None:
        """Report the requests up to a time, wait for their acks, and say so."""
        requests = self._traffic.take(until_ms=until_ms)
        for start in range(0, len(requests), _CHUNK_REQUESTS):
            self._send(requests[start : start + _CHUNK_REQUESTS])
            self._tell_now_and_then()
        end = monotonic() + _ACKNOWLEDGED_SECONDS_MAX
        while not self._meter.flush(_REPORT_SECONDS) and monotonic() < end:
            self._tell_now_and_then()
        self._tell(is_final=True)

    def close(self) -> None:
        """Stop reporting; what is not acknowledged by now is not waited for."""
        self._meter.close(_CLOSE_SECONDS)

    def _send(self, requests: Sequence[Request]) -> None:
        ids = [f"{self._server_index + 1}-{self._sent + place}" for place in range(len(requests))]
        self._truth.write(
            "".join(
                f'{shape.truth}{end_ms},"request_id":"{request_id}"}}\n'
                for (end_ms, shape), request_id in zip(requests, ids, strict=True)
            )
        )
        self._truth.flush()
        record = self._meter.record
        for (end_ms, shape), request_id in zip(requests, ids, strict=True):
            team = shape.team
            record(
                account=team.account,
                model=team.model,
                tier=team.tier,
                mode=Mode.BATCH if team.is_batch else Mode.ONLINE,
                end_time=end_ms / 1_000,
                request_id=request_id,
                input=shape.input,
                cache_read=shape.cache_read,
                output=shape.output,
                reasoning=shape.reasoning,
            )
        self._sent += len(requests)

    def _tell_now_and_then(self) -> None:
        if monotonic() >= self._report_due:
            self._report_due = monotonic() + _REPORT_SECONDS
            self._tell(is_final=False)

    def _tell(self, *, is_final: bool) -> None:
        statistics = self._meter.statistics
        self._link.send(
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
