"""`tokenworks energy report`: this machine's GPUs, for a meter that runs elsewhere."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import sleep
from typing import Final

import click
import grpc

from cli.connection import Client, client_command
from cli.process import CommandError, Exit, report_progress, until_interrupted
from meter.energy.sources.nvml import NvmlReader
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure
from meter.runtime.clock import SystemClock
from tokenworks.meter.v1 import energy_service_pb2 as pb

# Nobody answers: the counters keep the energy until somebody does.
_SILENCES: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_MEANINGS: Final = {
    SourceFailure.NO_LIBRARY: "no NVML: install tokenworks[nvml] and NVIDIA's driver",
    SourceFailure.NO_COUNTERS: "some or all GPUs have no energy counter",
    SourceFailure.DEVICE_LOST: "some or all GPUs do not answer",
    SourceFailure.UNREACHABLE: "the driver does not answer in time",
    SourceFailure.UNREADABLE: "some GPUs have no usable name, or there are too many",
}


@click.command("report", short_help="Report this machine's GPUs, until Ctrl-C.")
@click.option("--pool", required=True, metavar="NAME", help="The pool that the GPUs belong to.")
@click.option(
    "--every",
    type=click.FloatRange(0.1, 300),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from one reading to the next.",
)
@client_command
def report(client: Client, *, pool: str, every: float) -> None:
    """Read the energy counters of this machine's NVIDIA GPUs and report them, until Ctrl-C.

    For a node whose GPUs no exporter shows and no meter reads: `h100=nvml` among the energy sources
    reads those of the meter's own machine. Needs the extra `nvml` and an API key that may report on
    the whole installation. A meter that does not answer is tried again, and loses nothing.
    """
    reader = NvmlReader()
    teller = Teller(pool=pool, every=every, as_json=client.as_json)
    with until_interrupted():
        try:
            run_reports(
                reader.read,
                send=lambda samples: send(client, samples, pool=pool),
                tell=teller.tell,
                wait=lambda: sleep(every),
            )
        finally:
            reader.close()
    teller.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one round came to: devices reported, readings that added nothing, and what failed."""

    device_count: int = 0
    ignored_count: int = 0
    fault: str = ""


def run_reports(
    read: Callable[[], Found],
    *,
    send: Callable[[Iterable[Sample]], Report],
    tell: Callable[[Report], None],
    wait: Callable[[], None],
) -> None:
    """Read and send, for ever; raises CommandError when there is nothing to read at first.

    The first call that fails ends it, as with any command; a silence later does not.
    """
    is_first = True
    while True:
        try:
            found = read()
            sent = send(found.samples)
        except SourceFailed as failed:
            if is_first:
                raise CommandError(_explain(failed), code=Exit.FAILED) from failed
            tell(Report(fault=_explain(failed)))
        except grpc.RpcError as error:
            silence = _find_silence(error)
            if is_first or silence is None:
                raise
            tell(Report(fault=f"the meter does not answer: {silence}"))
        else:
            is_first = False
            fault = "" if found.failure is None else _MEANINGS[found.failure]
            tell(
                Report(
                    device_count=sent.device_count, ignored_count=sent.ignored_count, fault=fault
                )
            )
        wait()


def send(client: Client, samples: Iterable[Sample], *, pool: str) -> Report:
    """Report the samples that have a counter; raises grpc.RpcError."""
    request = pb.RecordEnergyRequest()
    now_ms = SystemClock().now_ms()
    for sample in samples:
        if sample.counter_mj is None:
            continue
        reading = request.readings.add(
            pool=pool,
            device=sample.device,
            counter_mj=sample.counter_mj,
            boundary=pb.ENERGY_BOUNDARY_BOARD,
        )
        reading.time.FromMilliseconds(now_ms)
        if sample.power_mw is not None:
            reading.power_mw = sample.power_mw
    if not request.readings:
        raise SourceFailed(SourceFailure.NO_COUNTERS)
    answer = client.energy.RecordEnergy(request)
    return Report(device_count=len(request.readings), ignored_count=answer.ignored_count)


class Teller:
    """Says what is new on stderr, and on stdout what came of it all, or JSON line by line."""

    def __init__(self, *, pool: str, every: float, as_json: bool) -> None:
        """Take what is reported, how often in seconds, and how it is told."""
        self._pool = pool
        self._every = every
        self._as_json = as_json
        self._last: Report | None = None
        self._report_count = 0

    def tell(self, report: Report) -> None:
        """Tell a report, if it differs from the one before; JSON tells every one."""
        self._report_count += bool(report.device_count)
        if self._as_json:
            line = {
                "device_count": report.device_count,
                "ignored_count": report.ignored_count,
                "fault": report.fault or None,
            }
            click.echo(json.dumps(line))
        elif report != self._last:
            report_progress(self._sentence(report))
        self._last = report

    def end(self) -> None:
        """Tell how often there was something to report."""
        if not self._as_json:
            click.echo(f"reported {self._report_count:,} times")

    def _sentence(self, report: Report) -> str:
        if not report.device_count:
            return f"nothing reported: {report.fault}"
        devices = "1 device" if report.device_count == 1 else f"{report.device_count} devices"
        sentence = f"reporting {devices} to pool {self._pool}, every {self._every:g} s until Ctrl-C"
        if report.ignored_count:
            sentence += (
                f"; {report.ignored_count} of them add nothing: another pool or source has them,"
                " or their counters stand still"
            )
        return f"{sentence}; {report.fault}" if report.fault else sentence


def _explain(failed: SourceFailed) -> str:
    cause = f" ({failed.__cause__})" if failed.__cause__ is not None else ""
    return f"{_MEANINGS[failed.failure]}{cause}"


def _find_silence(error: Exception) -> str | None:
    """Return why nobody answered, None when somebody did."""
    if isinstance(error, grpc.Call) and error.code() in _SILENCES:
        return str(error.details())
    return None
