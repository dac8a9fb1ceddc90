"""`tokenworks simulate --site`, as its user runs it, against a real meter."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from cli.main import tokenworks
from cli.process import Exit
from cli.simulate.site.truth import read_truth
from tests.cli.shell import Shell
from tests.running_meter import TOKENWORKS, RunningMeter
from tests.simulate.fake_meter import API_KEY, FakeMeter, running

SMALL = ("--site", "200kW")
COMMAND_SECONDS_MAX = 100
PNG = b"\x89PNG"
TOTAL = (
    "SELECT sum(request_count)::int, sum(input + cache_read + output + reasoning)::bigint"
    " FROM usage"
)


def test_simulate_site__closes(running_meter: RunningMeter, tmp_path: Path) -> None:
    """Tokens, energy and dollars of a site are those of its truth files, and it is drawn."""
    picture = tmp_path / "site.png"
    with _site(running_meter, tmp_path, minutes="0.05", picture=picture) as process:
        answer = _ended(process, code=0)
    truth = read_truth(tmp_path / "truth")
    assert (answer["closes"], answer["faults"]) == (True, [])
    assert answer["producers"] == 5
    # Three seconds of five servers, which together have 140 requests in an average one.
    assert answer["events"] == {"sent": truth.events.total(), "counted": truth.events.total()}
    assert 300 < truth.events.total() < 600
    assert answer["energy_mj"]["measured"] == truth.energy_mj.total() > 0
    assert answer["energy_mj"]["site_measured"] == truth.facility_mj > truth.energy_mj.total()
    assert answer["money"] == answer["oracle_money"]
    assert set(truth.events) == set(answer["tiers"])
    with psycopg.connect(running_meter.database_url) as connection:
        total = connection.execute(TOTAL).fetchone()
    assert total == (truth.events.total(), truth.tokens.total())
    assert picture.read_bytes().startswith(PNG)
    # Its servers have ended in good order: nobody waits for them.
    shell = Shell(running_meter.target, running_meter.api_key)
    listed = shell.run_json("producers", "list")
    assert {it["state"] for it in listed} == {"retired"}
    # Its keys are of no use any more.
    keys = [it for it in shell.run_json("keys", "list") if "simulated" in it["description"]]
    assert len(keys) == 5
    assert all(it["end_time"] for it in keys)


def test_simulate_site__meter_killed(running_meter: RunningMeter, tmp_path: Path) -> None:
    """A meter that is killed in the middle loses nothing, and counts nothing twice."""
    with _site(running_meter, tmp_path, minutes="0.1") as process:
        _wait_until_served(process)
        running_meter.restart()
        answer = _ended(process, code=0)
    assert answer["closes"]
    assert answer["broken_streams"] > 0
    assert answer["events"]["counted"] == read_truth(tmp_path / "truth").events.total()


def test_simulate_site__does_not_close(running_meter: RunningMeter, tmp_path: Path) -> None:
    """A token that is in the sums and in no truth file is named, with the money that it makes."""
    shell = Shell(running_meter.target, running_meter.api_key)
    with _site(running_meter, tmp_path, minutes="0.05", as_json=False) as process:
        _wait_until_served(process)
        account = json.loads((tmp_path / "truth/site.json").read_text("utf-8"))["batches"][0]
        stranger = min(account["tokens"])
        event = ("--account", stranger, "--model", "stray", "--tier", "ultra", "--output", "1000")
        shell.run("usage", "record", *event)
        printed, told = process.communicate(timeout=COMMAND_SECONDS_MAX)
    assert process.returncode == Exit.FAILED
    lines = [line for line in printed.splitlines() if line.startswith("DIFFERENT")]
    assert len(lines) == 3
    assert "requests: " in lines[0]
    assert f"tokens of {stranger}, stray, ultra, output: 0 sent, 1,000 counted" in lines[1]
    assert "dollars of ultra: " in lines[2]
    assert "the totals do not close: 3 differences" in told


def test_simulate_site__interrupted(running_meter: RunningMeter, tmp_path: Path) -> None:
    """Ctrl-C ends a site early: what was sealed by then is sent, and closes."""
    with _site(running_meter, tmp_path, minutes="5") as process:
        _wait_until_served(process)
        process.send_signal(signal.SIGINT)
        answer = _ended(process, code=0)
    assert answer["closes"]
    assert answer["events"]["counted"] == read_truth(tmp_path / "truth").events.total() > 0


def test_simulate_site__killed(running_meter: RunningMeter, tmp_path: Path) -> None:
    """Who is told to end does so at once: its keys are of no use any more, its folder is gone."""
    with subprocess.Popen(
        [TOKENWORKS, "simulate", *SMALL, "--minutes", "10"],
        env={**running_meter.environment, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _wait_until_served(process)
        assert len(list(tmp_path.glob("tokenworks-simulate-*/sent.jsonl"))) == 1
        process.terminate()
        process.communicate(timeout=COMMAND_SECONDS_MAX)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.glob("tokenworks-simulate-*")) == []
    keys = Shell(running_meter.target, running_meter.api_key).run_json("keys", "list")
    assert all(it["end_time"] for it in keys if "simulated" in it["description"])


def test_simulate_site__key_revoked(running_meter: RunningMeter, tmp_path: Path) -> None:
    """A refusal that no repetition mends ends the site, and says which server was refused why."""
    shell = Shell(running_meter.target, running_meter.api_key)
    with _site(running_meter, tmp_path, minutes="1") as process:
        _wait_until_served(process)
        for key in shell.run_json("keys", "list"):
            if "site-high" in key["description"]:
                shell.run("keys", "revoke", key["key_id"])
        _, told = process.communicate(timeout=COMMAND_SECONDS_MAX)
    assert process.returncode == Exit.FAILED
    assert "Error: site-high-1-1: " in told
    assert "(API_KEY_REVOKED)" in told


def test_simulate_site__in_a_sandbox() -> None:
    """A sandbox is refused: its clock stands still."""
    with running(FakeMeter(driven_ms=1_790_812_800_000)) as meter:
        done = _invoke(meter.target, *SMALL)
        assert meter.accounts == {}
    assert done.exit_code == Exit.USAGE
    assert "this meter is a sandbox" in done.output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--site", "1TW"), "must be a number and kW, MW or GW"),
        (("--site", "11GW"), "must be 100kW to 10GW"),
        ((*SMALL, "--minutes", "0"), "--minutes"),
        ((*SMALL, "--minutes", "nan"), "--minutes"),
        ((*SMALL, "--servers", "4"), "--servers: not with --site"),
        ((*SMALL, "--speed", "0", "--pools", "a"), "--pools, --speed: not with --site"),
        ((*SMALL, "--accounts", "a"), "--accounts: not with --site"),
        (("--minutes", "10"), "--minutes: only with --site"),
        (("--picture", "site.png"), "--picture: only with --site"),
        ((*SMALL, "--trace", "bad.csv"), "bad.csv:2: "),
    ],
)
def test_simulate_site__refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], named: str
) -> None:
    """What makes no sense together is refused with its name, and nothing is opened."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\ntoday,1,1\n", "utf-8"
    )
    with running(FakeMeter()) as meter:
        done = _invoke(meter.target, *options)
        assert meter.accounts == {}
    assert done.exit_code == Exit.USAGE
    assert named in done.output


