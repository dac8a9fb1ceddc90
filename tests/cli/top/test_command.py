"""`tokenworks top` as people and programs run it: against made pages, and against a real meter."""

import json
import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.credentials import Credentials, write_credentials
from cli.main import tokenworks
from cli.process import Exit
from tests.cli.shell import Shell, shell_of
from tests.cli.top.fake_metrics import Answer, moving, page_of, serving, write_page
from tests.cli.top.live import in_pipe, in_terminal
from tests.running_meter import TOKENWORKS, RunningMeter

ONCE = ("--once", "--every", "0.1")
ALT_SCREEN_ON, ALT_SCREEN_OFF = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


def _top(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(tokenworks, ["top", *words])
    assert result.exit_code == code, result.output
    return result


def test_once__as_json() -> None:
    """Two readings make one object, whose ratios do not depend on how long it took."""
    with serving(moving) as fake:
        found = json.loads(_top("--metrics", fake.url, *ONCE, "--json").stdout)
        assert fake.asked == 2
    assert found["metrics"] == fake.url
    assert (found["sandbox"], found["quarantine_held"]) == (False, 0)
    assert (found["sources_heard_seconds_ago"], found["engine_drifts"]) == ({}, [])
    assert found["seconds"] >= 0.1
    tiers = {row["tier"]: row for row in found["tiers"]}
    pools = {row["pool"]: row for row in found["pools"]}
    assert tiers["medium"]["tokens_per_joule"] == pytest.approx(7_300 / 2_800)
    assert tiers["high"]["revenue_per_mwh"] == {"USD": pytest.approx(0.0255 / 1_300 * 3.6e9)}
    assert pools["b200"]["attributed_ratio"] == pytest.approx(2_600 / 2_900)
    assert pools["b200"]["power_valid"] is True
    assert found["total"]["tokens_per_second"] == pytest.approx(39_270 / found["seconds"], rel=0.01)
    assert found["total"]["watts"] == pytest.approx(7_450 / found["seconds"], rel=0.01)


def test_once__nothing_to_divide_by() -> None:
    """What cannot be said is null, never 0 and never infinite."""
    labels = 'tier="high",pool="a"'
    text = f'tokenworks_tokens_total{{{labels}}} 5\ntokenworks_power_valid{{pool="a"}} 0'
    page = page_of(text)
    with serving(lambda _: page) as fake:
        found = json.loads(_top("--metrics", fake.url, *ONCE, "--json").stdout)
    (tier,), (pool,) = found["tiers"], found["pools"]
    assert tier["watts"] is tier["tokens_per_joule"] is pool["attributed_ratio"] is None
    assert (tier["revenue_per_mwh"], tier["tokens_per_second"]) == ({}, 0)
    assert pool["power_valid"] is False
    assert found["counting_behind_seconds"] is None


def test_once__restart_between() -> None:
    """When the meter starts anew between the two readings, one more is taken."""

    def page(asked: int) -> Answer:
        return page_of(write_page(asked, started=1.0 if asked == 0 else 2.0))

    with serving(page) as fake:
        found = json.loads(_top("--metrics", fake.url, *ONCE, "--json").stdout)
        assert fake.asked == 3
    assert found["total"]["tokens_per_joule"] == pytest.approx(10_470 / 7_450)


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_once__in_a_terminal(columns: int) -> None:
    """One table as wide as the terminal, in which no number is cut."""
    shell = Shell("127.0.0.1:1", "none")
    with serving(moving) as fake:
        lines = shell.run_in_terminal("top", "--metrics", fake.url, *ONCE, columns=columns)
    assert max(map(len, lines)) <= columns
    assert not [line for line in lines if "…" in line]
    words = " ".join(lines).split()
    assert {"medium", "free", "high", "premium", "b200", "rubin", "2.61", "36.4k"} <= set(words)
    assert ALT_SCREEN_ON not in "".join(lines)


def test_once__in_a_pipe() -> None:
    """Beyond a terminal the names are whole, and nothing steers one."""
    name = "a-tier-with-a-name-of-32-letters"
    with serving(
        lambda asked: page_of(write_page(asked, flows={(name, name * 2): (1, 2, 3.0, 4.0)}))
    ) as fake:
        shown = _top("--metrics", fake.url, *ONCE).stdout
    assert name in shown
    assert name * 2 in shown
    assert "\x1b" not in shown
    assert "trend" not in shown


def test_once__in_a_pipe_that_wants_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a pipe does not depend on what terminals are told."""
    with serving(moving) as fake:
        plain = _top("--metrics", fake.url, *ONCE).stdout.splitlines()
        monkeypatch.setenv("FORCE_COLOR", "1")
        shown = _top("--metrics", fake.url, *ONCE).stdout.splitlines()
    assert "\x1b" not in "".join(shown)
    assert max(map(len, shown)) == max(map(len, plain)) <= 100


def test_once__ascii() -> None:
    """A character set without bars is no reason to fail."""
    with serving(moving) as fake:
        shown = subprocess.run(
            [TOKENWORKS, "top", "--metrics", fake.url, *ONCE],
            env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            capture_output=True,
            check=True,
        ).stdout
    assert "2.61" in shown.decode("ascii")


def test_top__nobody_there() -> None:
    """When the first reading fails the command ends as unreachable, and says why."""
    with serving(moving) as fake:
        url = fake.url
    for words in ((), ("--once",), ("--json",)):
        said = _top("--metrics", url, *words, code=Exit.UNREACHABLE).stderr
        assert f"no metrics at {url}: connection refused" in said


def test_top__not_a_meter() -> None:
    """A page of something else is as good as none."""
    with serving(lambda _: page_of("<html>")) as fake:
        said = _top("--metrics", fake.url, code=Exit.UNREACHABLE).stderr
    assert "its page has no metrics of a meter" in said


def test_once__gone_between() -> None:
    """A server that goes away between the two readings is unreachable too."""

    def page(asked: int) -> Answer:
        return moving(asked) if asked == 0 else Answer(pieces=[], length=0, status=503)

    with serving(page) as fake:
        said = _top("--metrics", fake.url, *ONCE, code=Exit.UNREACHABLE).stderr
    assert f"no answer from {fake.address} since " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metrics", "127.0.0.1:7412"), "is no URL that begins with http:// or https://"),
        (("--metrics", "http://a:b@127.0.0.1"), "has a user name"),
        (("--metrics", "http://127.0.0.1:70000"), "--metrics"),
        (("--every", "0"), "0.1<=x<=86400"),
        (("--every", "nan"), "must be a number of seconds"),
        (("--window", "nan"), "must be a number of seconds"),
        (("--window", "inf"), "0.1<=x<=86400"),
        ((), "name the page with --metrics"),
    ],
)
def test_top__wrong_options(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read or waited for is a usage error."""
    monkeypatch.chdir(tmp_path)
    assert said in _top(*words, code=Exit.USAGE).stderr.replace("\n", " ")


def test_top__page_of_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the meter of the credentials file is watched, and its key is not sent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tokenworks").mkdir()
    with serving(moving) as fake:
        stored = Credentials(target="127.0.0.1:1", http=fake.address, api_key="tw_secret")
        write_credentials(tmp_path / ".tokenworks" / "credentials.json", stored)
        found = json.loads(_top(*ONCE, "--json").stdout)
        assert "tw_secret" not in str(fake.headers)
    assert found["metrics"] == fake.url


def test_json__a_line_each() -> None:
    """Every refresh is a line; a silence is told once on stderr, and afterwards it goes on."""
    with ExitStack() as stack:
        with serving(moving) as fake:
            port = fake.port
            words = ("--metrics", fake.url, "--json", "--every", "0.1")
            top = stack.enter_context(in_pipe(*words))
            first, second = top.read_json(), top.read_json()
            assert second["seconds"] > first["seconds"]
        said = top.stderr.readline()
        assert said.startswith(f"no answer from 127.0.0.1:{port} since ")
        assert "Z, trying again: connection refused" in said
        with serving(moving, port=port):
            while top.read_json()["seconds"] < 0.3:
                pass
        assert top.stderr.readline().startswith("no answer from ")
        assert top.stop(signal.SIGINT) == 0
        assert top.stderr.read() == ""


def test_json__silence_is_told_once() -> None:
    """However often it is tried in vain, a silence is one line."""

    def page(asked: int) -> Answer:
        return Answer(pieces=[], length=0, status=503) if 2 <= asked < 6 else moving(asked)

    words = ("--json", "--every", "0.1")
    with serving(page) as fake, in_pipe("--metrics", fake.url, *words) as top:
        for _ in range(2):
            top.read_json()
        assert fake.asked > 6
        assert top.stop(signal.SIGINT) == 0
        assert top.stderr.read().count("no answer") == 1


def test_piped__tables() -> None:
    """In a pipe one table follows another, until it is told to end."""
    with serving(moving) as fake, in_pipe("--metrics", fake.url, "--every", "0.1") as top:
        for _ in range(3):
            for line in iter(top.stdout.readline, ""):
                if "held in quarantine" in line:
                    break
        assert top.stop(signal.SIGTERM) == 0
        assert top.stderr.read() == ""
        assert "\x1b" not in top.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live__until_interrupted(number: signal.Signals) -> None:
    """In a terminal it has the screen to itself, and gives it back as it was, however it ends."""
    with serving(moving) as fake, in_terminal("--metrics", fake.url, "--every", "0.1") as top:
        top.read_until("held in quarantine")
        top.read_until("medium")
        assert ALT_SCREEN_ON in top.shown
        assert top.stop(number) == 0
        left = top.shown.rpartition(ALT_SCREEN_ON)[2]
        assert ALT_SCREEN_OFF in left
        assert SHOW_CURSOR in left
        assert "Traceback" not in top.shown


def test_live__server_gone() -> None:
    """A server that goes away is told on the screen, and when it is back its rates are."""
    with serving(moving) as fake:
        port = fake.port
        with in_terminal("--metrics", fake.url, "--every", "0.1") as top:
            top.read_until("held in quarantine")
            fake.page = lambda _: Answer(pieces=[b"x"], length=1, status=503)
            top.read_until(f"no answer from 127.0.0.1:{port} since ")
            top.read_until("trying again: HTTP status 503")
            begin = len(top.shown)
            fake.page = moving
            top.read_until("held in quarantine")
            while "no answer" in top.shown[begin:].rpartition("tokenworks top")[2]:
                top.read_until("held in quarantine")
            assert top.stop(signal.SIGINT) == 0


def test_live__nobody_there() -> None:
    """A first reading that fails leaves the terminal as it is, with the reason."""
    with serving(moving) as fake:
        url = fake.url
    with in_terminal("--metrics", url) as top:
        top.read_until("no metrics at")
        assert ALT_SCREEN_ON not in top.shown


def test_top__of_a_running_meter(running_meter: RunningMeter) -> None:
    """What a real meter counts appears as rates of its tier; a restart is a new window."""
    shell = shell_of(running_meter)
    url = f"http://{running_meter.http}/metrics"
    with in_pipe("--metrics", url, "--json", "--every", "0.1", "--window", "600") as top:
        assert top.read_json()["total"]["tokens_per_second"] == 0
        shell.record("--input", "1000", "--output", "500", "--pool", "b200")
        while not (found := top.read_json())["tiers"]:
            pass
        (tier,), (pool,) = found["tiers"], found["pools"]
        assert (tier["tier"], pool["pool"]) == ("high", "b200")
        assert tier["tokens_per_second"] == pytest.approx(1_500 / found["seconds"], rel=0.01)
        assert tier["output_tokens_per_second"] == pytest.approx(500 / found["seconds"], rel=0.01)
        assert (pool["watts"], pool["power_valid"]) == (None, None)
        seconds = found["seconds"]
        running_meter.restart()
        while (found := top.read_json())["seconds"] >= seconds:
            pass
        assert found["total"]["output_tokens_per_second"] == 0
        shell.record("--output", "7")
        while not (found := top.read_json())["total"]["output_tokens_per_second"]:
            pass
        output = found["total"]["output_tokens_per_second"] * found["seconds"]
        assert output == pytest.approx(7, rel=0.01)
        assert top.stop(signal.SIGINT) == 0
