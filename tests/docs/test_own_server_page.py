"""The guide for a server of one's own: what it shows is run as it stands, against a real meter."""

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.client.asgi_server import ask, serving
from tests.running_meter import RunningMeter
from tests.stacks.openai_server import Plan
from tests.wire.session import Session
from tokenworks.client.answers import PROFILES_BY_PATH
from tokenworks.client.asgi import Caller, read_callers
from tokenworks.meter.v1 import usage_pb2

PAGE: Final = (Path(__file__).parents[2] / "docs/guides/own-server.md").read_text("utf-8")
ANY: Final = Plan(prompt=1, completion=1)
COUNTED: Final = {
    ("acme", "high", usage_pb2.TOKEN_CLASS_INPUT): 812,
    ("acme", "high", usage_pb2.TOKEN_CLASS_CACHE_READ): 1024,
    ("acme", "high", usage_pb2.TOKEN_CLASS_OUTPUT): 406,
}


@pytest.fixture
def environment(
    running_meter: RunningMeter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment as the page sets it, with this meter's address and key, and a folder here."""
    real = {
        "TOKENWORKS_SERVER": f"http://{running_meter.target}",
        "TOKENWORKS_API_KEY": running_meter.api_key,
        "TOKENWORKS_SPOOL": str(tmp_path / "spool"),
    }
    shown = dict(re.findall(r"^export (\w+)=(.*)$", _block("sh environment"), re.MULTILINE))
    assert real.keys() <= shown.keys()
    for name, value in (shown | real).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
def test_server__as_shown(running_meter: RunningMeter) -> None:
    """The server of the page, set up by its environment, is counted by the header's account."""
    session = Session(running_meter)
    session.create_account("acme")
    names: dict[str, Any] = {}
    exec(compile(_block("python server.py"), "server.py", "exec"), names)  # noqa: S102 - as shown
    with serving(names["app"]) as port:
        ask(port, ANY, stream=False, headers={"x-tokenworks-account": "acme"})
    assert session.counted() == COUNTED


def test_callers__as_shown(tmp_path: Path) -> None:
    """The file of callers is read as the page says, and the digest is that of its command."""
    path = tmp_path / "callers.toml"
    path.write_text(_block("toml callers.toml"), "utf-8")
    assert list(read_callers(path).values()) == [
        Caller(account="acme"),
        Caller(account="globex", tier="premium"),
    ]
    assert all(len(digest) == len(hashlib.sha256().hexdigest()) for digest in read_callers(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1", "is an account, or a table"),
        ("a = { account = 'x', teir = 'y' }", "is an account, or a table"),
        ("a = { tier = 'y' }", "without an account"),
        ("a = ", "Invalid value"),
    ],
)
def test_callers__that_make_no_sense(text: str, told: str, tmp_path: Path) -> None:
    """A file that would bill nobody, or the wrong one, is refused."""
    path = tmp_path / "callers.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=told):
        read_callers(path)


def test_paths__are_all_listed() -> None:
    """The page lists each path that is metered, with its profile."""
    rows = re.findall(r"^\| (`/v1/.*) \| `(\w+)` \|$", PAGE, re.MULTILINE)
    listed = {path: profile for paths, profile in rows for path in re.findall("`(.*?)`", paths)}
    assert listed == PROFILES_BY_PATH


def _block(name: str) -> str:
    found = re.search(rf"^```{re.escape(name)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]
