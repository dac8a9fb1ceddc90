"""Commands speak to a meter over gRPC with an API key, like anybody else."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, TypeVar

import click
import grpc
from google.rpc import error_details_pb2, status_pb2

from cli.credentials import Credentials, find_credentials
from cli.process import CommandError, Exit, format_sandbox, report_progress
from cli.settings import Settings, SettingsError, is_loopback, read_settings
from meter.runtime.clock import SystemClock
from tokenworks.billing.v1.billing_service_pb2_grpc import BillingServiceStub
from tokenworks.client.certificates import CertificateFiles
from tokenworks.meter.v1 import clock_service_pb2
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub
from tokenworks.meter.v1.audit_service_pb2_grpc import AuditServiceStub
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub
from tokenworks.meter.v1.engine_service_pb2_grpc import EngineServiceStub
from tokenworks.meter.v1.meter_service_pb2_grpc import MeterServiceStub
from tokenworks.meter.v1.producer_service_pb2_grpc import ProducerServiceStub

CREDENTIALS = Path(".tokenworks") / "credentials.json"
CALL_SECONDS_MAX = 60.0
# Where all usage of a time is priced, interval by interval.
PRICING_SECONDS_MAX = 600.0
# A usage query's 100,000 rows, with room to spare; gRPC's own limit is 4 MiB.
ANSWER_BYTES_MAX = 256 * 1024 * 1024
SANDBOX_KEY = "tokenworks-sandbox-clock"

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a command needs of a meter: the stubs of its services, each call with the API key.

    `as_json` says that the result is to be JSON.
    """

    meter: MeterServiceStub
    accounts: AccountServiceStub
    clock: ClockServiceStub
    billing: BillingServiceStub
    energy: EnergyServiceStub
    engines: EngineServiceStub
    producers: ProducerServiceStub
    audit: AuditServiceStub
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, with which API key, and whether by TLS; `address` is host:port.

    Without an API key a certificate says who calls.
    """

    address: str
    api_key: str | None
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a command finds its meter, once it needs one; `as_json` is as in `Client`."""

    config: Path | None
    flags: Mapping[str, object]
    as_json: bool

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """A client for the time of the block; failed calls in it become a CommandError."""
        settings = load_settings(self.config, flags=self.flags)
        with connect(settings=settings, as_json=self.as_json) as client:
            yield client


