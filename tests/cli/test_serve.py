"""`tokenworks serve` as production runs it: a process of its own on a database of its own."""

import os
import shutil
import socket
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from cli.connection import connect
from cli.meter_process import check_ports, make_options, refuse_exposure
from cli.process import CommandError, Exit
from cli.settings import Settings
from tests.postgres import Cluster
from tests.running_meter import PEPPER, TOKENWORKS, RunningMeter, running_meter_on
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest


@pytest.fixture
def pepper_file(tmp_path: Path) -> Path:
    """A file with a key pepper."""
    path = tmp_path / "pepper"
    path.write_text(PEPPER.hex())
    return path


def test_serve__migrated_database(running_meter: RunningMeter) -> None:
    """It serves gRPC to commands and HTTP to Prometheus, and ends on SIGTERM with 0."""
    assert _ask(running_meter) == 0
    with urllib.request.urlopen(f"http://{running_meter.http}/metrics") as answer:
        assert answer.status == 200
    assert running_meter.stop() == 0


def test_serve__killed_and_restarted(running_meter: RunningMeter) -> None:
    """After kill -9 it serves again on the same ports, under the same API keys."""
    target = running_meter.target
    running_meter.kill()
    assert _ask(running_meter) == Exit.UNREACHABLE
    running_meter.restart()
    assert running_meter.target == target
    assert _ask(running_meter) == 0


def test_serve__wrong_api_key(empty_meter: RunningMeter) -> None:
    """A command with a wrong API key is refused by a rule."""
    assert _ask(empty_meter, api_key="x") == Exit.REFUSED


def test_serve__database_not_migrated(cluster: Cluster, pepper_file: Path) -> None:
    """It changes no schema: it names the command that does, and ends."""
    with cluster.database(template="template0") as url:
        refused = _serve(database_url=url, key_pepper_file=str(pepper_file))
        assert refused.returncode == 1
        assert "tokenworks db upgrade" in refused.stderr
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,)


def test_serve__no_database_named(pepper_file: Path) -> None:
    """Without a database it does not start one: it names the setting."""
    refused = _serve(key_pepper_file=str(pepper_file))
    assert (refused.returncode, "TOKENWORKS_DATABASE_URL" in refused.stderr) == (2, True)


def test_serve__no_pepper_named(database_url: str) -> None:
    """Without the key pepper no API key could be checked: it names the setting."""
    refused = _serve(database_url=database_url)
    assert (refused.returncode, "TOKENWORKS_KEY_PEPPER_FILE" in refused.stderr) == (2, True)


@pytest.mark.parametrize("text", ["abcd", "not hexadecimal", ""])
def test_serve__bad_pepper(database_url: str, pepper_file: Path, text: str) -> None:
    """A pepper that is short or no number is refused by the name of its file."""
    pepper_file.write_text(text)
    refused = _serve(database_url=database_url, key_pepper_file=str(pepper_file))
    assert (refused.returncode, str(pepper_file) in refused.stderr) == (1, True)


