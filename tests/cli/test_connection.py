"""How commands find a meter, and what they make of its refusals."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from cli.connection import Client, Target, client_command, find_target
from cli.process import CommandError, Exit
from cli.settings import Settings
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest, ListAccountsResponse

KEY = "tw_a_key"


@client_command
def _list_accounts(client: Client) -> None:
    """Calls the server and prints what came."""
    answer = client.accounts.ListAccounts(ListAccountsRequest())
    click.echo(f"{answer.next_page_token} json={client.as_json}")


list_accounts = click.command("list")(_list_accounts)


class Refusing:
    """Answers with the API key that came, or refuses as it is told."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.reason: str | None = None
        self.with_details = True

    def list_accounts(
        self, _: ListAccountsRequest, context: grpc.ServicerContext
    ) -> ListAccountsResponse:
        """The RPC."""
        if self.code is None:
            metadata = dict(context.invocation_metadata())
            return ListAccountsResponse(next_page_token=str(metadata["authorization"]))
        if self.reason is not None and self.with_details:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="tokenworks"))
            status = status_pb2.Status(code=self.code.value[0], message="no", details=[detail])
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
        elif self.reason is not None:
            context.set_trailing_metadata((("tokenworks-error-reason", self.reason),))
        context.set_code(self.code)
        context.set_details("no")
        return ListAccountsResponse()


@pytest.fixture
def server() -> Iterator[tuple[Refusing, str]]:
    """A real gRPC server, and its address."""
    grpc_server = grpc.server(ThreadPoolExecutor(max_workers=1))
    refusing = Refusing()
    handler = grpc.unary_unary_rpc_method_handler(
        refusing.list_accounts,
        request_deserializer=ListAccountsRequest.FromString,
        response_serializer=ListAccountsResponse.SerializeToString,
    )
    service = "tokenworks.meter.v1.AccountService"
    grpc_server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"ListAccounts": handler}),)
    )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    yield refusing, f"127.0.0.1:{port}"
    grpc_server.stop(grace=None).wait()


def test_call__api_key(server: tuple[Refusing, str]) -> None:
    """A call carries the API key as a bearer."""
    result = CliRunner().invoke(list_accounts, ["--server", server[1], "--api-key", KEY, "--json"])
    assert (result.exit_code, result.stdout) == (0, f"Bearer {KEY} json=True\n")


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID", Exit.USAGE),
        (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_UNKNOWN", Exit.REFUSED),
        (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", Exit.REFUSED),
        (grpc.StatusCode.FAILED_PRECONDITION, "MOVE_REFUSED", Exit.REFUSED),
        (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS", Exit.REFUSED),
        (grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND", Exit.FAILED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", Exit.FAILED),
        (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", Exit.FAILED),
        (grpc.StatusCode.INTERNAL, "INTERNAL", Exit.FAILED),
        (grpc.StatusCode.UNAVAILABLE, None, Exit.UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None, Exit.UNREACHABLE),
    ],
)
@pytest.mark.parametrize("with_details", [True, False])
def test_call__refused(
    server: tuple[Refusing, str],
    code: grpc.StatusCode,
    reason: str | None,
    expected: Exit,
    *,
    with_details: bool,
) -> None:
    """Each code has its exit code, and the reason is told, in whichever way it came."""
    servicer, address = server
    servicer.code, servicer.reason, servicer.with_details = code, reason, with_details
    result = CliRunner().invoke(list_accounts, ["--server", address, "--api-key", KEY])
    assert result.exit_code == expected
    assert result.stdout == ""
    assert (f"no ({reason})" if reason else f"no meter answers at {address}") in result.stderr


def test_call__nobody_there() -> None:
    """A server that is not there ends the command with its own exit code."""
    result = CliRunner().invoke(list_accounts, ["--server", "127.0.0.1:1", "--api-key", KEY])
    assert result.exit_code == Exit.UNREACHABLE
    assert "no meter answers at 127.0.0.1:1" in result.stderr


def test_call__wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting ends a command before it calls anybody."""
    monkeypatch.setenv("TOKENWORKS_SERVR", "127.0.0.1:1")
    result = CliRunner().invoke(list_accounts)
    assert (result.exit_code, "TOKENWORKS_SERVR" in result.stderr) == (Exit.USAGE, True)


def test_find_target__nearest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of the nearest folder upward are used."""
    _store(tmp_path, target="127.0.0.1:1111", api_key="far")
    _store(tmp_path / "near", target="127.0.0.1:2222", api_key="near")
    below = tmp_path / "near" / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert find_target(Settings()) == Target(address="127.0.0.1:2222", api_key="near", tls=False)


def test_find_target__named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named goes before the nearest folder's."""
    _store(tmp_path / "near", target="127.0.0.1:2222", api_key="near")
    named = _store(tmp_path / "named", target="https://127.0.0.1:3333", api_key="named")
    monkeypatch.chdir(tmp_path / "near")
    assert find_target(Settings(credentials_file=named)) == Target(
        address="127.0.0.1:3333", api_key="named", tls=True
    )


def test_find_target__key_of_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored API key is not sent to a server that it was not stored with."""
    _store(tmp_path, target="127.0.0.1:1111", api_key="secret")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="no API key is known for 127"):
        find_target(Settings(server="127.0.0.1:9999"))


def test_find_target__nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without server and credentials the next command to type is told."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="tokenworks up") as refused:
        find_target(Settings())
    assert refused.value.exit_code == Exit.USAGE


def test_find_target__broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credentials file that cannot be read is an error with its name, not a missing one."""
    path = _store(tmp_path, target="127.0.0.1:1111", api_key="secret")
    path.write_text('{"target": ')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=str(path)):
        find_target(Settings())


@pytest.mark.parametrize(
    ("server", "insecure", "tls"),
    [
        ("127.0.0.1:7411", False, False),
        ("https://127.0.0.1:7411", False, True),
        ("meter.example.com:7411", False, True),
        ("https://meter.example.com:7411", True, True),
        ("meter.example.com:7411", True, False),
        ("http://meter.example.com:7411", True, False),
    ],
)
def test_find_target__tls(server: str, *, insecure: bool, tls: bool) -> None:
    """Another machine is spoken to by TLS unless that is waived."""
    target = find_target(Settings(server=server, api_key=KEY, insecure=insecure))
    assert (target.address, target.tls) == (server.rpartition("/")[2], tls)


def test_find_target__key_in_the_clear() -> None:
    """An API key does not leave the machine in the clear unless that is asked for."""
    with pytest.raises(CommandError, match="in the clear") as refused:
        find_target(Settings(server="http://meter.example.com:7411", api_key=KEY))
    assert refused.value.exit_code == Exit.REFUSED


def _store(folder: Path, *, target: str, api_key: str) -> Path:
    path = folder / ".tokenworks" / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"target": target, "http": "127.0.0.1:1", "api_key": api_key}))
    return path
