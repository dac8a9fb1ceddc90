"""`tokenworks accounts …` and `tokenworks keys …` against a real server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import tokenworks
from cli.process import Exit
from tests.clock import FakeClock
from tests.postgres import Cluster
from tests.wire.account_server import NOW, AccountServer, Caller, account_server_on
from tokenworks.meter.v1 import account_service_pb2 as pb


class Shell:
    """Runs commands with an API key."""

    def __init__(self, server: AccountServer, api_key: str) -> None:
        self._environment = {"TOKENWORKS_SERVER": server.target, "TOKENWORKS_API_KEY": api_key}

    def run(self, *words: str, code: int = 0) -> Result:
        """Run `tokenworks WORDS…`, which must end with this exit code."""
        result = CliRunner().invoke(tokenworks, words, env=self._environment)
        assert result.exit_code == code, result.output
        return result

    def run_json(self, *words: str) -> Any:  # noqa: ANN401
        """Run `tokenworks WORDS… --json` and return what it printed."""
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def server(database_url: str) -> Iterator[AccountServer]:
    """A server at NOW: 2027-01-15T08:01:01Z."""
    with account_server_on(database_url, clock=FakeClock(NOW)) as running:
        yield running


@pytest.fixture
def admin(server: AccountServer) -> Iterator[Caller]:
    """Who may do everything; there are acme, acme/team and other."""
    with _administering(server) as caller:
        yield caller


@pytest.fixture
def shell(server: AccountServer, admin: Caller) -> Shell:
    """Runs commands as the admin."""
    del admin
    return Shell(server, server.api_key)


@pytest.fixture(scope="module")
def still_shell(cluster: Cluster) -> Iterator[Shell]:
    """The same on a server whose accounts nobody changes."""
    with (
        cluster.database() as url,
        account_server_on(url, clock=FakeClock(NOW)) as server,
        _administering(server),
    ):
        yield Shell(server, server.api_key)


@contextmanager
def _administering(server: AccountServer) -> Iterator[Caller]:
    caller = Caller(server, server.api_key)
    for path in ("acme", "acme/team", "other"):
        caller.create(path)
    yield caller
    caller.close()


def test_create__by_path_and_by_parent(shell: Shell) -> None:
    """The parent is in the path or named beside it; the id may be chosen."""
    made = shell.run_json("accounts", "create", "new")
    assert (made["path"], made["parent"]) == ("new", "")
    assert made["close_time"] is None
    assert made["parents"] == [{"parent": "", "start_time": "2027-01-15T08:00:00Z"}]
    below = shell.run_json("accounts", "create", "acme/team/agent", "--id", "agent-1")
    assert (below["path"], below["account"]) == ("acme/team/agent", "agent-1")
    beside = shell.run_json("accounts", "create", "agent2", "--parent", "team")
    assert beside["path"] == "acme/team/agent2"


def test_create__parent_named_twice(still_shell: Shell) -> None:
    """A parent is named once."""
    result = still_shell.run("accounts", "create", "acme/x", "--parent", "other", code=Exit.USAGE)
    assert "--parent" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("create", "team", "--id", "acme"), Exit.REFUSED, "ACCOUNT_EXISTS"),
        (("create", "Team"), Exit.USAGE, "ARGUMENT_INVALID"),
        (("create", "nobody/x"), Exit.FAILED, "ACCOUNT_NOT_FOUND"),
        # An id, but no path.
        (("create", "team/x"), Exit.FAILED, "ACCOUNT_NOT_FOUND"),
        (("show", "nobody"), Exit.FAILED, "ACCOUNT_NOT_FOUND"),
        (("show", "id:nobody"), Exit.FAILED, "ACCOUNT_NOT_FOUND"),
        (("close", "acme"), Exit.REFUSED, "CLOSE_REFUSED"),
        (("move", "acme", "acme/team"), Exit.REFUSED, "MOVE_REFUSED"),
        (("move", "acme", "other", "--at", "2026-01-01"), Exit.REFUSED, "MOVE_REFUSED"),
        (("move", "acme", "other", "--at", "2028-01-01T00:01"), Exit.USAGE, "ARGUMENT_INVALID"),
        (("move", "acme", "other", "--at", "soon"), Exit.USAGE, "--at"),
    ],
)
def test_accounts__refused(
    still_shell: Shell, words: tuple[str, ...], code: int, reason: str
) -> None:
    """What the server refuses ends with its reason on stderr, and nothing on stdout."""
    result = still_shell.run("accounts", *words, code=code)
    assert reason in result.stderr
    assert result.stdout == ""


def test_list__as_table(shell: Shell) -> None:
    """The list has one line an account, by path, neither cut nor wrapped."""
    long = "a" * 64
    shell.run("accounts", "create", f"acme/{long}", "--id", "b" * 64)
    lines = shell.run("accounts", "list").stdout.splitlines()
    rows = [line.split() for line in lines if "2027" in line]
    assert [row[:2] for row in rows] == [
        ["acme", "acme"],
        [f"acme/{long}", "b" * 64],
        ["acme/team", "team"],
        ["other", "other"],
    ]
    assert rows[0][2:] == ["2027-01-15", "08:01:01Z", "-"]


def test_list__all_pages(still_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list goes on to the last page, and may be narrowed to a subtree."""
    monkeypatch.setattr("cli.accounts.PAGE_SIZE", 2)
    paths = [each["path"] for each in still_shell.run_json("accounts", "list")]
    assert paths == ["acme", "acme/team", "other"]
    assert [each["path"] for each in still_shell.run_json("accounts", "list", "acme")] == paths[:2]


