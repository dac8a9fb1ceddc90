"""What becomes of a client when its process forks, and when it ends."""

import subprocess
import sys
from typing import Final

import pytest

from tests.client.fake_meter import API_KEY, FakeMeter

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
