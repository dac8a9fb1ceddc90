"""A real Prometheus for the tests: Debian's, scraping one target every second."""

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.acceptance.counted import wait_until

START_SECONDS_MAX = 30
QUERY_SECONDS_MAX = 10
LISTENS = re.compile(r'msg="Listening on" address=(\S+)')

# A sample: its labels and its value.
Sample = tuple[dict[str, str], float]


class Prometheus:
    """A running Prometheus, asked by its HTTP API."""

    def __init__(self, address: str) -> None:
        """Take its host:port."""
        self._address = address

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{self._address}"

    def query(self, expression: str, *, at: datetime | None = None) -> list[Sample]:
        """The value of an expression, now or then; fails where it is wrong or gives a warning."""
        moment = {} if at is None else {"time": str(at.timestamp())}
        answer = self._get("query", query=expression, **moment)
        assert "warnings" not in answer, (expression, answer)
        assert answer["data"]["resultType"] == "vector", (expression, answer)
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def query_range(
        self, expression: str, *, begin: datetime, end: datetime, step: timedelta
    ) -> list[tuple[dict[str, str], dict[float, float]]]:
        """The values of an expression over time, by seconds since 1970; fails likewise."""
        answer = self._get(
            "query_range",
            query=expression,
            start=str(begin.timestamp()),
            end=str(end.timestamp()),
            step=str(step.total_seconds()),
        )
        assert "warnings" not in answer, (expression, answer)
        return [
            (each["metric"], {float(at): float(value) for at, value in each["values"]})
            for each in answer["data"]["result"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with how their last evaluation went."""
        groups = self._get("rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def alerts(self) -> set[str]:
        """The names of the alerts that are pending or fire."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["data"]["alerts"]}

    def _get(self, path: str, **arguments: str) -> dict[str, Any]:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=QUERY_SECONDS_MAX) as answer:
                content: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error
        return content


def running_prometheus(
    *, folder: Path, target: str, rules: Path
) -> AbstractContextManager[Prometheus]:
    """A Prometheus for the time of the block, which scrapes `target` and evaluates `rules`."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "tokenworks", "static_configs": [{"targets": [target]}]}],
    }
    return _running(config, folder=folder)


def reading_prometheus(*, folder: Path) -> AbstractContextManager[Prometheus]:
    """A Prometheus for the time of the block, which only reads the blocks in `prometheus` there.

    They have a sample each minute, and no mark where a series ends: it is not looked back for one.
    """
    return _running(
        {},
        # Blocks that are older than it keeps any are thrown away.
        "--storage.tsdb.retention.time=100y",
        "--query.lookback-delta=59s",
        folder=folder,
    )


@contextmanager
def _running(config: dict[str, Any], *flags: str, folder: Path) -> Iterator[Prometheus]:
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config), "utf-8")
    log = folder / "prometheus.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                "--web.listen-address=127.0.0.1:0",
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=written,
        )
    try:
        yield Prometheus(_find_address(process, log=log))
    finally:
        process.kill()
        process.wait()


def _find_address(process: subprocess.Popen[bytes], *, log: Path) -> str:
    """Wait until it listens, on a port of its own choice."""

    def is_ready() -> bool:
        text = log.read_text("utf-8")
        assert process.poll() is None, text
        return "Server is ready to receive web requests" in text

    wait_until(is_ready, seconds_max=START_SECONDS_MAX, what="Prometheus is ready")
    found = LISTENS.search(log.read_text("utf-8"))
    assert found is not None
    return found[1]