@pytest.mark.parametrize("setting", ["grpc_address", "http_address"])
def test_serve__port_taken(database_url: str, pepper_file: Path, setting: str) -> None:
    """A taken port ends it with the name of the flag to change."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
        given[setting] = f"127.0.0.1:{other.getsockname()[1]}"
        refused = _serve(database_url=database_url, key_pepper_file=str(pepper_file), **given)
    assert refused.returncode == 1
    assert f"--{setting.replace('_', '-')}" in refused.stderr


@pytest.mark.parametrize("setting", ["grpc_address", "http_address"])
def test_serve__other_machines_in_the_clear(
    database_url: str, pepper_file: Path, setting: str
) -> None:
    """It does not let other machines in without TLS."""
    refused = _serve(
        database_url=database_url, key_pepper_file=str(pepper_file), **{setting: "[::]:0"}
    )
    assert (refused.returncode, "--insecure" in refused.stderr) == (3, True)


@pytest.mark.parametrize("is_told", [True, False])
def test_refuse_exposure__http_has_to_be_tls_too(*, is_told: bool) -> None:
    """A certificate for gRPC does not let other machines read metrics in the clear."""
    settings = Settings(
        grpc_address="[::]:0",
        http_address="[::]:0",
        tls_certificate=Path("tls.crt"),
        tls_key=Path("tls.key"),
        http_tls=is_told,
    )
    if is_told:
        refuse_exposure(settings)
        return
    with pytest.raises(CommandError, match="and TOKENWORKS_HTTP_TLS") as refusal:
        refuse_exposure(settings)
    assert refusal.value.exit_code == Exit.REFUSED
    refuse_exposure(replace(settings, insecure=True))


@pytest.mark.parametrize(
    "exposed", [Settings(otlp_grpc_address="[::]:0"), Settings(otlp_http_address="[::]:0")]
)
def test_refuse_exposure__of_otlp(exposed: Settings) -> None:
    """What OpenTelemetry is taken at is let out as the other ports are, and only where it is on."""
    refuse_exposure(exposed)
    with pytest.raises(CommandError, match=r"\[::\]:0 can be reached") as refusal:
        refuse_exposure(replace(exposed, otlp=True))
    assert refusal.value.exit_code == Exit.REFUSED
    refuse_exposure(replace(exposed, otlp=True, insecure=True))


def test_make_options__of_a_wrong_file_of_sources(tmp_path: Path) -> None:
    """A file of sources that is wrong is told by its lines, and nothing runs."""
    file = tmp_path / "sources.toml"
    settings = Settings(sources_file=file)
    with pytest.raises(CommandError, match="cannot be read") as refusal:
        make_options(settings, database_url="", key_pepper=b"")
    assert refusal.value.exit_code == Exit.USAGE
    file.write_text("[headers]\nacount = 'x'\n")
    with pytest.raises(CommandError, match=r"sources\.toml:2: headers\.acount: no such key"):
        make_options(settings, database_url="", key_pepper=b"")
    file.write_text("[headers]\naccount = 'x'\n")
    options = make_options(settings, database_url="", key_pepper=b"")
    assert options.places.headers.account == "x"


def test_check_ports__of_otlp() -> None:
    """A port of OpenTelemetry that is taken is told by the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        settings = Settings(
            grpc_address="127.0.0.1:0", http_address="127.0.0.1:0", otlp_grpc_address=taken
        )
        check_ports(settings)
        with pytest.raises(CommandError, match="TOKENWORKS_OTLP_GRPC_ADDRESS"):
            check_ports(replace(settings, otlp=True))


def test_serve__settings_file(database_url: str, pepper_file: Path, tmp_path: Path) -> None:
    """The settings file is read, and its faults are told."""
    config = tmp_path / "tokenworks.toml"
    config.write_text(f"key_pepper_file = '{pepper_file}'\ncolour = 'red'\n")
    refused = _serve("--config", str(config), database_url=database_url)
    assert refused.returncode == 2
    assert refused.stderr == f"Error: {config}: colour: no such setting\n"


@pytest.mark.parametrize(("level", "expected"), [("info", True), ("error", False)])
def test_serve__log_level(database_url: str, tmp_path: Path, level: str, *, expected: bool) -> None:
    """What is less than the log's level is not in it; what is not less is, with time and name."""
    with running_meter_on(database_url, folder=tmp_path, settings={"log_level": level}) as running:
        assert running.stop() == 0
    lines = running.log.read_text().splitlines()
    assert any(" info tokenworks meter_stopped" in line for line in lines) is expected


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_serve__tls(database_url: str, tmp_path: Path) -> None:
    """With a certificate it speaks TLS, to commands that trust it and to no other."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        capture_output=True,
        check=True,
    )
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as running:
        server = f"https://{running.target}"
        assert _ask(running, server=server, ca_certificate=certificate) == 0
        assert _ask(running, server=server) == Exit.UNREACHABLE
        assert _ask(running) == Exit.UNREACHABLE


def test_serve__addresses_as_json(empty_meter: RunningMeter) -> None:
    """It tells the ports that it really got."""
    for address in (empty_meter.target, empty_meter.http):
        assert not address.endswith(":0")
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port))).close()


def _ask(
    running: RunningMeter,
    *,
    server: str | None = None,
    api_key: str | None = None,
    ca_certificate: Path | None = None,
) -> int:
    """Ask the meter something as a command does: the exit code that it would end with."""
    settings = Settings(
        server=server or running.target,
        api_key=api_key or running.api_key,
        ca_certificate=ca_certificate,
    )
    try:
        with connect(settings=settings) as client:
            client.accounts.ListAccounts(ListAccountsRequest())
    except CommandError as error:
        return error.exit_code
    return 0


def _serve(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    named = {f"TOKENWORKS_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [TOKENWORKS, "serve", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | named,
        text=True,
        timeout=60,
        check=False,
    )
