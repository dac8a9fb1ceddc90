"""`tokenworks producers list|register|retire`, and what `usage show` says of silent ones."""

import json
from pathlib import Path

import pytest

from cli.process import Exit
from tests.cli.shell import Shell, shell_of
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import read_metric, talking, wait_until
from tokenworks.meter.v1 import meter_service_pb2

BEAT = meter_service_pb2.StreamUsageRequest(heartbeat=meter_service_pb2.Heartbeat())


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


def table_of(shell: Shell, *words: str) -> list[list[str]]:
    """Return the rows of the list, without its heading."""
    shown = shell.run("producers", "list", *words).stdout
    return [line.split() for line in shown.splitlines() if line.strip(" ─")][1:]


def test_producers__register_list_retire(shell: Shell, running_meter: RunningMeter) -> None:
    """What is announced, reports and ends is listed as such, with what it lacks."""
    shell.run("producers", "register", "worker-1", "--account", "acme/team")
    told = shell.run("producers", "register", "worker-2").stdout
    assert [line.split(maxsplit=1) for line in told.splitlines()] == [
        ["producer", "worker-2"],
        ["account", "-"],
        ["state", "registered"],
        ["heard", "never"],
        ["recorded", "0"],
    ]
    Session(running_meter).exchange(opening("worker-3", first_sequence=4), rows(4, event()))
    table = table_of(shell)
    assert [row[1:3] for row in table] == [
        ["worker-2", "registered"],
        ["worker-3", "retired"],
        ["worker-1", "registered"],
    ]
    assert table[1][-3:] == ["4", "0", "3"]
    assert [row[1] for row in table_of(shell, "--account", "acme/team")] == ["worker-1"]
    assert [row[1] for row in table_of(shell, "--state", "retired")] == ["worker-3"]
    assert table_of(shell, "--silent") == []
    (said,) = shell.run_json("producers", "list", "--state", "retired")
    assert [(gap["first_sequence"], gap["last_sequence"]) for gap in said["gaps"]] == [(1, 3)]
    assert (said["state"], said["missing_batch_count"]) == ("retired", 3)
    assert said["seen_time"] > said["create_time"]
    assert shell.run_json("producers", "retire", "worker-2")["state"] == "retired"


def test_producers__refusals(shell: Shell, running_meter: RunningMeter) -> None:
    """A name that nobody has, or that reports at this moment, is not retired."""
    missing = shell.run("producers", "retire", "nobody", code=Exit.FAILED)
    assert "PRODUCER_NOT_FOUND" in missing.stderr
    with talking(Session(running_meter)) as talk:
        talk.say(opening("worker"))
        talk.hear()
        wait_until(lambda: table_of(shell)[0][2] == "active")
        refused = shell.run("producers", "retire", "worker", code=Exit.REFUSED)
        assert "RETIRE_REFUSED" in refused.stderr
    wrong = shell.run("producers", "register", "bad name", code=Exit.USAGE)
    assert "ARGUMENT_INVALID" in wrong.stderr


def test_silence__is_unknown_and_not_zero(database_url: str, tmp_path: Path) -> None:
    """A producer that was killed shows in the list, the metrics, and beside every sum of usage."""
    settings = {"silence_seconds": "10"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        shell, session = shell_of(meter), Session(meter)
        with talking(session) as talk:
            talk.say(opening("alive"))
            shell.run("producers", "register", "never-came")
            with talking(session) as killed:
                killed.say(opening("killed"))
                killed.hear()
                # Its side of the stream stays open: an end in good order would retire it.
                killed.cut()
            # The others say something all the time: a live stream is heard by its heartbeats.
            silent = "tokenworks_producers_silent"

            def is_found() -> bool:
                talk.say(BEAT)
                talk.hear()
                return read_metric(meter, silent) == 2

            wait_until(is_found)
            rows_found = table_of(shell, "--silent")
            assert [row[1:4] for row in rows_found] == [
                ["killed", "active,", "SILENT"],
                ["never-came", "registered,", "SILENT"],
            ]
            shown = shell.run("usage", "show")
            assert "2 producers are silent: usage since 20" in shown.stderr
            assert "is unknown, not zero" in shown.stderr
            said = json.loads(shell.run("usage", "show", "--json").stdout)
            assert said["silent_producer_count"] == 2
            assert said["heard_until"] < said["counted_until"]
        shell.run("producers", "retire", "never-came")
        shell.run("producers", "retire", "killed")
        wait_until(lambda: read_metric(meter, silent) == 0)
        assert "silent" not in shell.run("usage", "show").stderr