def test_simulate_site__without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants a picture and has nothing to draw it with is told so before the run."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with running(FakeMeter()) as meter:
        done = _invoke(meter.target, *SMALL, "--picture", "site.png")
        assert meter.accounts == {}
    assert done.exit_code == Exit.USAGE
    assert "tokenworks[demo]" in done.output


@contextmanager
def _site(
    meter: RunningMeter,
    folder: Path,
    *,
    minutes: str,
    picture: Path | None = None,
    as_json: bool = True,
) -> Iterator["subprocess.Popen[str]"]:
    """A small site that runs; what is left of it is ended with the block."""
    options = [*SMALL, "--minutes", minutes, "--out", str(folder / "truth")]
    options += [] if picture is None else ["--picture", str(picture)]
    options += ["--json"] if as_json else []
    with subprocess.Popen(
        [TOKENWORKS, "simulate", *options],
        env=meter.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_until_served(process: "subprocess.Popen[str]") -> None:
    """Read what it tells until all its streams are open, and batches go out."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("0:0"):
            return
    raise AssertionError("it has ended before")


def _ended(process: "subprocess.Popen[str]", *, code: int) -> Any:  # noqa: ANN401 - JSON
    printed, told = process.communicate(timeout=COMMAND_SECONDS_MAX)
    assert process.returncode == code, told
    return json.loads(printed)


def _invoke(target: str, *options: str) -> Any:  # noqa: ANN401 - click's own type
    return CliRunner().invoke(
        tokenworks, ["simulate", "--server", target, "--api-key", API_KEY, *options]
    )
