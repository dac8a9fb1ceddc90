"""The command `tokenworks simulate`, as its user runs it, against a meter that plays its part."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli.process import Exit
from cli.simulate.fleet import run_fleet
from cli.simulate.server import MeterAddress, Progress, Replay
from cli.simulate.workload import Customers, Workload
from tests.simulate.fake_meter import API_KEY, FakeMeter, read_truth, running
from tokenworks.client import TokenClass
from tokenworks.client.limits import BATCH_EVENTS_MAX

TOKENWORKS = Path(sys.executable).parent / "tokenworks"
COMMAND_SECONDS_MAX = 100
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
# The client sends what has gathered in a fifth of a second: some ten batches from each
# server, where the machine is not too busy for that.
PACED = ("--requests", "300", "--speed", "20")
# More than fits a batch, for each server: two batches at least, however fast the machine is.
TWO_BATCHES = ("--requests", str(2 * (BATCH_EVENTS_MAX + 1)))


def test_simulate__truth_is_what_arrives(tmp_path: Path) -> None:
    """The truth files and what the meter got are the same, and the truth was there first."""
    with running(FakeMeter(truth=tmp_path / "out")) as meter:
        answer = _simulate(meter, *PACED, "--servers", "3", "--out", str(tmp_path / "out"))
    truth = read_truth(tmp_path / "out")
    assert len(truth) == 300
    assert _of_truth(truth) == _of_wire(meter)
    assert meter.untold == []
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert sum(server["sent"] for server in answer["servers"]) == 300
    assert all(server["acknowledged"] == server["sent"] for server in answer["servers"])


def test_simulate__generated_by_seed(tmp_path: Path) -> None:
    """The seed decides who asked for what: another run of it differs in its times alone."""
    runs = {}
    with running(FakeMeter()) as meter:
        for name, seed in (("first", 7), ("same", 7), ("other", 8)):
            out = tmp_path / name
            _simulate(meter, "--requests", "100", "--seed", str(seed), "--out", str(out))
            runs[name] = [
                {key: value for key, value in event.items() if key != "end_time_ms"}
                for event in read_truth(out)
            ]
    assert runs["first"] == runs["same"]
    assert runs["first"] != runs["other"]


def test_simulate__traces_of_files(tmp_path: Path) -> None:
    """Several traces are laid over each other, so that each ends now, and lose no token."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text(HEADER + "2023-11-16 18:00:00,10,1\n2023-11-16 18:00:07,20,2\n", "utf-8")
    second.write_text(HEADER + "2021-01-01 00:00:00.5,4000,800\n", "utf-8")
    before_ms = time.time_ns() // 1_000_000
    with running(FakeMeter()) as meter:
        traces = ("--trace", str(first), "--trace", str(second))
        _simulate(meter, *traces, "--accounts", "a", "--out", str(tmp_path / "out"))
    truth = read_truth(tmp_path / "out")
    tokens: Counter[str] = Counter()
    for event in truth:
        tokens.update(event["classes"])
    assert tokens["input"] + tokens["cache_read"] == 4_030
    assert tokens["output"] + tokens["reasoning"] == 803
    ends = sorted(event["end_time_ms"] for event in truth)
    assert before_ms <= ends[1] == ends[2] <= time.time_ns() // 1_000_000
    # The first two arrive 7 s apart; ten tokens more of prompt and one of answer take the rest.
    assert ends[2] - ends[0] == 7_021


def test_simulate__paced(tmp_path: Path) -> None:
    """At a speed no request is reported before it ended."""
    before_ms = time.time_ns() // 1_000_000
    with running(FakeMeter()) as meter:
        _simulate(meter, *PACED, "--out", str(tmp_path / "out"))
    ends = [event["end_time_ms"] for event in read_truth(tmp_path / "out")]
    assert before_ms < max(ends) <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("speed", ["0", "20"])
def test_simulate__sandbox(tmp_path: Path, speed: str) -> None:
    """On a clock that stands still the last request ends where it stands, at every speed."""
    driven_ms = 1_790_812_800_000
    with running(FakeMeter(driven_ms=driven_ms)) as meter:
        _simulate(meter, "--requests", "300", "--speed", speed, "--out", str(tmp_path / "out"))
    ends = [event["end_time_ms"] for event in read_truth(tmp_path / "out")]
    assert (max(ends), len(ends)) == (driven_ms, 300)