def test_show__by_id_and_by_path(still_shell: Shell) -> None:
    """An account is named by its id or by its path."""
    shown = [
        still_shell.run_json("accounts", "show", name)
        for name in ("team", "id:team", "acme/team", "/acme/team")
    ]
    assert all(each == shown[0] for each in shown)
    lines = still_shell.run("accounts", "show", "team").stdout.splitlines()
    assert lines[0].split() == ["path", "acme/team"]
    assert lines[-1].split() == ["parent", "acme", "from", "2027-01-15", "08:00:00Z"]


def test_show__id_is_the_path_of_another(shell: Shell) -> None:
    """A text that names two accounts names none; both can be named without doubt."""
    shell.run("accounts", "create", "team", "--id", "root-team")
    result = shell.run("accounts", "show", "team", code=Exit.USAGE)
    assert "id:team or /team" in result.stderr
    assert shell.run_json("accounts", "show", "/team")["account"] == "root-team"
    assert shell.run_json("accounts", "show", "id:team")["path"] == "acme/team"


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ((), "2027-01-15T08:15:00Z"),
        (("--at", "2027-02-01"), "2027-02-01T00:00:00Z"),
        (("--at", "2027-02-01T09:15"), "2027-02-01T09:15:00Z"),
        (("--at", "2027-02-01T09:15+05:45"), "2027-02-01T03:30:00Z"),
    ],
)
def test_move__on_a_date(shell: Shell, words: tuple[str, ...], start: str) -> None:
    """A move begins with the next quarter of an hour, or on the date that is named, in UTC."""
    moved = shell.run_json("accounts", "move", "acme/team", "other", *words)
    assert moved["parents"][-1] == {"parent": "other", "start_time": start}


def test_move__to_the_top(shell: Shell) -> None:
    """A slash in the place of the parent makes a root."""
    moved = shell.run_json("accounts", "move", "acme/team", "/")
    assert moved["parents"][-1]["parent"] == ""


def test_close__shows_when(shell: Shell) -> None:
    """A closed account says when it was closed."""
    assert shell.run_json("accounts", "close", "acme/team")["close_time"] == "2027-01-15T08:01:01Z"
    assert "closed   2027-01-15 08:01:01Z" in shell.run("accounts", "show", "team").stdout


def test_keys_create__secret_alone_on_the_last_line(server: AccountServer, shell: Shell) -> None:
    """A new key stands alone on the last line of stdout, and stderr says to keep it."""
    result = shell.run("keys", "create", "acme/team", "--description", "gateway [red]")
    secret = result.stdout.splitlines()[-1]
    assert result.stdout.count(secret) == 1
    assert "only time" in result.stderr
    assert secret not in result.stderr
    refused = Shell(server, secret).run("accounts", "list", code=Exit.REFUSED)
    assert "SCOPE_MISSING" in refused.stderr
    listed = shell.run("keys", "list", "acme/team").stdout
    assert "producer:team" in listed
    assert "gateway [red]" in listed
    assert secret not in listed


