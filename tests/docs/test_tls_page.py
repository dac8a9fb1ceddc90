"""The page on TLS: its commands make certificates, bind a key, renew and revoke."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.settings import Settings
from tests.authority import needs_openssl
from tests.running_meter import TOKENWORKS, RunningMeter, running_meter_on
from tests.wire.talk import wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs/operating/tls.md"
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = "meter.factory.example:7411"


class Operator:
    """Somebody who types what the page says, in one shell and one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"PATH": f"{TOKENWORKS.parent}:{os.environ['PATH']}"}

    def type(self, block: str) -> str:
        """Run a block, keep what it exports, and return what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{block}\nprintf '\\0'\nenv -0"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        printed, *variables = done.stdout.split("\0")
        self.environment = dict(it.split("=", 1) for it in variables if "=" in it)
        return printed

    def settings(self, text: str) -> dict[str, str]:
        """Return the settings of the page, in this folder and on free ports."""
        given: Mapping[str, object] = tomllib.loads(text)
        assert given["grpc_address"] == "0.0.0.0:7411"
        return {
            name: str(value).lower() if isinstance(value, bool) else str(self.folder / str(value))
            for name, value in given.items()
            if not name.endswith("_address")
        }


@pytest.mark.stacks
@needs_openssl
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash, which runs the page's commands")
def test_page__commands_do_what_it_says(database_url: str, tmp_path: Path) -> None:
    """From no certificate to a bound key, a renewal without a restart, and a revocation."""
    blocks = SHELL.findall(PAGE.read_text("utf-8"))
    make, issue, show, bind, use, renew, revoke = blocks
    (toml,) = TOML.findall(PAGE.read_text("utf-8"))
    operator = Operator(tmp_path)
    operator.type(make)
    operator.type(issue)
    settings = operator.settings(toml)
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as running:
        operator.environment["TOKENWORKS_API_KEY"] = running.api_key
        operator.type(show.replace(NAME, running.target))
        assert "spiffe://factory/ns/gateway" in operator.type(bind)
        assert "TOKENWORKS_API_KEY" in operator.environment
        operator.type(use)
        assert "TOKENWORKS_API_KEY" not in operator.environment
        operator.type(renew)
        wait_until(lambda: "certificate_read" in running.log.read_text("utf-8"))
        operator.type("tokenworks accounts list")
        _revoke(operator, running, block=revoke)


def test_page__names_settings_that_there_are() -> None:
    """Each setting that the page names is one, by its variable and in its file."""
    text = PAGE.read_text("utf-8")
    known = {field.upper() for field in Settings.__dataclass_fields__}
    named = set(re.findall(r"TOKENWORKS_([A-Z_]+)", text))
    assert named <= known
    (toml,) = TOML.findall(text)
    assert {name.upper() for name in tomllib.loads(toml)} <= known


def _revoke(operator: Operator, running: RunningMeter, *, block: str) -> None:
    """Revoke the key as the page says, with the installation's own; the certificate is out."""
    operator.environment["TOKENWORKS_API_KEY"] = running.api_key
    assert "key_" in operator.type(block)
    del operator.environment["TOKENWORKS_API_KEY"]
    refused = subprocess.run(
        ["tokenworks", "accounts", "list"],
        cwd=operator.folder,
        env=operator.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, "API_KEY_REVOKED" in refused.stderr) == (3, True), refused.stderr
