"""`tokenworks simulate --site`: opens accounts, has the site play, watches, and closes the sums."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import connection, get_context
from pathlib import Path
from time import sleep
from typing import Final

import click
import grpc
from rich.console import Console
from rich.live import Live

from cli.accounts import print_table
from cli.connection import Client
from cli.drawing import PictureImpossible, demand_matplotlib
from cli.process import CommandError, Exit, report_progress
from cli.simulate.fleet import interrupts_ignored
from cli.simulate.server import MeterAddress
from cli.simulate.site.closing import Result, check
from cli.simulate.site.history import History
from cli.simulate.site.load import play
from cli.simulate.site.orders import Orders, Progress
from cli.simulate.site.picture import draw
from cli.simulate.site.power import now_ms
from cli.simulate.site.screen import closing_lines, render, summary_rows, to_json, write_line
from cli.simulate.site.size import Size
from cli.simulate.site.truth import read_truth
from cli.simulate.site.watching import Counted, Energy, ask_counted, ask_energy
from cli.simulate.site.world import (
    World,
    describe_site,
    find_begin,
    keys_of_servers,
    open_world,
)
from cli.simulate.trace import Arrival, TraceUnreadable, generated_trace, read_trace
from tokenworks.client.clock import monotonic

_MINUTE_SECONDS: Final = 60
_GENERATED_ARRIVALS: Final = 20_000
_SCREEN_SECONDS: Final = 0.5
# Without a terminal a line is enough.
_LINE_SECONDS: Final = 10.0
_COUNTED_POLL_SECONDS: Final = 0.5
_JOIN_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """What the user asks of a site; `picture` is where it is drawn at the end, None for nowhere."""

    size: Size
    minutes: float
    seed: int
    traces: tuple[Path, ...]
    truth: Path
    picture: Path | None
    deadline_seconds: float


def simulate_site(client: Client, options: SiteOptions, *, meter: MeterAddress) -> None:
    """Run a site to its end; raises CommandError where it cannot be, or its sums do not close."""
    if options.picture is not None:
        _demand_picture()
    arrivals = _read_arrivals(options)
    begin = find_begin(client, minutes=options.minutes)
    describe_site(client, options.size, begin=begin)
    report_progress(
        f"a site of {options.size.label}: {options.size.server_count:,} servers,"
        f" {options.size.account_count:,} accounts; truth files in {options.truth}"
    )
    world = open_world(client, options.size, begin=begin)
    before = ask_energy(client, begin=begin, end=begin)
    servers: AbstractContextManager[dict[str, str]] = keys_of_servers(client)
    if meter.api_key is None:
        # A certificate that says who calls says it for the servers, too.
        servers = nullcontext({})
    with servers as keys:
        orders = Orders(
            size=options.size,
            seed=options.seed,
            seconds=max(1, round(options.minutes * _MINUTE_SECONDS)),
            arrivals=arrivals,
            accounts=world.accounts,
            meter=meter,
            keys=keys,
            deadline_seconds=options.deadline_seconds,
            truth=options.truth,
        )
        run = _Run(client, world, orders, begin=begin, before=before)
        run.play()
    result = run.close()
    _print_end(result, run.history, orders=orders, as_json=client.as_json)
    if options.picture is not None:
        draw(options.picture, history=run.history, result=result, orders=orders)
        report_progress(f"picture in {options.picture}")
    if result.faults:
        raise CommandError(f"the totals do not close: {len(result.faults)} differences")


def _read_arrivals(options: SiteOptions) -> tuple[Arrival, ...]:
    try:
        read = tuple(arrival for path in options.traces for arrival in read_trace(path))
    except TraceUnreadable as error:
        raise CommandError(str(error), code=Exit.USAGE) from error
    return read or tuple(generated_trace(request_count=_GENERATED_ARRIVALS, seed=options.seed))


class _Run:
    """A run: the process of the site, and what is seen of it from here."""

    def __init__(
        self, client: Client, world: World, orders: Orders, *, begin: datetime, before: Energy
    ) -> None:
        self.history = History()
        self._client = client
        self._world = world
        self._orders = orders
        self._begin = begin
        self._before = before

    def play(self) -> None:
        """Have the site play, and watch it; raises CommandError where it ended early."""
        # Spawned, not forked: gRPC does not like forks.
        context = get_context("spawn")
        stop = context.Event()
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(
            target=play, args=(self._orders, writer, stop), name="site", daemon=True
        )
        with interrupts_ignored():
            process.start()
        writer.close()
        try:
            with self._screen() as show, ThreadPoolExecutor(max_workers=1) as asking:
                try:
                    self._listen(reader, asking=asking, show=show)
                except KeyboardInterrupt:
                    stop.set()
                    self._listen(reader, asking=asking, show=show)
        finally:
            # Whoever has not reported to the end by now is not waited for.
            process.join(_JOIN_SECONDS_MAX if self.history.latest.is_final else 0.0)
            if process.is_alive():
                process.kill()
                process.join()
        latest = self.history.latest
        if not latest.is_final:
            raise CommandError("the site’s process ended without a report")
        if latest.fault:
            raise CommandError(latest.fault)

    def close(self) -> Result:
        """Wait until all is counted, and hold the meter's totals against the truth files.

        Raises CommandError where it is not counted in time.
        """
        truth = read_truth(self._orders.truth)
        self._wait_until_counted(truth.events.total())
        return check(
            self._client,
            self._world,
            truth=truth,
            before=self._before,
            begin=self._begin,
            end=_now(),
        )

    def _listen(
        self,
        reader: "connection.Connection[None, Progress]",
        *,
        asking: ThreadPoolExecutor,
        show: Callable[[History], None],
    ) -> None:
        """Take in what the site tells until its end, and ask the meter beside it.

        The meter is asked on a thread, so that the site never waits for somebody who listens.
        """
        asked: Future[None] | None = None
        read_ms = 0
        while not self.history.latest.is_final:
            if reader.poll(_SCREEN_SECONDS):
                try:
                    self.history.told(reader.recv(), now=monotonic())
                except EOFError:
                    return
            latest = self.history.latest
            if latest.read_ms > read_ms and (asked is None or asked.done()):
                read_ms = latest.read_ms
                asked = asking.submit(self._ask, read_ms)
            show(self.history)
        if asked is not None:
            asked.result()
        if not self.history.latest.fault:
            self._ask(self.history.latest.read_ms)

    def _ask(self, read_ms: int) -> None:
        """Have the history hear what the meter says now; nothing while it is away."""
        with suppress(grpc.RpcError):
            counted = self._ask_counted()
            energy = ask_energy(self._client, begin=self._begin, end=_now()).since(self._before)
            self.history.asked(counted, energy, asked_ms=now_ms(), read_ms=read_ms)

    def _ask_counted(self) -> Counted:
        return ask_counted(self._client, self._world, begin=self._begin, end=_now())

    def _wait_until_counted(self, event_count: int) -> None:
        """Wait while the count grows; it may also be above what was sent."""
        deadline, seen = monotonic() + self._orders.deadline_seconds, -1
        while (counted := self._ask_counted()).event_count < event_count:
            if counted.event_count > seen:
                seen, deadline = counted.event_count, monotonic() + self._orders.deadline_seconds
            if monotonic() > deadline or self.history.latest.set_aside_events:
                return
            report_progress(f"counted {counted.event_count:,} of {event_count:,} events")
            sleep(_COUNTED_POLL_SECONDS)

    @contextmanager
    def _screen(self) -> Iterator[Callable[[History], None]]:
        """A place to show the run on stderr: a live screen, or a line each ten seconds."""
        console = Console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                yield lambda history: live.update(
                    render(history, orders=self._orders, now_ms=now_ms()), refresh=True
                )
            return
        due, is_serving = 0.0, False

        def show(history: History) -> None:
            nonlocal due, is_serving
            has_begun = history.latest.begin_ms > 0
            if monotonic() >= due or has_begun is not is_serving:
                due, is_serving = monotonic() + _LINE_SECONDS, has_begun
                report_progress(write_line(history, orders=self._orders, now_ms=now_ms()))

        yield show


def _print_end(result: Result, history: History, *, orders: Orders, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(result, history, orders=orders))
        return
    columns = ("tier", "requests", "tokens", "generated", "kWh", "tokens/J", "USD", "USD/MWh")
    print_table(columns, summary_rows(result))
    for line in closing_lines(result, history, orders=orders):
        click.echo(line)


def _now() -> datetime:
    return datetime.fromtimestamp(now_ms() / 1_000, UTC)


def _demand_picture() -> None:
    try:
        demand_matplotlib()
    except PictureImpossible as error:
        raise CommandError(str(error), code=Exit.USAGE) from error