@pytest.mark.parametrize(
    ("words", "account", "scopes"),
    [
        (("acme",), "acme", [("producer", "acme")]),
        (("acme", "--role", "reader"), "acme", [("reader", "acme")]),
        (
            ("acme", "--role", "producer", "--role", "admin:acme/team"),
            "acme",
            [("producer", "acme"), ("admin", "team")],
        ),
        (("acme", "--role", "reader:/"), "acme", [("reader", "")]),
        (("/", "--role", "reader"), "", [("reader", "")]),
    ],
)
def test_keys_create__scopes(
    still_shell: Shell, words: tuple[str, ...], account: str, scopes: list[tuple[str, str]]
) -> None:
    """A scope is on the key's own account unless it names another; / is everything."""
    made = still_shell.run_json("keys", "create", *words)
    assert made["account"] == account
    assert [(each["role"], each["account"]) for each in made["scopes"]] == scopes
    assert made["secret"].startswith(made["prefix"])


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("create", "acme", "--role", "write"), Exit.USAGE, "--role"),
        (("create", "acme", "--role", "reader:nobody"), Exit.FAILED, "ACCOUNT_NOT_FOUND"),
        (("create", "acme", "--description", "x" * 201), Exit.USAGE, "ARGUMENT_INVALID"),
        (("rotate", "key_0000000000000000"), Exit.FAILED, "API_KEY_NOT_FOUND"),
        (("revoke", "key_0000000000000000"), Exit.FAILED, "API_KEY_NOT_FOUND"),
        (("rotate", "key_0000000000000000", "--grace", "1w"), Exit.USAGE, "--grace"),
        (("rotate", "key_0000000000000000", "--grace", "9999999d"), Exit.USAGE, "--grace"),
    ],
)
def test_keys__refused(still_shell: Shell, words: tuple[str, ...], code: int, reason: str) -> None:
    """What is wrong ends with the reason on stderr, and nothing on stdout."""
    result = still_shell.run("keys", *words, code=code)
    assert reason in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("grace", "end"),
    [
        ((), "2027-01-16T08:01:01Z"),
        (("--grace", "90s"), "2027-01-15T08:02:31Z"),
        (("--grace", "15m"), "2027-01-15T08:16:01Z"),
        (("--grace", "0s"), "2027-01-15T08:01:01Z"),
        (("--grace", "30d"), "2027-02-14T08:01:01Z"),
    ],
)
def test_keys_rotate__grace(shell: Shell, grace: tuple[str, ...], end: str) -> None:
    """The old key goes on for the grace, a day unless told; the successor is shown once."""
    made = shell.run_json("keys", "create", "acme")
    result = shell.run("keys", "rotate", made["key_id"], *grace)
    assert result.stdout.splitlines()[-1].startswith("tw_")
    old, new = sorted(
        shell.run_json("keys", "list", "acme"), key=lambda each: each["rotated_from"] or ""
    )
    assert (old["key_id"], old["end_time"]) == (made["key_id"], end)
    assert (new["rotated_from"], new["end_time"]) == (made["key_id"], None)


def test_keys_rotate__third_key(shell: Shell) -> None:
    """While two keys are live, a rotation is refused."""
    made = shell.run_json("keys", "create", "acme")
    shell.run("keys", "rotate", made["key_id"])
    result = shell.run("keys", "rotate", made["key_id"], code=Exit.REFUSED)
    assert "ROTATION_REFUSED" in result.stderr


def test_keys_revoke__again(server: AccountServer, shell: Shell) -> None:
    """A revoked key is refused from then on; revoking it again is harmless."""
    made = shell.run_json("keys", "create", "acme", "--role", "reader")
    other = Shell(server, made["secret"])
    assert [each["path"] for each in other.run_json("accounts", "list")] == ["acme", "acme/team"]
    revoked = shell.run_json("keys", "revoke", made["key_id"])
    assert revoked["end_time"] == "2027-01-15T08:01:01Z"
    assert "ends        2027-01-15" in shell.run("keys", "revoke", made["key_id"]).stdout
    assert "API_KEY_REVOKED" in other.run("accounts", "list", code=Exit.REFUSED).stderr


def test_resolve__key_that_may_not_read(server: AccountServer, admin: Caller) -> None:
    """Who may not look accounts up names them by id."""
    made = admin.create_key("acme", (pb.ROLE_ADMIN, "acme"))
    shell = Shell(server, made.secret)
    assert shell.run_json("accounts", "close", "team")["path"] == "acme/team"
    result = shell.run("accounts", "close", "acme/team", code=Exit.REFUSED)
    assert "needs the role reader" in result.stderr


def test_resolve__account_of_another(server: AccountServer, admin: Caller) -> None:
    """An account that the key may not read is not known to it, whichever way it is named."""
    made = admin.create_key("acme", (pb.ROLE_READER, "acme"))
    shell = Shell(server, made.secret)
    for name in ("other", "/other", "nobody"):
        result = shell.run("accounts", "show", name, code=Exit.FAILED)
        assert "ACCOUNT_NOT_FOUND" in result.stderr