def test_simulate__resend(tmp_path: Path) -> None:
    """The share of batches that was asked for arrives twice, the same each time."""
    with running(FakeMeter()) as meter:
        answer = _simulate(meter, *TWO_BATCHES, "--resend", "50", "--out", str(tmp_path / "out"))
    for server in answer["servers"]:
        assert server["repeated_batches"] == 0
        assert server["batches"] >= 2
        assert abs(server["resent_batches"] - server["batches"] / 2) <= 0.5
    assert meter.repeats.total() == sum(server["resent_batches"] for server in answer["servers"])
    assert _of_truth(read_truth(tmp_path / "out")) == _of_wire(meter)


def test_simulate__stream_cut(tmp_path: Path) -> None:
    """A stream that breaks under a batch is opened again, the batch repeated, and nothing lost."""
    with running(FakeMeter(cut_at=2)) as meter:
        answer = _simulate(meter, *TWO_BATCHES, "--out", str(tmp_path / "out"))
    assert all(server["streams"] >= 2 for server in answer["servers"])
    assert all(server["repeated_batches"] >= 1 for server in answer["servers"])
    assert _of_truth(read_truth(tmp_path / "out")) == _of_wire(meter)


def test_simulate__not_acknowledged(tmp_path: Path) -> None:
    """What is not acknowledged before the deadline fails the command, with the number."""
    with running(FakeMeter(is_silent=True)) as meter:
        done = _run(meter, "--requests", "50", "--deadline", "0.5", "--out", str(tmp_path / "out"))
    assert done.returncode == Exit.FAILED
    assert "50 requests were not acknowledged within 0.5 s" in done.stderr


def test_simulate__accounts_found_again(tmp_path: Path) -> None:
    """Without --accounts there are six teams of two companies; a second run uses them again."""
    with running(FakeMeter()) as meter:
        first = _simulate(meter, "--requests", "10", "--out", str(tmp_path / "first"))
        second = _simulate(meter, "--requests", "10", "--out", str(tmp_path / "second"))
    assert first["accounts"] == second["accounts"]
    assert len(first["accounts"]) == 6
    assert len(meter.accounts) == 8
    assert {event["account"] for event in read_truth(tmp_path / "first")} <= {*first["accounts"]}


def test_simulate__names_given(tmp_path: Path) -> None:
    """Accounts, tiers, models and pools are those given, and no account is created then."""
    names = ("--accounts", "a,b", "--tiers", "gold", "--models", "m", "--pools", "h100")
    with running(FakeMeter()) as meter:
        _simulate(meter, "--requests", "50", *names, "--out", str(tmp_path / "out"))
    assert meter.accounts == {}
    truth = read_truth(tmp_path / "out")
    assert {event["account"] for event in truth} == {"a", "b"}
    assert {(event["tier"], event["model"]) for event in truth} == {("gold", "m")}
    assert {it.pool for each in meter.columns() for it in each.dimensions} == {"h100"}


def test_simulate__table(tmp_path: Path) -> None:
    """Without --json a table has a line for each server, on stdout; progress is on stderr."""
    with running(FakeMeter()) as meter:
        done = _run(meter, "--servers", "2", "--out", str(tmp_path / "out"), as_json=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["server", "sent", "acknowledged"]
    assert [line[:3] for line in lines[1:]] == [
        ["simulate-1-1", "1000", "1000"],
        ["simulate-1-2", "1000", "1000"],
    ]
    assert "2000 requests" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--speed", "0.5"), "must be 0, or at least 1"),
        (("--speed", "-1"), "--speed"),
        (("--servers", "0"), "--servers"),
        (("--resend", "101"), "--resend"),
        (("--seed", "-1"), "--seed"),
        (("--accounts", "a,,b"), "different names"),
        (("--tiers", "a,a"), "different names"),
        (("--trace", "missing.csv"), "missing.csv"),
        (("--trace", "bad.csv"), "bad.csv:2: "),
        (("--out", "used"), "has truth files already"),
    ],
)
def test_simulate__refused(tmp_path: Path, options: tuple[str, str], named: str) -> None:
    """What cannot be simulated is refused with what is wrong, and nothing is reported."""
    (tmp_path / "bad.csv").write_text(HEADER + "today,1,1\n", "utf-8")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/server.jsonl").touch()
    with running(FakeMeter()) as meter:
        done = _run(meter, *options, cwd=tmp_path)
    assert done.returncode == Exit.USAGE
    assert named in done.stderr
    assert meter.batches == {}


