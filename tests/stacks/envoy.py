"""A real Envoy for the tests, with the configuration that the guide shows."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.acceptance.counted import wait_until

ENVOY: Final = Path(sys.executable).parent / "envoy"
GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "vllm-envoy.md"
# What the guide's configuration has of callers: keys, and the accounts they are of.
CALLERS: Final[Mapping[str, str]] = {"acme": "sk-of-acme", "globex": "sk-of-globex"}
_SECONDS_MAX: Final = 30
_ADMIN: Final = "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n"
_FIRST_LOG: Final = "                access_log:\n"
_ROUTER: Final = "                  - name: envoy.filters.http.router\n"


def shown_file(guide: Path, name: str) -> str:
    """Return the file of this name as a guide shows it: the block after a line that names it."""
    found = re.search(
        rf"`{re.escape(name)}`[^\n]*:\n\n```[a-z]+\n(.*?)^```$",
        guide.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"{guide} shows no {name}"
    return found[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """A running Envoy, by host:port: where callers speak to it, and where it tells of itself."""

    address: str
    admin: str

    def counter(self, name: str) -> int:
        """Return one of its counters by its full name; 0 where it does not have it."""
        found = _get(self.admin, f"/stats?format=json&filter=^{re.escape(name)}$")
        return sum(int(each.get("value", 0)) for each in found["stats"])

    def counters(self, beginning: str) -> dict[str, int]:
        """Return all of its counters whose names begin so."""
        found = _get(self.admin, f"/stats?format=json&filter=^{re.escape(beginning)}")
        return {each["name"]: int(each["value"]) for each in found["stats"] if "value" in each}


@contextmanager
def running_envoy(
    *,
    folder: Path,
    engines: tuple[str, str],
    meter: str,
    api_key: str,
    with_otlp: bool = False,
    with_spans: bool = False,
    edits: Mapping[str, str] | None = None,
) -> Iterator[Envoy]:
    """An Envoy as the guide has it, for the time of the block; nothing but addresses is changed.

    `engines` and `meter` are host:port. `with_otlp` adds the guide's second log, `with_spans` its
    filter for engines' spans; `edits` are texts that a case changes beside, each there once.
    """
    folder.mkdir(exist_ok=True)
    key = folder / "tokenworks-key"
    key.write_text(f"Bearer {api_key}", "utf-8")
    text = shown_file(GUIDE, "envoy.yaml")
    for shown, real in {
        "address: 0.0.0.0, port_value: 8080": "address: 127.0.0.1, port_value: 0",
        "address: vllm-1, port_value: 8000": _socket(engines[0]),
        "address: vllm-2, port_value: 8000": _socket(engines[1]),
        "address: tokenworks, port_value: 7411": _socket(meter),
        "/etc/envoy/tokenworks-key": str(key),
        **(edits or {}),
    }.items():
        assert text.count(shown) == 1, shown
        text = text.replace(shown, real)
    if with_otlp:
        assert text.count(_FIRST_LOG) == 1
        text = text.replace(_FIRST_LOG, f"{_FIRST_LOG}{_shown_entry('otlp-log.yaml')}")
    if with_spans:
        assert text.count(_ROUTER) == 1
        text = text.replace(_ROUTER, f"{_shown_entry('spans.yaml')}{_ROUTER}")
    config = folder / "envoy.yaml"
    config.write_text(text + _ADMIN, "utf-8")
    with running_envoy_on(config) as envoy:
        yield envoy


def _shown_entry(name: str) -> str:
    """Return a file of the guide as an entry of a list in its `envoy.yaml`."""
    indent = " " * 18
    return indent + shown_file(GUIDE, name).replace("\n", f"\n{indent}").rstrip(" ")


@contextmanager
def running_envoy_on(config: Path) -> Iterator[Envoy]:
    """An Envoy with a configuration that has an admin port; its first listener is the address."""
    where, log = config.with_suffix(".admin"), config.with_suffix(".log")
    where.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                ENVOY,
                *("--config-path", config),
                *("--admin-address-path", where),
                *("--concurrency", "1"),
                *("--log-level", "warning"),
                "--use-dynamic-base-id",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield _find(process, where=where, log=log)
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()


def _find(process: "subprocess.Popen[bytes]", *, where: Path, log: Path) -> Envoy:
    found: list[Envoy] = []

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text("utf-8")
        if not where.exists() or not where.read_text("ascii"):
            return False
        admin = where.read_text("ascii")
        try:
            listeners = _get(admin, "/listeners?format=json")["listener_statuses"]
        except (URLError, OSError):
            return False
        if not listeners:
            return False
        socket = listeners[0]["local_address"]["socket_address"]
        address = f"{socket['address']}:{socket['port_value']}"
        found[:] = [Envoy(address=address, admin=admin)]
        return True

    wait_until(is_ready, seconds_max=_SECONDS_MAX, what="Envoy listens")
    return found[0]


def _get(admin: str, path: str) -> Any:  # noqa: ANN401
    with urlopen(f"http://{admin}{path}", timeout=_SECONDS_MAX) as answer:
        return json.loads(answer.read())


def _socket(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"address: {host}, port_value: {port}"
