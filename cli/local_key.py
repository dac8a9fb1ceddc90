"""The API key of whoever runs `up`: made once, replaced when the meter no longer knows it."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import grpc

import meter.app
from cli.connection import Target, open_channel
from cli.credentials import Credentials, find_credentials, write_credentials
from cli.settings import Settings, is_loopback
from meter.options import Addresses, MeterOptions
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

ASK_SECONDS_MAX = 10.0
IPV4 = 4


def provide_credentials(
    path: Path, *, options: MeterOptions, addresses: Addresses, settings: Settings
) -> Credentials:
    """The credentials for the running meter, in the file at `path` and valid.

    A key is made when there is none, or when the meter refuses the one of the file: another
    database or another pepper knows nothing of it.
    """
    address, http = _reachable(addresses.grpc), _reachable(addresses.http)
    tls = options.tls_certificate is not None
    scheme = "https://" if tls else "" if is_loopback(address) else "http://"
    found = find_credentials(path)
    if found is not None:
        target = Target(address=address, api_key=found.api_key, tls=tls)
        if not _is_refused(target, ca_certificate=settings.ca_certificate):
            kept = replace(found, target=scheme + address, http=http)
            if kept != found:
                write_credentials(path, kept)
            return kept
    api_key = meter.app.create_installation_key(
        options.database_url, key_pepper=options.key_pepper, description="made by tokenworks up"
    )
    made = Credentials(target=scheme + address, http=http, api_key=api_key)
    write_credentials(path, made)
    return made


def _is_refused(target: Target, *, ca_certificate: Path | None) -> bool:
    """Whether the meter says that it does not know the key; no answer is no refusal."""
    with open_channel(target, ca_certificate=ca_certificate) as channel:
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
