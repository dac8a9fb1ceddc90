"""What is secret stands nowhere: not in a log at its most talkative, an answer, a page, a repr."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import psycopg
import pytest

from cli.settings import read_settings
from tests.authority import OPENSSL, Authority
from tests.postgres import PASSWORD
from tests.running_meter import PEPPER, TOKENWORKS, RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import failure_of, read_http, talking
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2_grpc as pb_grpc

EVIL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no: %', NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON quarantine FOR EACH ROW EXECUTE FUNCTION refuse();
"""


class Seen:
    """All that anybody could read, and what must not be in it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.secrets: dict[str, str] = {"database password": PASSWORD, "pepper": PEPPER.hex()}

    def find(self) -> list[str]:
        """Return which secret stands where."""
        return [
            f"{secret} in {place}"
            for place, text in self.texts.items()
            for secret, value in self.secrets.items()
            if value in text
        ]

    def run(self, *words: str, settings: Mapping[str, str]) -> int:
        """Run a command with settings of its environment, and keep what it prints."""
        given = {f"TOKENWORKS_{name.upper()}": value for name, value in settings.items()}
        done = subprocess.run(
            [TOKENWORKS, *words],
            env=os.environ | {"TOKENWORKS_LOG_LEVEL": "debug"} | given,
            capture_output=True,
            check=False,
            text=True,
        )
        name = f"{' '.join(words)} with {', '.join(sorted(settings))}"
        self.texts[name] = done.stdout + done.stderr
        return done.returncode


@pytest.fixture
def seen() -> Seen:
    """Nothing yet."""
    return Seen()


@pytest.fixture
def talkative(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter that logs all there is to log."""
    settings = {"log_level": "debug", "log_format": "json"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        yield meter


def provoke(session: Session, seen: Seen) -> None:
    """Run into what errors are cheap: each answer is kept."""
    with grpc.insecure_channel(session.meter.target) as channel:
        accounts = pb_grpc.AccountServiceStub(channel)
        metadata = (("authorization", f"Bearer {session.meter.api_key}"),)
        scope = pb.Scope(role=pb.ROLE_PRODUCER, account="acme")
        made = accounts.CreateApiKey(
            pb.CreateApiKeyRequest(account="acme", scopes=[scope]), metadata=metadata
        )
        seen.secrets["secret of a key that was made"] = made.secret
        unknown = made.secret[:-12]
        accounts.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.key_id), metadata=metadata)
        for name, text in {
            "revoked": f"Bearer {made.secret}",
            "cut off": f"Bearer {unknown}",
            "without a scheme": made.secret,
            "twice": f"Bearer {made.secret} {made.secret}",
        }.items():
            with pytest.raises(grpc.RpcError) as failure:
                accounts.ListAccounts(pb.ListAccountsRequest(), metadata=(("authorization", text),))
            seen.texts[f"answer to a key that is {name}"] = repr(failure.value)
    acts: dict[str, Callable[[], object]] = {
        "an empty call": session.record,
        "a stream that was not opened": lambda: session.exchange(rows(1, event())),
        "an internal fault": lambda: session.record(event(tier="nobody's")),
    }
    for name, act in acts.items():
        seen.texts[f"answer to {name}"] = repr(failure_of(act))


def test_secrets__stand_nowhere(talkative: RunningMeter, database_url: str, seen: Seen) -> None:
    """API keys, pepper and password are in no log, answer or page, through faults and a restart."""
    seen.secrets["first API key"] = talkative.api_key
    session = Session(talkative)
    session.create_account("acme")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(EVIL)
        provoke(session, seen)
        with talking(session) as talk:
            talk.say(opening())
            talk.hear()
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            try:
                # Fails on a connection that was ended, if it is given one.
                session.record(event())
            except grpc.RpcError as error:
                seen.texts["answer without a database"] = repr(error)
    for path in ("/metrics", "/readyz", "/healthz"):
        seen.texts[path] = read_http(talkative, path)[1]
    talkative.restart()
    seen.run("doctor", settings={"database_url": database_url})
    seen.run("accounts", "list", settings=_reach(talkative, talkative.api_key))
    seen.run("accounts", "list", settings=_reach(talkative, talkative.api_key[:-1] + "0"))
    log = talkative.log.read_text("utf-8")
    seen.texts["the meter's log"] = log
    assert '"call_failed"' in log
    assert '"call_refused"' in log
    assert seen.find() == []


@pytest.mark.stacks
def test_secrets__stand_in_no_refused_start(database_url: str, tmp_path: Path, seen: Seen) -> None:
    """Who cannot start says why without what it was told in confidence."""
    pepper = tmp_path / "pepper"
    pepper.write_text(PEPPER.hex(), "ascii")
    wrong = "wrong-and-secret-all-the-same"
    seen.secrets["wrong password"] = wrong
    base = {"key_pepper_file": str(pepper), "grpc_address": "127.0.0.1:0"}
    away = database_url.replace(PASSWORD, wrong)
    assert seen.run("serve", settings=base | {"database_url": away}) != 0
    assert seen.run("doctor", settings={"database_url": away}) != 0
    (tmp_path / "short").write_text(PEPPER.hex()[:20], "ascii")
    short = {"key_pepper_file": str(tmp_path / "short"), "database_url": database_url}
    assert seen.run("serve", settings=base | short) != 0
    if OPENSSL is not None:
        authority = Authority(tmp_path)
        certificate, key = authority.sign("one", "DNS:localhost")
        _, other = authority.sign("other", "DNS:localhost")
        seen.secrets |= {
            path.stem: path.read_text("ascii").splitlines()[1] for path in (key, other)
        }
        files = {"tls_certificate": str(certificate), "tls_key": str(other)}
        assert seen.run("serve", settings=base | {"database_url": database_url} | files) != 0
        seen.run("doctor", settings={"database_url": database_url} | files)
    assert seen.find() == []


@pytest.mark.stacks
def test_secrets__stand_in_nothing_that_up_prints(tmp_path: Path, seen: Seen) -> None:
    """What `up` makes for itself, password, pepper and key, is in its files and nowhere else."""
    folder = tmp_path / "meter"
    settings = {"TOKENWORKS_LOG_LEVEL": "debug"}
    ports = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
    process = subprocess.Popen(
        [TOKENWORKS, "up", "--json", "--dir", folder, *ports],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | settings,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    credentials = json.loads((folder / "credentials.json").read_text("utf-8"))
    seen.secrets = {
        "password": (folder / "postgres" / "password").read_text("ascii").strip(),
        "pepper": (folder / "key-pepper").read_text("ascii").strip(),
        "API key": credentials["api_key"],
    }
    seen.texts = {"stdout": told + rest, "log": log}
    assert all(len(secret) > 8 for secret in seen.secrets.values())
    assert seen.find() == []


def test_settings__hide_what_is_secret(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings as a traceback would show them have no password and no API key."""
    seen.secrets["API key"] = "twk_hush"
    monkeypatch.setenv("TOKENWORKS_DATABASE_URL", f"postgresql://u:{PASSWORD}@h/d")
    monkeypatch.setenv("TOKENWORKS_API_KEY", "twk_hush")
    settings = read_settings()
    seen.texts["repr"], seen.texts["str"] = repr(settings), str(settings)
    assert seen.find() == []


def _reach(meter: RunningMeter, api_key: str) -> dict[str, str]:
    return {"server": meter.target, "api_key": api_key}
