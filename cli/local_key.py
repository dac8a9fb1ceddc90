"""The API key of whoever runs `up`: made once, replaced when the meter no longer knows it."""

import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import grpc

import meter.app
from cli.connection import Target, open_channel
from cli.credentials import Credentials, find_credentials, write_credentials
from cli.process import CommandError, Exit
from cli.settings import Settings, is_loopback
from meter.domain.errors import MeterError, Refused
from meter.options import Addresses, MeterOptions
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

ASK_SECONDS_MAX = 10.0
# A change of keys reaches a running meter within two seconds.
KNOWN_SECONDS_MAX = 10.0
POLL_SECONDS = 0.05
IPV4 = 4


def find_or_make_key(path: Path, *, options: MeterOptions) -> str:
    """The API key of the credentials file at `path`, or a new one.

    Made before the meter runs, it is known from the start; a running one hears of it later.
    """
    found = find_credentials(path)
    return _make_key(options) if found is None else found.api_key


def provide_credentials(
    path: Path, *, api_key: str, options: MeterOptions, addresses: Addresses, settings: Settings
) -> Credentials:
    """Write the credentials for the running meter to the file at `path`, and return them.

    A key that the meter refuses is replaced: another database or another pepper knows nothing of
    it. Raises CommandError when the new one is refused as well.
    """
    address, http = _reachable(addresses.grpc), _reachable(addresses.http)
    tls = options.tls_certificate is not None
    scheme = "https://" if tls else "" if is_loopback(address) else "http://"
    target = Target(address=address, api_key=api_key, tls=tls)
    http = f"https://{http}" if options.http_tls else http
    if _is_refused(target, settings=settings):
        target = replace(target, api_key=_make_key(options))
        _wait_until_known(target, settings=settings)
    assert target.api_key is not None
    made = Credentials(target=scheme + address, http=http, api_key=target.api_key)
    if made != find_credentials(path):
        write_credentials(path, made)
    return made


def _make_key(options: MeterOptions) -> str:
    try:
        return meter.app.create_installation_key(
            options.database_url,
            key_pepper=options.key_pepper,
            description="made by tokenworks up",
            sandbox_clock_ms=options.sandbox_clock_ms,
        )
    except Refused as error:
        raise CommandError(error.message, code=Exit.REFUSED) from error
    except MeterError as error:
        raise CommandError(f"no API key could be made: {error.message}") from error


def _wait_until_known(target: Target, *, settings: Settings) -> None:
    give_up_time = time.monotonic() + KNOWN_SECONDS_MAX
    while _is_refused(target, settings=settings):
        if time.monotonic() > give_up_time:
            raise CommandError("the meter refuses the API key that was made for it")
        time.sleep(POLL_SECONDS)


def _is_refused(target: Target, *, settings: Settings) -> bool:
    """Whether the meter says that it does not know the key; no answer is no refusal."""
    with open_channel(target, settings=settings) as channel:
        try:
            AccountServiceStub(channel).ListAccounts(
                ListAccountsRequest(page_size=1), timeout=ASK_SECONDS_MAX
            )
        except grpc.RpcError as error:
            code = getattr(error, "code", None)
            return code is not None and code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def _reachable(address: str) -> str:
    """Where this machine reaches an address that may stand for all of its own."""
    host, _, port = address.rpartition(":")
    try:
        known = ip_address(host.strip("[]"))
    except ValueError:
        return address
    if not known.is_unspecified:
        return address
    return f"127.0.0.1:{port}" if known.version == IPV4 else f"[::1]:{port}"