def reaching_command(command: Callable[Concatenate[Reach, ...], None]) -> Callable[..., None]:
    """Give a click command a `Reach` as its first argument, and the options to choose the server.

    For commands that do not always speak to one; the others are a `client_command`.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("--server", metavar="HOST:PORT", help="The meter to speak to.")
    @click.option("--api-key", metavar="KEY", help="The API key to use.")
    @click.option("--insecure", is_flag=True, default=None, help="Without TLS to another machine.")
    @click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
    @functools.wraps(command)
    def run(
        *args: object,
        as_json: bool,
        server: str | None,
        api_key: str | None,
        insecure: bool | None,
        config: Path | None,
        **kwargs: object,
    ) -> None:
        flags = {"server": server, "api_key": api_key, "insecure": insecure}
        command(Reach(config=config, flags=flags, as_json=as_json), *args, **kwargs)

    return run


def client_command(command: Callable[Concatenate[Client, ...], None]) -> Callable[..., None]:
    """Give a click command a `Client` as its first argument, and the options to choose the server.

    A call that fails in it ends the command with the exit code and message of `explain`.
    """

    @functools.wraps(command)
    def run(reach: Reach, *args: object, **kwargs: object) -> None:
        with reach.connect() as client:
            command(client, *args, **kwargs)

    return reaching_command(run)


def load_settings(config: Path | None, *, flags: Mapping[str, object]) -> Settings:
    """The settings, or the end of the command with all their faults."""
    try:
        return read_settings(config=config, flags=flags)
    except SettingsError as error:
        raise CommandError(str(error), code=Exit.USAGE) from error


@contextmanager
def connect(*, settings: Settings, as_json: bool = False) -> Iterator[Client]:
    """A client for the time of the block; failed calls in it become a CommandError."""
    target = find_target(settings)
    with open_channel(target, settings=settings) as plain:
        channel = grpc.intercept_channel(plain, _SandboxTold())
        try:
            yield Client(
                meter=MeterServiceStub(channel),
                accounts=AccountServiceStub(channel),
                clock=ClockServiceStub(channel),
                billing=BillingServiceStub(channel),
                energy=EnergyServiceStub(channel),
                engines=EngineServiceStub(channel),
                producers=ProducerServiceStub(channel),
                audit=AuditServiceStub(channel),
                as_json=as_json,
            )
        except grpc.RpcError as error:
            raise explain(error, address=target.address) from error


def find_now_ms(client: Client) -> int:
    """Now in ms since 1970: a sandbox's time, else this machine's."""
    answer = client.clock.GetClock(clock_service_pb2.GetClockRequest())
    return answer.now.ToMilliseconds() if answer.driven else SystemClock().now_ms()


def find_target(settings: Settings) -> Target:
    """The server and API key of the settings, else of the nearest credentials file.

    Raises CommandError when there is none, or when the key would leave the machine in the clear.
    """
    stored = find_stored_credentials(settings)
    server = settings.server or (stored.target if stored is not None else None)
    if server is None:
        raise CommandError(
            "no meter is known: start one with `tokenworks up`, or name one with --server",
            code=Exit.USAGE,
        )
    # A stored key belongs to the server that it was stored with, and is sent to no other.
    own = stored.api_key if stored is not None and server == stored.target else None
    api_key = settings.api_key or own
    if api_key is None and settings.client_certificate is None:
        raise CommandError(
            f"no API key is known for {server}: give one with --api-key or TOKENWORKS_API_KEY",
            code=Exit.USAGE,
        )
    scheme, _, address = server.rpartition("://")
    if scheme not in {"", "http", "https"}:
        raise CommandError(f"{server}: begin with https:// or http:// or neither", code=Exit.USAGE)
    here = is_loopback(address)
    tls = scheme == "https" or (not scheme and not here and not settings.insecure)
    if not tls and settings.client_certificate is not None:
        raise CommandError(
            f"a certificate is shown over TLS only: name the meter as https://{address}",
            code=Exit.USAGE,
        )
    if not tls and not here and not settings.insecure:
        raise CommandError(
            f"the API key would be sent to {address} in the clear: use https://, or --insecure",
            code=Exit.REFUSED,
        )
    return Target(address=address, api_key=api_key, tls=tls)


def open_channel(target: Target, *, settings: Settings | None = None) -> grpc.Channel:
    """A channel whose calls of one request carry the API key and end after a minute.

    By TLS it trusts and shows the certificates of the settings, without them the public ones and
    none; raises CommandError for a file that cannot be used.
    """
    options = [("grpc.max_receive_message_length", ANSWER_BYTES_MAX)]
    if is_loopback(target.address):
        # A proxy for the world outside cannot reach this machine's own ports.
        options.append(("grpc.enable_http_proxy", 0))
    if target.tls:
        channel = grpc.secure_channel(target.address, _credentials(settings), options=options)
    else:
        channel = grpc.insecure_channel(target.address, options=options)
    return grpc.intercept_channel(channel, _ApiKey(target.api_key))


def _credentials(settings: Settings | None) -> grpc.ChannelCredentials:
    if settings is None:
        return grpc.ssl_channel_credentials()
    files = CertificateFiles(
        ca=settings.ca_certificate,
        certificate=settings.client_certificate,
        key=settings.client_key,
    )
    try:
        pems = files.read()
    except ValueError as error:
        raise CommandError(str(error), code=Exit.USAGE) from error
    return grpc.ssl_channel_credentials(pems.roots, pems.key, pems.chain)


# By gRPC code, where the server gave a reason; without one nobody answered as a meter does.
_EXITS = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: Exit.REFUSED,
}
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def explain(error: Exception, *, address: str) -> CommandError:
    """The message and exit code of a failed call; the reason stands in brackets behind it."""
    if not isinstance(error, grpc.Call):
        return CommandError(f"the call to {address} failed: {error}")
    reason = find_reason(error)
    if reason is None and error.code() in _UNREACHABLE:
        return CommandError(
            f"no meter answers at {address}: {error.details()}", code=Exit.UNREACHABLE
        )
    message = f"{error.details()} ({reason or error.code().name})"
    return CommandError(message, code=_EXITS.get(error.code(), Exit.FAILED))


def find_reason(error: grpc.Call) -> str | None:
    """The error reason that the meter gave, if it was a meter that answered."""
    metadata = dict(error.trailing_metadata() or ())
    details = metadata.get("grpc-status-details-bin")
    if isinstance(details, bytes):
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                return info.reason
    plain = metadata.get("tokenworks-error-reason")
    return plain if isinstance(plain, str) else None


def find_stored_credentials(settings: Settings) -> Credentials | None:
    """The credentials of the file that is named, else of the nearest folder's, if there is one."""
    if settings.credentials_file is not None:
        return find_credentials(settings.credentials_file)
    here = Path.cwd()
    for folder in (here, *here.parents):
        found = find_credentials(folder / CREDENTIALS)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallDetails(grpc.ClientCallDetails):
    """A call as it goes out."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _ApiKey(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the API key and a deadline to every call."""

    def __init__(self, api_key: str | None) -> None:
        self._bearer = () if api_key is None else (("authorization", f"Bearer {api_key}"),)

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], _Answer],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> _Answer:
        """Send the call on, with what it lacks."""
        return continuation(self._complete(client_call_details), request)

    def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], _Answer],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> _Answer:
        """Send the call on, with what it lacks."""
        return continuation(self._complete(client_call_details), request)

    def _complete(self, details: grpc.ClientCallDetails) -> _CallDetails:
        return _CallDetails(
            method=details.method,
            timeout=details.timeout or CALL_SECONDS_MAX,
            metadata=(*(details.metadata or ()), *self._bearer),
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )


class _SandboxTold(grpc.UnaryUnaryClientInterceptor):
    """Says on stderr, once, that what answers is a sandbox: an error of one as well."""

    def __init__(self) -> None:
        self._is_told = False

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], _Answer],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> _Answer:
        """Send the call on, and look at what comes back."""
        answer = continuation(client_call_details, request)
        if isinstance(answer, grpc.Future):
            answer.add_done_callback(self._tell)
        return answer

    def _tell(self, done: Any) -> None:  # noqa: ANN401
        now = dict(done.trailing_metadata() or ()).get(SANDBOX_KEY)
        if now is not None and not self._is_told:
            self._is_told = True
            report_progress(format_sandbox(now))
