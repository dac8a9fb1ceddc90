"""A simulated server's process, from within: the truth before the report, and Ctrl-C."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.simulate import server
from cli.simulate.server import MeterAddress, Progress, Replay, serve
from cli.simulate.workload import Customers, Workload
from tests.acceptance.counted import wait_until
from tests.simulate.fake_meter import API_KEY, FakeMeter, read_truth, running
from tokenworks.client import Meter

TOKENWORKS = Path(sys.executable).parent / "tokenworks"


def test_serve__truth_before_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the client is handed an event, its line is on disk already: a crash loses no truth."""
    seen: list[tuple[str, str]] = []

    class Witness(Meter):
        def record(self, **arguments: object) -> bool:  # type: ignore[override]
            seen.append((str(arguments["request_id"]), str(read_truth(tmp_path)[-1]["request_id"])))
            return super().record(**arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "Meter", Witness)
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    with running(FakeMeter()) as meter, reader, writer:
        serve(_replay(meter, truth=tmp_path), 0, writer, context.Event())
        last: Progress | None = None
        while reader.poll():
            last = reader.recv()
    assert last is not None
    assert last.is_final
    assert last.acknowledged == len(seen) == 40
    assert all(recorded == written for recorded, written in seen)


def test_simulate__interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a replay early: no more is reported, and what was is still acknowledged."""
    out = tmp_path / "out"
    options = ("--requests", "2000", "--speed", "1", "--out", str(out))
    with running(FakeMeter()) as meter:
        process = subprocess.Popen(
            [TOKENWORKS, "simulate", "--server", meter.target, "--api-key", API_KEY, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(
            lambda: len(list(out.glob("*"))) == 4 and bool(read_truth(out)),
            seconds_max=60,
            what="all servers run and something is reported",
        )
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    rows = [line.split() for line in printed.decode().splitlines()][1:]
    assert 0 < sum(int(row[1]) for row in rows) == len(read_truth(out)) < 2_000
    assert all(row[1] == row[2] for row in rows)
    assert sum(len(columns.request_id) for columns in meter.columns()) == len(read_truth(out))


def _replay(meter: FakeMeter, *, truth: Path) -> Replay:
    customers = Customers(accounts=("a",), tiers=("high",), models=("m",))
    return Replay(
        workload=Workload(traces=(), request_count=40, seed=1, customers=customers),
        meter=MeterAddress(
            target=meter.target,
            api_key=API_KEY,
            ca_certificate=None,
            client_certificate=None,
            client_key=None,
            insecure=True,
        ),
        server_count=1,
        end_ms=time.time_ns() // 1_000_000,
        report_end_ms=0,
        speed=0.0,
        resend_percent=0.0,
        deadline_seconds=30.0,
        truth=truth,
    )
