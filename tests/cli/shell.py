"""Commands run as people run them, and what they print."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from click.testing import CliRunner, Result

from cli.main import tokenworks
from tests.acceptance.counted import COUNTED_SECONDS_MAX, wait_until
from tests.running_meter import TOKENWORKS, RunningMeter

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Output(NamedTuple):
    """What a process printed, its line ends as they came."""

    stdout: str
    stderr: str


class Shell:
    """Runs commands as somebody who may do everything, in this process or in one of their own."""

    def __init__(self, server: str, api_key: str) -> None:
        self._settings = {"TOKENWORKS_SERVER": server, "TOKENWORKS_API_KEY": api_key}

    def run(self, *words: str, code: int = 0) -> Result:
        """Run `tokenworks WORDS…`, which must end with this exit code."""
        result = CliRunner().invoke(tokenworks, words, env=self._settings)
        assert result.exit_code == code, result.output
        return result

    def run_process(self, *words: str, code: int = 0) -> Output:
        """Run `tokenworks WORDS…` as people do; line ends are kept."""
        result = subprocess.run(
            [TOKENWORKS, *words],
            env=os.environ | self._settings,
            capture_output=True,
            check=False,
        )
        assert result.returncode == code, (result.stdout, result.stderr)
        return Output(result.stdout.decode(), result.stderr.decode())

    def run_json(self, *words: str) -> Any:  # noqa: ANN401
        """Run `tokenworks WORDS… --json` and return what it printed."""
        return json.loads(self.run(*words, "--json").stdout)

    def record(self, *words: str, account: str = "acme", tier: str = "high") -> str:
        """Record an event of llama-4 and return its id."""
        event = ("--account", account, "--model", "llama-4", "--tier", tier)
        result = self.run_json("usage", "record", *event, *words)
        assert result["outcome"] == "RECORDED"
        return str(result["event_id"])

    def show(self, *words: str, requests: int) -> list[dict[str, Any]]:
        """Return the rows, once so many requests are counted."""
        rows: list[dict[str, Any]] = []

        def are_counted() -> bool:
            nonlocal rows
            rows = self.run_json("usage", "show", *words)["rows"]
            return bool(sum(row["request_count"] for row in rows) >= requests)

        wait_until(are_counted, seconds_max=COUNTED_SECONDS_MAX, what="all is counted")
        assert sum(row["request_count"] for row in rows) == requests
        return rows

    def run_in_terminal(self, *words: str, columns: int, code: int = 0) -> list[str]:
        """Run a command in a terminal of that width; return the lines that it printed."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = os.environ | self._settings | {"TERM": "xterm"}
        environment.pop("COLUMNS", None)
        process = subprocess.Popen(
            [TOKENWORKS, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        written = b"".join(_read(ours))
        os.close(ours)
        assert process.wait() == code
        return _STYLE.sub("", written.decode()).replace("\r\n", "\n").splitlines()


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            # Linux says so when the last one who could write has gone.
            return
        if not piece:
            return
        yield piece


def shell_of(meter: RunningMeter) -> Shell:
    """A shell of whoever may do everything, after the accounts acme, acme/team and other."""
    shell = Shell(meter.target, meter.api_key)
    for path in ("acme", "acme/team", "other"):
        shell.run("accounts", "create", path)
    return shell


def to_iso(time_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601, with the milliseconds unless they are none."""
    time = datetime.fromtimestamp(time_ms / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z").replace(".000", "")
