"""The client's distribution by itself, as a customer installs it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.client.reporting import ACCOUNT, create_account
from tests.running_meter import RunningMeter

SDK: Final = Path(__file__).resolve().parents[2] / "sdk"
# What comes along: our two dependencies, and what gRPC itself needs.
EXPECTED: Final = {"tokenworks-client", "grpcio", "protobuf", "typing-extensions"}

REPORT: Final = """
import json, sys
from tokenworks.client import Meter

with Meter(sys.argv[1], api_key=sys.argv[2], producer="wheel") as meter:
    for i in range(3):
        meter.record(account=sys.argv[3], model="m", tier="high", input=10, output=i)
    meter.record_usage(
        {"prompt_tokens": 10, "completion_tokens": 4}, profile="openai",
        account=sys.argv[3], model="m", tier="high",
    )
statistics = meter.statistics
print(json.dumps([statistics.acknowledged, statistics.set_aside, statistics.dropped]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdk folder alone."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(SDK))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it asked for."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    _pip("--python", str(python), "install", "--only-binary", ":all:", str(wheel))
    return python


def test_wheel__holds_the_client_and_nothing_else(wheel: Path) -> None:
    """The wheel has the client, the generated stubs, their types, and its licence."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "tokenworks",
        "tokenworks_client",
    }
    for wanted in ("client/meter.py", "client/spool/spool.py", "meter/v1/usage_pb2.py", "py.typed"):
        assert f"tokenworks/{wanted}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.stacks
def test_wheel__brings_grpc_and_protobuf_only(empty_python: Path) -> None:
    """Whoever installs the client gets gRPC and protobuf with it, and no more."""
    listed = json.loads(_pip("--python", str(empty_python), "list", "--format", "json"))
    assert {package["name"].lower().replace("_", "-") for package in listed} == EXPECTED


@pytest.mark.stacks
def test_wheel__reports_to_a_running_meter(empty_python: Path, running_meter: RunningMeter) -> None:
    """The installed client reports, and every event is on the meter's disk, none set aside."""
    create_account(running_meter)
    where = (running_meter.target, running_meter.api_key, ACCOUNT)
    reported = subprocess.run(
        [empty_python, "-I", "-W", "error", "-c", REPORT, *where],
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert json.loads(reported.stdout) == [4, 0, 0]


def _pip(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout
