"""The process that plays a site: thousands of producers, each with a batch a second, and power."""

import asyncio
import gc
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from time import process_time
from typing import Final

import grpc

from cli.simulate.site.batches import LEVELS, Prepared, place, prepare
from cli.simulate.site.line import Line, open_channel
from cli.simulate.site.orders import Orders, Progress
from cli.simulate.site.outbox import NumbersDiffer, Sealed
from cli.simulate.site.power import Counters, PowerReports, now_ms
from cli.simulate.site.producer import Producer, Refusal
from cli.simulate.site.size import MODELS, TIERS
from cli.simulate.site.truth import TruthFiles
from cli.simulate.trace import seeded
from tokenworks.client.clock import monotonic
from tokenworks.meter.v1.meter_service_pb2 import BatchAck
from tokenworks.meter.v1.outcome_pb2 import Outcome

# Streams of one connection: fewer than a server takes.
_LINE_STREAMS: Final = 100
_OBJECTS_BEFORE_COLLECTION: Final = 100_000
_REPORT_SECONDS: Final = 1.0
# All servers have their moment in the second; those of so many milliseconds go out together.
_MOMENT_MS: Final = 20
_SECOND_MS: Final = 1_000
_MOMENTS: Final = _SECOND_MS // _MOMENT_MS
# Each tier swells and ebbs in so many seconds, one after the other, and each server as it likes.
_SWELL_SECONDS: Final = 240
_SWELL_LEVELS: Final = 3.5
_SERVER_LEVELS: Final = 2.0


def play(orders: Orders, reports: "Connection[Progress, None]", stop: Event) -> None:
    """Play a site, then tell a final Progress; the body of a process of its own.

    `stop` ends it early: what was sealed is still sent and waited for.
    """
    asyncio.run(_Site(orders, reports=reports, stop=stop).run())


class _NoAnswer(Exception):
    """The meter acknowledges nothing any more; the message says for how long, and why."""