def test_simulate__no_meter(tmp_path: Path) -> None:
    """Where no meter answers the command ends with the exit code for that."""
    with running(FakeMeter()) as meter:
        pass
    done = _run(meter, "--out", str(tmp_path / "out"))
    assert done.returncode == Exit.UNREACHABLE


def test_simulate__killed(tmp_path: Path) -> None:
    """Who is told to end does so at once, its processes too, and leaves no folder of its own."""
    with (
        running(FakeMeter()) as meter,
        subprocess.Popen(
            [
                TOKENWORKS,
                "simulate",
                "--server",
                meter.target,
                "--api-key",
                API_KEY,
                "--speed",
                "1",
            ],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        while process.poll() is None and not any(tmp_path.glob("*/*")):
            time.sleep(0.01)
        process.terminate()
        process.wait(COMMAND_SECONDS_MAX)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_simulate__refused_leaves_nothing(tmp_path: Path) -> None:
    """A run that could not begin leaves no folder."""
    done = subprocess.run(
        [TOKENWORKS, "simulate", "--server", "127.0.0.1:1", "--api-key", API_KEY],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == Exit.UNREACHABLE
    assert list(tmp_path.iterdir()) == []


def test_run_fleet__server_killed(tmp_path: Path) -> None:
    """A server that dies is seen: its last report is not final; the others finish."""

    def kill_first(progress: Progress) -> None:
        if progress.server_index == 0 and not progress.is_final:
            for process in multiprocessing.active_children():
                if process.name == "simulate-1-1":
                    process.kill()

    with running(FakeMeter()) as meter:
        replay = _replay(meter, truth=tmp_path)
        first, second = run_fleet(replay, on_progress=kill_first)
    assert first is not None
    assert not first.is_final
    assert second is not None
    assert second.is_final
    assert second.sent == second.acknowledged == 150


def _replay(meter: FakeMeter, *, truth: Path) -> Replay:
    customers = Customers(accounts=("a",), tiers=("high",), models=("m",))
    end_ms = time.time_ns() // 1_000_000 + 3_000
    return Replay(
        workload=Workload(traces=(), request_count=300, seed=1, customers=customers),
        meter=MeterAddress(
            target=meter.target,
            api_key=API_KEY,
            ca_certificate=None,
            client_certificate=None,
            client_key=None,
            insecure=True,
        ),
        server_count=2,
        end_ms=end_ms,
        report_end_ms=end_ms,
        speed=20.0,
        resend_percent=0.0,
        deadline_seconds=30.0,
        truth=truth,
    )


def _simulate(meter: FakeMeter, *options: str) -> Any:  # noqa: ANN401 - JSON
    done = _run(meter, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _run(
    meter: FakeMeter, *options: str, as_json: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # Two servers are a fleet; each more is a process that takes a second to start.
    fleet = ("--server", meter.target, "--api-key", API_KEY, "--servers", "2")
    return subprocess.run(
        [TOKENWORKS, "simulate", *fleet, *options, *(["--json"] if as_json else [])],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )


def _of_truth(truth: list[dict[str, Any]]) -> Counter[tuple[object, ...]]:
    return Counter(
        (
            event["request_id"],
            event["account"],
            event["tier"],
            event["model"],
            event["mode"],
            event["end_time_ms"],
            *sorted(event["classes"].items()),
        )
        for event in truth
    )


def _of_wire(meter: FakeMeter) -> Counter[tuple[object, ...]]:
    arrived: Counter[tuple[object, ...]] = Counter()
    for columns in meter.columns():
        base_ms = columns.base_time.ToMilliseconds()
        for index, place in enumerate(columns.dimensions_index):
            dimensions = columns.dimensions[place]
            classes = {
                TokenClass(column.token_class).name.lower(): column.counts[index]
                for column in columns.tokens
            }
            arrived[
                columns.request_id[index],
                dimensions.account,
                dimensions.tier,
                dimensions.model,
                "batch" if dimensions.mode == 2 else "online",
                base_ms + columns.end_offset_ms[index],
                *sorted((name, count) for name, count in classes.items() if count),
            ] += 1
    return arrived
