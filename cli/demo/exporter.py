"""A simulated dcgm-exporter: a process that shows the energy counters of boards that are not there.

What they draw follows from the requests that their pool may expect, and from the installation's
driven time, for which each scrape asks. One pool's page is as dcgm-exporter wrote it up to 4.8, in
millijoules, with one board in three parts (MIG); the other's as from 4.9 on, in joules.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Final

import grpc

from cli.demo.children import Link
from cli.demo.teams import LATENCY, THROUGHPUT
from cli.demo.traffic import HOUR_MS, hourly_output
from cli.demo.world import BEGIN, BOARDS, END, Boards, to_ms
from tokenworks.meter.v1.clock_service_pb2 import GetClockRequest
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub

HOST: Final = "127.0.0.1"
# Watts grow slower than the work: batches get larger. At full work this is where they end.
_SATURATION: Final = 2.2
# What a counter shows that has run for a year.
_BEGIN_MJ: Final = 8_760_000_000_000
_MIG_PARTS: Final = 3
_MJ_OF_JOULE: Final = 1_000
_CALL_SECONDS_MAX: Final = 3.0


class Counters:
    """The energy counters of a pool's boards over the month."""

    def __init__(self, boards: Boards, *, load: Mapping[int, float]) -> None:
        """Take the boards, and the pool's work in each hour by its begin (ms), in any unit."""
        self._begin_ms = to_ms(BEGIN)
        self._boards = boards
        most = max(load.values())
        hours = range(self._begin_ms, to_ms(END), HOUR_MS)
        self._watts = [_watts(boards, load.get(hour, 0.0) / most) for hour in hours]
        self._sums_mj = [0]
        for watts in self._watts:
            # A watt is a millijoule a millisecond.
            self._sums_mj.append(self._sums_mj[-1] + watts * HOUR_MS)

    def watts(self, board: int, *, at_ms: int) -> int:
        """Return what a board draws."""
        return self._scaled(board, self._watts[self._hour(at_ms)])

    def energy_mj(self, board: int, *, at_ms: int) -> int:
        """Return what a board's counter shows; before and behind the month it stands still."""
        end_ms = self._begin_ms + len(self._watts) * HOUR_MS
        passed_ms = min(max(at_ms, self._begin_ms), end_ms) - self._begin_ms
        hour, rest_ms = divmod(passed_ms, HOUR_MS)
        energy_mj = self._sums_mj[hour]
        if rest_ms:
            energy_mj += self._watts[hour] * rest_ms
        return _BEGIN_MJ * (board + 1) + self._scaled(board, energy_mj)

    def _hour(self, at_ms: int) -> int:
        return min(max(at_ms - self._begin_ms, 0) // HOUR_MS, len(self._watts) - 1)

    def _scaled(self, board: int, value: int) -> int:
        """No board is like another: they lie up to 3 % apart."""
        return value * (100 + board % 4 - 1) // 100


def page(pool: str, counters: Counters, *, boards: Boards, at_ms: int) -> str:
    """Return a pool's page in the Prometheus text form."""
    lines = _old_page if pool == THROUGHPUT else _new_page
    return "\n".join(lines(counters, boards.count, at_ms)) + "\n"


def run_exporter(event_count: int, seed: int, link: Link) -> None:
    """Serve the pages of all pools; the body of a process of its own, which ends with its link.

    Tells its port first, and then hears where the installation's clock is: target and API key.
    """
    counters = {
        pool: Counters(boards, load=hourly_output(pool, event_count=event_count, seed=seed))
        for pool, boards in BOARDS.items()
    }
    clock = _Clock()
    server = ThreadingHTTPServer((HOST, 0), _handler(counters, now_ms=clock.now_ms))
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="exporter", daemon=True).start()
    link.send(server.server_address[1])
    try:
        while True:
            clock.follow(*link.recv())
    finally:
        server.shutdown()


def _watts(boards: Boards, load: float) -> int:
    share = (1 - math.exp(-_SATURATION * load)) / (1 - math.exp(-_SATURATION))
    return boards.idle_watts + round((boards.peak_watts - boards.idle_watts) * share)


def _old_page(counters: Counters, board_count: int, at_ms: int) -> Iterator[str]:
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    yield f"# HELP {name} Total energy consumption since boot (in mJ)."
    yield f"# TYPE {name} counter"
    for board in range(board_count):
        # The parts of a divided board all show the whole board's counter.
        parts = range(_MIG_PARTS) if board == 0 else (None,)
        for part in parts:
            mig = "" if part is None else f',GPU_I_PROFILE="2g.20gb",GPU_I_ID="{part}"'
            yield (
                f'{name}{{gpu="{board}",UUID="{_uuid(THROUGHPUT, board)}",device="nvidia{board}",'
                f'modelName="simulated board",Hostname="rack-1"{mig}}}'
                f" {counters.energy_mj(board, at_ms=at_ms)}"
            )
    yield "# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W)."
    yield "# TYPE DCGM_FI_DEV_POWER_USAGE gauge"
    for board in range(board_count):
        yield (
            f'DCGM_FI_DEV_POWER_USAGE{{gpu="{board}",UUID="{_uuid(THROUGHPUT, board)}"}}'
            f" {counters.watts(board, at_ms=at_ms)}"
        )


def _new_page(counters: Counters, board_count: int, at_ms: int) -> Iterator[str]:
    name = "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL"
    yield f"# HELP {name} Total energy consumption (in J)."
    yield f"# TYPE {name} counter"
    for board in range(board_count):
        yield (
            f'{name}{{gpu="{board}",UUID="{_uuid(LATENCY, board)}",device="nvidia{board}",'
            f'modelName="simulated board",hostname="rack-2"}}'
            f" {counters.energy_mj(board, at_ms=at_ms) // _MJ_OF_JOULE}"
        )


def _uuid(pool: str, board: int) -> str:
    rack = 1 if pool == THROUGHPUT else 2
    return f"GPU-00000000-0000-4000-8000-0000000{rack:02d}{board:03d}"


class _Clock:
    """The installation's time, asked for at each scrape; unknown until it is told where."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._target = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: grpc.Channel | None = None

    def follow(self, target: str, api_key: str) -> None:
        with self._lock:
            self._target = target
            self._metadata = (("authorization", f"Bearer {api_key}"),)

    def now_ms(self) -> int | None:
        """Return its time; None when it does not answer."""
        with self._lock:
            if not self._target:
                return None
            if self._channel is None:
                self._channel = grpc.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
            try:
                answer = ClockServiceStub(self._channel).GetClock(
                    GetClockRequest(), metadata=self._metadata, timeout=_CALL_SECONDS_MAX
                )
            except grpc.RpcError:
                # A fresh one tries at once; this one would wait longer each time.
                self._channel.close()
                self._channel = None
                return None
            return answer.now.ToMilliseconds()


_CHANNEL_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def _handler(
    counters: Mapping[str, Counters], *, now_ms: Callable[[], int | None]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers /POOL/metrics."""

        def do_GET(self) -> None:
            pool = self.path.removeprefix("/").removesuffix("/metrics")
            if pool not in counters:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            at_ms = now_ms() or now_ms()
            if at_ms is None:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
                return
            text = page(pool, counters[pool], boards=BOARDS[pool], at_ms=at_ms).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal is the demo's."""

    return Handler
