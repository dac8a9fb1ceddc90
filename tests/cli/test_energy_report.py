"""`tokenworks energy report`: the real command against a real meter, and boards that are played."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from cli.process import Exit
from tests.cli.shell import Shell
from tests.nvml import Board, FakeNvml, played
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on

POOL = ("energy", "report", "--pool", "h100")
SCRAPE_ROWS = 150


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter that reads nothing itself."""
    folder = tmp_path_factory.mktemp("report")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        yield running


@pytest.fixture
def shell(meter: RunningMeter) -> Shell:
    """A shell of whoever may do everything."""
    return Shell(meter.target, meter.api_key)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """The driver's library, of a machine with one board."""
    library = FakeNvml(Board())
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what happens between one reading and the next; after the last comes Ctrl-C."""

    def take(steps: Iterable[Callable[[], object]]) -> None:
        left = iter(steps)

        def wait(_seconds: float) -> None:
            step = next(left, None)
            if step is None:
                raise KeyboardInterrupt
            step()

        monkeypatch.setattr("cli.energy.report.sleep", wait)

    return take


def test_report__brings_what_the_counter_gained(
    shell: Shell, library: FakeNvml, between: Callable[..., None]
) -> None:
    """A minute of a real H100, reported every 15 s, is the energy that its counter gained."""
    rows = played()[: 4 * SCRAPE_ROWS + 1 : SCRAPE_ROWS]
    (board,) = library.boards
    board.counter_mj = rows[0].counter_mj
    between(partial(setattr, board, "counter_mj", row.counter_mj) for row in rows[1:])
    result = shell.run(*POOL, "--every", "15")
    assert result.stdout == "reported 5 times\n"
    assert result.stderr == ("reporting 1 device to pool h100, every 15 s until Ctrl-C\n")
    assert library.open_count == 0
    pools = shell.run_json("energy", "show", "--since", "1h")["pools"]
    assert sum(pool["measured_mj"] for pool in pools) == rows[-1].counter_mj - rows[0].counter_mj
    assert [pool["pool"] for pool in shell.run_json("energy", "sources")["pools"]] == ["h100"]


def test_report__tells_what_is_new_once(
    shell: Shell, library: FakeNvml, between: Callable[..., None]
) -> None:
    """A board that is lost, and one that came back, are each told once."""
    lost = Board(uuid="GPU-2")
    library.boards.append(lost)
    between(
        [
            lambda: None,
            partial(setattr, lost, "error", "GPU_IS_LOST"),
            lambda: None,
            partial(setattr, lost, "error", ""),
        ]
    )
    lines = shell.run("energy", "report", "--pool", "lossy").stderr.splitlines()
    assert [line.partition(" every")[0] for line in lines] == [
        "reporting 2 devices to pool lossy,",
        "reporting 2 devices to pool lossy,",
        "reporting 1 device to pool lossy,",
        "reporting 2 devices to pool lossy,",
    ]
    assert "2 of them add nothing" in lines[1]
    assert lines[2].endswith("some or all GPUs do not answer")


def test_report__as_json(shell: Shell, library: FakeNvml, between: Callable[..., None]) -> None:
    """JSON has a line for each reading."""
    library.boards[0].uuid = "GPU-json"
    between([lambda: None, partial(setattr, library.boards[0], "error", "UNKNOWN")])
    result = shell.run("energy", "report", "--pool", "json", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"device_count": 1, "ignored_count": 0, "fault": None},
        {"device_count": 1, "ignored_count": 1, "fault": None},
        {
            "device_count": 0,
            "ignored_count": 0,
            "fault": "some or all GPUs do not answer (NVML error 10)",
        },
    ]


def test_report__without_a_driver(shell: Shell, library: FakeNvml) -> None:
    """Without a driver the command ends, and says what is missing and what NVML said."""
    library.init_error = "DRIVER_NOT_LOADED"
    result = shell.run(*POOL, code=Exit.FAILED)
    assert "install tokenworks[nvml] and NVIDIA's driver (NVML error 9)" in result.stderr


def test_report__without_the_library(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the command ends, and names it."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "install tokenworks[nvml]" in shell.run(*POOL, code=Exit.FAILED).stderr


def test_report__of_boards_that_cannot_count(shell: Shell, library: FakeNvml) -> None:
    """A gauge alone is not reported: only who reads it all the time could make energy of it."""
    library.boards[0].counter_mj = None
    assert "no energy counter" in shell.run(*POOL, code=Exit.FAILED).stderr


@pytest.mark.usefixtures("library")
def test_report__to_nobody() -> None:
    """A meter that does not answer the first report ends the command, as with every command."""
    result = Shell("127.0.0.1:1", "none").run(*POOL, code=Exit.UNREACHABLE)
    assert "no meter answers at 127.0.0.1:1" in result.stderr


def test_report__outlives_a_restart_of_the_meter(
    running_meter: RunningMeter, library: FakeNvml, between: Callable[..., None]
) -> None:
    """While the meter is away the counter keeps the energy; the next report brings all of it."""
    (board,) = library.boards
    shell = Shell(running_meter.target, running_meter.api_key)

    def leave() -> None:
        running_meter.stop()
        board.counter_mj = 1_000

    def come_back() -> None:
        running_meter.start()
        board.counter_mj = 3_000

    def measured_mj() -> int:
        shown = shell.run_process("energy", "show", "--since", "1h", "--json").stdout
        return sum(pool["measured_mj"] for pool in json.loads(shown)["pools"])

    def steps() -> Iterator[Callable[[], object]]:
        yield leave
        yield come_back
        # The connection is tried again at its own pace.
        while measured_mj() < 3_000:
            yield lambda: None

    between(steps())
    lines = shell.run(*POOL).stderr.splitlines()
    assert lines[1].startswith("nothing reported: the meter does not answer")
    assert lines[-1] == lines[0]
    assert measured_mj() == 3_000
