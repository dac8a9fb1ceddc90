"""The image: its steps are run, and what they install serves as the chart's pods do."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres import Cluster
from tests.running_meter import PEPPER
from tests.stacks.chart import MINIMAL, Engine, find_pod
from tests.stacks.image import ROOT, Builder, Image, is_sent, read_steps

# Some hundred megabytes are fetched and laid out.
pytestmark = [pytest.mark.stacks, pytest.mark.timeout(600)]
COMMAND_SECONDS_MAX = 60
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
# A pin with all of its hashes; where it holds may be said otherwise.
PIN = re.compile(r"^([\w-]+)==(\S+).*((?:\n .*)*)", re.MULTILINE)
FILES = ["constraints.txt", "constraints-image.txt"]
BUILT_WITH = {"hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the steps of the Dockerfile come to."""
    return Builder(tmp_path_factory.mktemp("image")).build(DOCKERFILE)


def test_pins__are_those_that_are_tested() -> None:
    """What an image installs is what the tests ran with, to the hash."""
    pins = {name: PIN.findall((ROOT / name).read_text("utf-8")) for name in FILES}
    assert pins["constraints-image.txt"]
    assert set(pins["constraints-image.txt"]) <= set(pins["constraints.txt"])
    names = {name for name, *_ in pins["constraints-image.txt"]}
    assert {"numpy", "grpcio", "psycopg-binary", "pyarrow"} <= names
    assert not {"pytest", "mypy", "matplotlib", "grpcio-tools"} & names


def test_dockerfile__is_plain() -> None:
    """Nothing is fetched past the pins, no secret is an argument, and nobody is root."""
    steps = list(read_steps(DOCKERFILE))
    assert [it.instruction for it in steps].count("FROM") == 2
    for step in steps:
        assert not re.search(r"\b(curl|wget|apt|apk|ADD)\b", f"{step.instruction} {step.words}")
    installs = [it.words for it in steps if "pip install" in it.words]
    assert all("--require-hashes" in it or "--no-deps" in it for it in installs)
    arguments = {it.words.partition("=")[0] for it in steps if it.instruction == "ARG"}
    assert arguments == {"PYTHON", "VERSION", "REVISION"}
    assert not is_sent(".git")
    assert not is_sent("build")


def test_image__says_what_it_is(image: Image, engine: Engine) -> None:
    """User, ports and labels are those that the chart, and whoever looks at it, reckon with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {name.rpartition(".")[2]: text for name, text in image.labels.items()}
    assert (named["title"], named["version"]) == (project["name"], project["version"])
    assert named["licenses"] == project["license"]
    deployment = engine.get("Deployment", values=MINIMAL)
    pod = find_pod(deployment)
    assert pod is not None
    context = pod["securityContext"]
    assert image.said["USER"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    ports = [str(it["containerPort"]) for it in pod["containers"][0]["ports"]]
    assert image.said["EXPOSE"].split() == ports
    command = json.loads(image.said["ENTRYPOINT"]) + json.loads(image.said["CMD"])
    assert command == pod["containers"][0]["command"]
    assert image.said["FROM"].startswith("python:3.11-slim")


def test_image__has_only_what_runs(image: Image) -> None:
    """What built it is gone, pip too; what is left is what the pins name, and our two packages."""
    listed = _run(image, "python", "-c", _LIST).stdout.replace("_", "-").split()
    pinned = {name for name, *_ in PIN.findall((ROOT / FILES[1]).read_text("utf-8"))}
    expected = pinned - BUILT_WITH - {"tzdata"} | {"tokenworks", "tokenworks-client"}
    assert set(listed) == expected
    assert not [path for path in image.programs.iterdir() if path.name.startswith("pip")]


def test_image__is_not_the_tree(image: Image) -> None:
    """Its modules are its own: an image that needs this tree would be none."""
    found = _run(image, "python", "-c", "import meter, tokenworks.client as c; print(c.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(image.root)
    assert _run(image, "tokenworks", "version").stdout.strip() == image.labels[_VERSION]


def test_image__serves(image: Image, cluster: Cluster, tmp_path: Path) -> None:
    """On an empty database it migrates, serves, is healthy by its own check, and ends."""
    pepper = tmp_path / "pepper"
    pepper.write_text(PEPPER.hex(), "ascii")
    with cluster.database(template="template0") as url:
        told = {"TOKENWORKS_DATABASE_URL": url, "TOKENWORKS_KEY_PEPPER_FILE": str(pepper)}
        upgraded = _run(image, "tokenworks", "db", "upgrade", told=told)
        assert "applied 0001" in upgraded.stdout
        with _serving(image, told) as http:
            _, _, check = image.said["HEALTHCHECK"].partition("CMD ")
            program, *words = [it.replace("127.0.0.1:7412", http) for it in json.loads(check)]
            assert _run(image, program, *words).returncode == 0


_VERSION = "org.opencontainers.image.version"
_LIST = "from importlib.metadata import distributions as d; print(*(i.name.lower() for i in d()))"


@contextmanager
def _serving(image: Image, told: dict[str, str]) -> Iterator[str]:
    """The image's own command, for the time of the block; gives the address of HTTP."""
    command = json.loads(image.said["ENTRYPOINT"]) + json.loads(image.said["CMD"])
    ports = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(
        [image.programs / command[0], *command[1:], *ports],
        env=_environment(image) | told,
        cwd=image.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["http"]
        process.terminate()
        assert process.wait(timeout=COMMAND_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.communicate()


def _environment(image: Image) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    said = {name: text for name, text in image.environment.items() if name != "PATH"}
    return {**kept, **said, "PATH": f"{image.programs}:/usr/bin:/bin"}


def _run(
    image: Image, program: str, *words: str, told: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [image.programs / program, *words],
        env=_environment(image) | (told or {}),
        cwd=image.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
