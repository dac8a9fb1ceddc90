"""A real proxy of LiteLLM for the tests, with the configurations that the guide shows."""

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.acceptance.counted import wait_until
from tests.stacks.envoy import shown_file

LITELLM: Final = Path(__file__).parents[2] / ".venv-litellm" / "bin" / "litellm"
GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "litellm.md"
# Keys that the proxy knows, and the teams they are of; what LiteLLM's database would say.
KEYS: Final[Mapping[str, str]] = {"acme": "sk-of-acme", "globex": "sk-of-globex"}
MASTER_KEY: Final = "sk-of-nobodys-team"
_PORTS: Final = range(20_000, 30_000)
_START_SECONDS_MAX: Final = 200
_STOP_SECONDS_MAX: Final = 30
_AUTH: Final = """
from litellm.proxy._types import UserAPIKeyAuth

TEAMS = {teams!r}

async def check(request, api_key):
    if api_key not in TEAMS:
        raise ValueError("nobody's key")
    metadata = {{"tokenworks_tier": {tier!r}}} if TEAMS[api_key] else {{}}
    return UserAPIKeyAuth(api_key=api_key, team_id=TEAMS[api_key], metadata=metadata)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLlm:
    """A running proxy, by host:port."""

    address: str
    log: Path


@contextmanager
def running_litellm(
    *, folder: Path, engine: str, meter: str, api_key: str, tier: str
) -> Iterator[LiteLlm]:
    """A proxy that reports by configuration alone, as the guide has it.

    `engine` is the address of an OpenAI-compatible server, `meter` that of the HTTP port.
    """
    text = shown_file(GUIDE, "config.yaml").replace("https://tokenworks:7412", f"http://{meter}")
    with _running(text, folder=folder, engine=engine, api_key=api_key, tier=tier) as litellm:
        yield litellm


@contextmanager
def running_litellm_with_logger(
    *, folder: Path, engine: str, meter: str, api_key: str, tier: str
) -> Iterator[LiteLlm]:
    """A proxy with the guide's logger; `meter` is the address of the gRPC port."""
    folder.mkdir(exist_ok=True)
    callback = shown_file(GUIDE, "tokenworks_callback.py")
    for shown, real in {
        "tokenworks:7411": meter,
        "tw_…": api_key,
        "/var/lib/tokenworks": str(folder / "spool"),
    }.items():
        assert callback.count(shown) == 1, shown
        callback = callback.replace(shown, real)
    (folder / "tokenworks_callback.py").write_text(callback, "utf-8")
    text = shown_file(GUIDE, "config.yaml")
    before, _, rest = text.partition("litellm_settings:")
    _, _, after = rest.partition("general_settings:")
    text = f"{before}{_second_config()}\ngeneral_settings:{after}"
    with _running(text, folder=folder, engine=engine, api_key=api_key, tier=tier) as litellm:
        yield litellm


def _second_config() -> str:
    """Return what the guide has in place of `callbacks`."""
    found = GUIDE.read_text("utf-8").partition("in place of `callbacks`")[2]
    return found.partition("```yaml\n")[2].partition("```")[0]


@contextmanager
def _running(text: str, *, folder: Path, engine: str, api_key: str, tier: str) -> Iterator[LiteLlm]:
    folder.mkdir(exist_ok=True)
    for shown, real in {
        "http://vllm:8000": f"http://{engine}",
        "  master_key:": "  custom_auth: keys.check\n  master_key:",
    }.items():
        assert text.count(shown) == 1, shown
        text = text.replace(shown, real)
    config, log = folder / "config.yaml", folder / "litellm.log"
    config.write_text(text, "utf-8")
    teams = {**{key: team for team, key in KEYS.items()}, MASTER_KEY: None}
    (folder / "keys.py").write_text(_AUTH.format(teams=teams, tier=tier), "utf-8")
    port = _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TOKENWORKS_AUTHORIZATION": f"Bearer {api_key}",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        # Nothing is fetched, and nobody has to wait for 5 seconds.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [LITELLM, "--config", config, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    litellm = LiteLlm(address=f"127.0.0.1:{port}", log=log)
    try:
        _wait_until_ready(process, litellm)
        yield litellm
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", litellm: LiteLlm) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, litellm.log.read_text("utf-8")
        try:
            with urlopen(f"http://{litellm.address}/health/liveliness", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    wait_until(is_ready, seconds_max=_START_SECONDS_MAX, what="LiteLLM listens")


def _free_port() -> int:
    """Return a port for a server that takes half a minute until it listens.

    It is none of those that the machine gives to whoever connects meanwhile.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
