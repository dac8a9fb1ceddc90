"""`tokenworks billing clock`, and how loudly a sandbox is told by every other command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import meter.lending
from cli.main import tokenworks
from cli.process import Exit
from meter.options import JobOptions
from tests.cli.shell import Shell, shell_of, to_iso
from tests.postgres import Cluster
from tests.running_meter import PEPPER, TOKENWORKS, RunningMeter, running_meter_on
from tokenworks.client.clock import time_ns

# 2026-10-01T00:00:00Z.
BEGIN_MS = 1_790_812_800_000
DAY_MS = 86_400_000
SANDBOX = {"sandbox_clock": "2026-10-01T00:00:00Z"}
LINE = "SANDBOX: this installation lives on a driven clock, now {}\n"
ANY_PORTS = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")


@pytest.fixture
def sandbox(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A sandbox that was just born."""
    with running_meter_on(database_url, folder=tmp_path, settings=SANDBOX) as running:
        yield running


@pytest.fixture
def shell(sandbox: RunningMeter) -> Shell:
    """A shell of it; there are acme, acme/team and other."""
    return shell_of(sandbox)


@pytest.fixture(scope="module")
def still(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox whose clock nobody moves, with the same accounts."""
    folder = tmp_path_factory.mktemp("still")
    with cluster.database() as url, running_meter_on(url, folder=folder, settings=SANDBOX) as meter:
        shell_of(meter)
        yield meter


@pytest.fixture
def still_shell(still: RunningMeter) -> Shell:
    """A shell of that one."""
    return Shell(still.target, still.api_key)


def test_clock__real(running_meter: RunningMeter) -> None:
    """A real clock is shown, no sandbox is told, and nobody moves it."""
    shell = Shell(running_meter.target, running_meter.api_key)
    before = to_iso(time_ns() // 1_000_000)
    told = shell.run_json("billing", "clock")
    assert before[:19] <= told["now"][:19] <= to_iso(time_ns() // 1_000_000)[:19]
    assert not told["driven"]
    shown = shell.run("billing", "clock")
    assert ("clock  real\n" in shown.stdout, shown.stderr) == (True, "")
    refused = shell.run("billing", "clock", "--to", "2199-01-01", code=Exit.REFUSED)
    assert "CLOCK_REFUSED" in refused.stderr


def test_clock__moved(shell: Shell) -> None:
    """The way is told: from where, to where, through how many edges, with how many cuts."""
    shown = shell.run("billing", "clock", "--to", "2026-11-01")
    assert shown.stdout == (
        "now    2026-11-01T00:00:00Z\n"
        "clock  driven: SANDBOX\n"
        "from   2026-10-01T00:00:00Z\n"
        "edges  2,976\n"
        "cuts   31\n"
    )
    assert shown.stderr == LINE.format("2026-11-01T00:00:00Z")
    assert shell.run_json("billing", "clock", "--to", "2026-11-01T01:20+01:00") == {
        "now": "2026-11-01T00:20:00Z",
        "driven": True,
        "from": "2026-11-01T00:00:00Z",
        "edges": 1,
        "cuts": 0,
    }
    assert shell.run("billing", "clock").stdout == (
        "now    2026-11-01T00:20:00Z\nclock  driven: SANDBOX\n"
    )


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("soon", Exit.USAGE, "soon is no time"),
        ("2026-09-30", Exit.REFUSED, "goes forward only"),
        ("2027-10-01", Exit.USAGE, "at most 100 days after 2026-10-01T00:00:00Z"),
    ],
)
def test_clock__refused(still_shell: Shell, to: str, code: Exit, said: str) -> None:
    """What is no time, past or too far away moves nothing."""
    assert said in still_shell.run("billing", "clock", "--to", to, code=code).stderr
    assert still_shell.run_json("billing", "clock")["now"] == "2026-10-01T00:00:00Z"


def test_command__tells_the_sandbox_once(still_shell: Shell) -> None:
    """Each command that a sandbox answers says so, once, on stderr, when it fails as well."""
    line = LINE.format("2026-10-01T00:00:00Z")
    # Three calls: for the account, the time, and the event.
    event = ("--account", "acme", "--model", "m", "--tier", "high", "--input", "5")
    assert still_shell.run("usage", "record", *event, "--json").stderr == line
    failed = still_shell.run("accounts", "show", "id:none", code=Exit.FAILED)
    assert failed.stderr.startswith(line)
    assert failed.stderr.count("SANDBOX") == 1


def test_usage__now_is_the_sandbox_time(shell: Shell) -> None:
    """What is recorded ends at the sandbox's now; what is shown and exported ends there."""
    shell.run("billing", "clock", "--to", "2026-10-02T12:07")
    shell.record("--input", "5")
    shell.record("--input", "7", "--end-time", "25h")
    (row,) = shell.show(requests=1)
    assert row["tokens"] == {"input": 5}
    shell.show("--since", "26h", requests=2)
    told = shell.run_json("usage", "show")
    assert told["start_time"] == "2026-10-01T12:00:00Z"
    assert told["end_time"] == "2026-10-02T12:15:00Z"
    assert told["counted_until"] == "2026-10-02T12:07:00Z"
    exported = shell.run("usage", "export", "--since", "2h").stdout.splitlines()
    assert [line.split(",")[0] for line in exported[1:]] == ["2026-10-02T12:00:00Z"]


def serve(database_url: str, folder: Path, **settings: str) -> "subprocess.Popen[str]":
    """Start a server whose addresses are for people to read."""
    pepper = folder / "pepper"
    pepper.write_text(PEPPER.hex())
    given = {"database_url": database_url, "key_pepper_file": str(pepper), **settings}
    environment = {f"TOKENWORKS_{name.upper()}": value for name, value in given.items()}
    return subprocess.Popen(
        [TOKENWORKS, "serve", *ANY_PORTS],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve__sandbox_on_a_real_database(running_meter: RunningMeter, tmp_path: Path) -> None:
    """A database that has lived on the real clock is served as no sandbox."""
    running_meter.stop()
    refused = serve(running_meter.database_url, tmp_path, **SANDBOX)
    assert "has lived on the real clock" in refused.communicate()[1]
    assert refused.returncode == Exit.REFUSED


def test_serve__sandbox_without_the_setting(sandbox: RunningMeter, tmp_path: Path) -> None:
    """A sandbox is served with the setting only: nobody takes it for real by mistake."""
    sandbox.stop()
    refused = serve(sandbox.database_url, tmp_path)
    assert "TOKENWORKS_SANDBOX_CLOCK" in refused.communicate()[1]
    assert refused.returncode == Exit.REFUSED


def test_serve__sandbox_for_people(database_url: str, tmp_path: Path) -> None:
    """Beside its addresses a sandbox tells its clock, and on stderr it cannot be overlooked."""
    with serve(database_url, tmp_path, **SANDBOX) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
        lines += process.stdout.readlines()
        errors = process.stderr.readlines()
    assert [line.split()[0] for line in lines] == ["gRPC", "HTTP", "Clock"]
    assert lines[2] == "Clock 2026-10-01T00:00:00Z, driven: SANDBOX\n"
    assert errors[1] == LINE.format("2026-10-01T00:00:00Z")
    assert set(errors[0].strip()) == set(errors[3].strip()) == {"*"}


def test_serve__sandbox_again(sandbox: RunningMeter, tmp_path: Path) -> None:
    """With any instant a sandbox goes on where its own time stands, and says so at the start."""
    Shell(sandbox.target, sandbox.api_key).run("billing", "clock", "--to", "2026-10-03T00:00:07Z")
    sandbox.stop()
    folder = tmp_path / "again"
    folder.mkdir()
    settings = {"sandbox_clock": "2099-01-01T00:00:00Z"}
    with running_meter_on(sandbox.database_url, folder=folder, settings=settings) as again:
        shell = Shell(again.target, again.api_key)
        assert shell.run_json("billing", "clock")["now"] == "2026-10-03T00:00:07Z"
        assert LINE.format("2026-10-03T00:00:07Z") in again.log.read_text("utf-8")
        keys = shell.run_json("keys", "list")
    assert [key["create_time"] for key in keys] == ["2026-10-01T00:00:00Z", "2026-10-03T00:00:07Z"]


def test_open_host__of_a_sandbox(sandbox: RunningMeter, database_url: str) -> None:
    """A job on a sandbox's database lives by its clock, and knows that it is driven."""
    Shell(sandbox.target, sandbox.api_key).run("billing", "clock", "--to", "2026-10-02")
    with meter.lending.open_host(JobOptions(database_url=database_url, tiers=("high",))) as host:
        assert (host.is_driven, host.clock.now_ms()) == (True, BEGIN_MS + DAY_MS)


def test_job__tells_the_sandbox(still: RunningMeter) -> None:
    """A job that asks no server says as loudly that its database is a sandbox's."""
    environment = {"TOKENWORKS_DATABASE_URL": still.database_url}
    told = CliRunner().invoke(tokenworks, ["billing", "close", "2026-09"], env=environment)
    assert told.stderr == LINE.format("2026-10-01T00:00:00Z")


def test_open_host__real(running_meter: RunningMeter) -> None:
    """A job on any other database lives by the real clock."""
    before_ms = time_ns() // 1_000_000
    url = running_meter.database_url
    with meter.lending.open_host(JobOptions(database_url=url, tiers=("high",))) as host:
        assert not host.is_driven
        assert before_ms <= host.clock.now_ms() <= time_ns() // 1_000_000


@pytest.mark.stacks
def test_clock__leaps_right_after_a_producer_was_cut_off(
    sandbox: RunningMeter, shell: Shell, tmp_path: Path
) -> None:
    """It was heard before the leap, however often its server looks afterwards who is there."""
    gateway = (
        "import os, sys; from tokenworks.client import Meter;"
        "meter = Meter(sys.argv[1], api_key=sys.argv[2], producer='gateway', account='acme');"
        "meter.record(model='m', tier='high', input=1, end_time=1_790_812_800); meter.flush();"
        "os._exit(0)"
    )
    key = [sandbox.target, sandbox.api_key]
    subprocess.run([sys.executable, "-c", gateway, *key], check=True, cwd=tmp_path)
    shell.run("billing", "clock", "--to", "2026-11-01")
    # Each question takes some tenths of a second, and the server looks every two.
    for _ in range(12):
        (producer,) = shell.run_json("producers", "list")
        assert producer["seen_time"] < "2026-10-02"
