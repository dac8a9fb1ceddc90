"""What becomes of a client when its process forks, and when it ends."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.client.conftest import MakeClient
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter
from tokenworks.client import Finish, Quality

SECONDS_MAX: Final = 60

FORK: Final = """
import os, sys
from tokenworks.client import Meter

meter = Meter(sys.argv[1], api_key=sys.argv[2], producer="p", flush_interval_seconds=60)
if sys.argv[3] == "used":
    meter.record(account="parent")
    assert meter.flush(30)
    meter.record(account="held by the parent")
child = os.fork()
if child == 0:
    before = meter.statistics
    assert (before.recorded, before.held) == (0, 0), before
    meter.record(account="child")
    assert meter.close(30), meter.statistics
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
meter.record(account="parent, later")
assert meter.close(30), meter.statistics
"""

FORK_WITH_SPOOL: Final = """
import os, sys
from tokenworks.client import Meter

meter = Meter(
    sys.argv[1], api_key=sys.argv[2], producer="p", flush_interval_seconds=60, spool=sys.argv[3],
)
report = None
if sys.argv[4] == "used":
    report = meter.begin(account="running")
    meter.record(account="parent")
    assert meter.flush(30)
    meter.record(account="held by the parent")
child = os.fork()
if child == 0:
    if report is not None:
        assert not report.finish(), "it is the parent's"
        del report
    meter.record(account="child")
    assert meter.close(30), meter.statistics
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
meter.record(account="parent, later")
if report is not None:
    assert report.finish()
assert meter.close(30), meter.statistics
"""

OUTLIVED: Final = """
import os, sys
from tokenworks.client import Meter

meter = Meter("127.0.0.1:1", api_key=sys.argv[1], producer="p", spool=sys.argv[2])
if os.fork() == 0:
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""

KILLED: Final = """
import sys
from tokenworks.client import Meter

meter = Meter("127.0.0.1:1", api_key=sys.argv[1], producer="p", spool=sys.argv[2])
report = meter.begin(account="running", input=7)
for i in range(100):
    meter.record(account=f"event {i}")
ended = meter.begin(account="ended", input=1)
ended.update(output=2)
assert meter.sync(30)
assert ended.finish(output=3)
report.update(output=5)
assert meter.sync(30)
print("ready", flush=True)
sys.stdin.read()
"""

UNCLOSED: Final = """
import sys
from tokenworks.client import Meter

meter = Meter(sys.argv[1], api_key=sys.argv[2], producer="p")
meter.record(account="first")
assert meter.flush(30)
meter.record(account="last")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.parametrize(
    ("before", "by_parent"),
    [
        ("unused", ["parent, later"]),
        ("used", ["parent", "held by the parent", "parent, later"]),
    ],
)
def test_fork__child_reports_for_itself(
    fake_meter: FakeMeter, before: str, by_parent: list[str]
) -> None:
    """Parent and child each report what they recorded themselves, under names of their own."""
    _run(FORK, fake_meter.target, API_KEY, before)
    accounts = sorted(str(event["account"]) for event in fake_meter.events)
    assert accounts == sorted([*by_parent, "child"])
    names = sorted(fake_meter.producers)
    assert names[0] == "p"
    assert names[1].startswith("p.")
    assert len(names) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.parametrize(
    ("before", "by_parent"),
    [
        ("unused", ["parent, later"]),
        ("used", ["parent", "held by the parent", "parent, later", "running"]),
    ],
)
def test_fork__child_takes_a_slot_of_its_own(
    fake_meter: FakeMeter, tmp_path: Path, before: str, by_parent: list[str]
) -> None:
    """With a spool each process has a folder and a name, and none sends what is another's."""
    _run(FORK_WITH_SPOOL, fake_meter.target, API_KEY, str(tmp_path), before)
    accounts = sorted(str(event["account"]) for event in fake_meter.events)
    assert accounts == sorted([*by_parent, "child"])
    assert sorted(fake_meter.producers) == ["p", "p.1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.1"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_fork__child_keeps_no_hold_of_the_parents_folder(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """A folder is free again when its process has died, though a child of that lives on."""
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVED, API_KEY, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(SECONDS_MAX) == 0
        client = make_client(spool=tmp_path)
        client.record()
        assert client.flush(WAIT_SECONDS)
        assert list(fake_meter.producers) == ["p"]


def test_kill__spooled_events_count_once(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """After a kill all that was on disk is counted, a running report with its last counts."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, API_KEY, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    for _ in range(2):
        client = make_client(spool=tmp_path)
        assert fake_meter.wait_for_events(102)
        assert client.close(WAIT_SECONDS)
    counted = Counter(str(event["account"]) for event in fake_meter.events)
    assert counted == Counter([*(f"event {i}" for i in range(100)), "running", "ended"])
    by_account = {event["account"]: event for event in fake_meter.events}
    assert by_account["ended"]["tokens"] == {1: 1, 7: 3}
    running = by_account["running"]
    assert running["tokens"] == {1: 7, 7: 5}
    assert (running["finish"], running["quality"]) == (Finish.FAILED, Quality.PARTIAL)


def test_exit__sends_what_is_held(fake_meter: FakeMeter) -> None:
    """A process that ends without closing its client still delivers."""
    _run(UNCLOSED, fake_meter.target, API_KEY)
    assert [event["account"] for event in fake_meter.events] == ["first", "last"]


def _run(program: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True,
        timeout=SECONDS_MAX,
    )