class _Site:
    """The process's state; servers are dealt to the tiers in turn."""

    def __init__(
        self, orders: Orders, *, reports: "Connection[Progress, None]", stop: Event
    ) -> None:
        self._orders = orders
        self._reports = reports
        self._stop = stop
        self._prepared = _prepare(orders)
        self._random = seeded(f"site {orders.seed}")
        tiers = [TIERS[server % len(TIERS)] for server in range(orders.size.server_count)]
        self._names = [
            orders.producer(tier.pool, server // len(TIERS)) for server, tier in enumerate(tiers)
        ]
        self._producers = [
            Producer(
                name,
                prepared=self._prepared,
                api_key=orders.keys.get(tier.name),
                on_recorded=self._recorded,
                on_set_aside=self._set_aside,
                on_trouble=self._troubled,
            )
            for name, tier in zip(self._names, tiers, strict=True)
        ]
        self._truth = TruthFiles(
            orders.truth, prepared=self._prepared, pools=[tier.pool for tier in tiers]
        )
        self._power: PowerReports | None = None
        self._begin_ms = 0
        self._processor_begin = process_time()
        self._sealed_batches = self._sealed_events = self._acknowledged_events = 0
        self._set_aside_events = self._broken_streams = 0
        self._set_aside_outcomes: set[str] = set()
        self._trouble = ""
        self._ack_ms: Counter[int] = Counter()

    async def run(self) -> None:
        """Open all streams, serve for the time, and wait until all is durable."""
        connect = partial(open_channel, self._orders.meter)
        lines = [Line(connect) for _ in range(0, len(self._producers), _LINE_STREAMS)]
        tasks = [
            asyncio.create_task(producer.run(lines[number // _LINE_STREAMS]))
            for number, producer in enumerate(self._producers)
        ]
        power_channel = connect()
        tasks += [
            asyncio.create_task(self._serve(power_channel)),
            asyncio.create_task(self._watch()),
        ]
        reporting = asyncio.create_task(self._report_always())
        fault = ""
        try:
            await asyncio.gather(*tasks)
        except (Refusal, NumbersDiffer, _NoAnswer) as error:
            fault = str(error)
        except grpc.aio.AioRpcError as error:
            fault = f"power is refused: {error.details()} ({error.code().name})"
        for task in (reporting, *tasks):
            task.cancel()
        await asyncio.gather(reporting, *tasks, return_exceptions=True)
        for line in lines:
            await line.close()
        await power_channel.close()
        self._truth.close()
        self._report(is_final=True, fault=fault)

    async def _serve(self, channel: grpc.aio.Channel) -> None:
        """Have each server seal its batches, and counters read beside it."""
        for producer in self._producers:
            await producer.is_open.wait()
        # What is there now stays: to look through it again and again took a quarter of the time.
        gc.freeze()
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        counters = Counters(self._orders.size, names=self._names)
        api_key = self._orders.keys.get(TIERS[0].name)
        self._power = power = PowerReports(channel, api_key=api_key, counters=counters)
        await power.report(self._truth, is_patient=True)
        reading = asyncio.create_task(power.report_always(self._truth))
        try:
            await self._seal_all(counters)
        finally:
            reading.cancel()
            # A refusal of power, if there was one, ends the site.
            await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()
        await power.report(self._truth, is_patient=True)
        for producer in self._producers:
            producer.finish()

    async def _seal_all(self, counters: Counters) -> None:
        """Seal a batch a server and second, each server at its moment in the second."""
        moments: list[list[int]] = [[] for _ in range(_MOMENTS)]
        for server in range(len(self._producers)):
            moments[server * _MOMENTS // len(self._producers)].append(server)
        self._processor_begin = process_time()
        self._begin_ms, begin = now_ms(), monotonic()
        for second in range(self._orders.seconds):
            if self._stop.is_set():
                return
            for moment, servers in enumerate(moments):
                due_ms = second * _SECOND_MS + moment * _MOMENT_MS
                await asyncio.sleep(max(0.0, begin + due_ms / _SECOND_MS - monotonic()))
                if servers:
                    self._seal(servers, second=second, due_ms=due_ms, counters=counters)

    def _seal(
        self, servers: Sequence[int], *, second: int, due_ms: int, counters: Counters
    ) -> None:
        """Seal what some servers served in the second before, once it is in the truth files."""
        time_ms, now = self._begin_ms + due_ms, monotonic()
        chosen = [(server, self._choose(server, second=second)) for server in servers]
        self._truth.send(time_ms, [number for pair in chosen for number in pair])
        for server, batch in chosen:
            prepared = self._prepared[batch]
            sealed = Sealed(batch=batch, base_ms=time_ms - _SECOND_MS, sealed_seconds=now)
            counters.serve(server, energy_mj=prepared.energy_mj)
            self._sealed_batches += 1
            self._sealed_events += prepared.event_count
            self._producers[server].seal(sealed)

    def _choose(self, server: int, *, second: int) -> int:
        """Return the batch that a server has served in a second."""
        number, tier = divmod(server, len(TIERS))
        phase = second / _SWELL_SECONDS + tier / len(TIERS)
        middle = (LEVELS - 1) / 2 + _SWELL_LEVELS * math.sin(math.tau * phase)
        level = round(middle + self._random.uniform(-_SERVER_LEVELS, _SERVER_LEVELS))
        return place(tier, number % len(MODELS), min(max(level, 0), LEVELS - 1))

    async def _watch(self) -> None:
        """Wait until all is durable; raises _NoAnswer when for long nothing was acknowledged."""
        deadline, acknowledged = monotonic() + self._orders.deadline_seconds, -1
        while not self._is_done():
            await asyncio.sleep(_REPORT_SECONDS)
            # Opening streams, too, is an answer.
            heard = self._acknowledged_events + self._open_count()
            if heard != acknowledged:
                deadline, acknowledged = monotonic() + self._orders.deadline_seconds, heard
            if monotonic() > deadline:
                raise _NoAnswer(
                    f"the meter has acknowledged nothing for {self._orders.deadline_seconds:g} s"
                    + (f": {self._trouble}" if self._trouble else "")
                )

    def _is_done(self) -> bool:
        return all(producer.is_done for producer in self._producers)

    def _open_count(self) -> int:
        return sum(producer.is_open.is_set() for producer in self._producers)

    def _recorded(self, batches: Sequence[Sealed]) -> None:
        now = monotonic()
        for sealed in batches:
            self._acknowledged_events += self._prepared[sealed.batch].event_count
            self._ack_ms[int((now - sealed.sealed_seconds) * _SECOND_MS)] += 1

    def _set_aside(self, ack: BatchAck) -> None:
        self._set_aside_events += ack.set_aside_count
        self._set_aside_outcomes.update(
            Outcome.Name(each.outcome).removeprefix("OUTCOME_") for each in ack.set_aside
        )

    def _troubled(self, why: str) -> None:
        self._broken_streams += 1
        self._trouble = why

    async def _report_always(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            self._report()

    def _report(self, *, is_final: bool = False, fault: str = "") -> None:
        outboxes = [producer.outbox for producer in self._producers]
        self._reports.send(
            Progress(
                is_final=is_final,
                begin_ms=self._begin_ms,
                read_ms=0 if self._power is None else self._power.read_ms,
                open_count=self._open_count(),
                sealed_batches=self._sealed_batches,
                sealed_events=self._sealed_events,
                acknowledged_events=self._acknowledged_events,
                held_batches=sum(outbox.unrecorded_count for outbox in outboxes),
                resent_batches=sum(outbox.resent_count for outbox in outboxes),
                set_aside_events=self._set_aside_events,
                set_aside_outcomes=frozenset(self._set_aside_outcomes),
                broken_streams=self._broken_streams,
                trouble=self._trouble,
                fault=fault,
                processor_seconds=process_time() - self._processor_begin,
                ack_ms=self._ack_ms,
            )
        )
        self._ack_ms = Counter()


def _prepare(orders: Orders) -> list[Prepared]:
    return prepare(
        orders.size,
        arrivals=orders.arrivals,
        accounts=orders.accounts,
        seed=orders.seed,
    )
