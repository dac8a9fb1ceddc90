"""What a site needs at its meter: accounts of its own, contracts, API keys, and its description."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from cli.connection import Client
from cli.process import CommandError, Exit
from cli.simulate.site.power import SITE
from cli.simulate.site.size import CUSTOMERS, TIERS, Size
from tokenworks.billing.v1.billing_service_pb2 import ImportPriceBookRequest, SetContractRequest
from tokenworks.meter.v1.account_service_pb2 import (
    ROLE_PRODUCER,
    CreateAccountRequest,
    CreateApiKeyRequest,
    RevokeApiKeyRequest,
    Scope,
)
from tokenworks.meter.v1.clock_service_pb2 import GetClockRequest
from tokenworks.meter.v1.energy_service_pb2 import (
    FactoryVersion,
    ListFactoryVersionsRequest,
    SetFactoryRequest,
)

BOOK: Final = "keynote"
INTERVAL: Final = timedelta(minutes=15)
# What a run takes beyond its minutes: opening its streams, and waiting for what is held.
_SLACK: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A run's accounts, by id: `root` is above all, `customers` have a contract each.

    `payers` says which of them pays for an account that is served; `month` is when.
    """

    root: str
    customers: tuple[str, ...]
    payers: dict[str, str]
    month: str

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that are served, the busiest first."""
        return tuple(self.payers)


def find_begin(client: Client, *, minutes: float) -> datetime:
    """Return the meter's time; raises CommandError where a run cannot begin now."""
    clock = client.clock.GetClock(GetClockRequest())
    if clock.driven:
        raise CommandError(
            "a site lives in real time, and this meter is a sandbox: its clock stands still",
            code=Exit.USAGE,
        )
    now = clock.now.ToDatetime(UTC)
    if (now + timedelta(minutes=minutes) + _SLACK).month != now.month:
        raise CommandError(
            "the month ends before the run does, and its previews would be of two months: run it"
            " after that, or for fewer minutes"
        )
    return now


def open_world(client: Client, size: Size, *, begin: datetime) -> World:
    """Create the accounts, import the prices and set the contracts of a run.

    Accounts are new ones for each run, so that what is counted and billed for them is its alone.
    """
    root = f"site-{begin:%Y%m%dt%H%M%S%f}"[:-3]
    client.accounts.CreateAccount(CreateAccountRequest(handle=root, account=root))
    client.billing.ImportPriceBook(ImportPriceBookRequest(shipped=BOOK))
    customers = tuple(f"{root}-{number + 1}" for number in range(CUSTOMERS))
    for number, customer in enumerate(customers):
        handle = f"customer-{number + 1}"
        client.accounts.CreateAccount(
            CreateAccountRequest(handle=handle, parent=root, account=customer)
        )
        toml = _contract(customer, name=handle, begin=begin)
        client.billing.SetContract(SetContractRequest(toml=toml))
    payers = {}
    for number in range(size.account_count):
        customer = customers[number % CUSTOMERS]
        handle = f"team-{number // CUSTOMERS + 1}"
        account = f"{customer}-{number // CUSTOMERS + 1}"
        client.accounts.CreateAccount(
            CreateAccountRequest(handle=handle, parent=customer, account=account)
        )
        payers[account] = customer
    return World(root=root, customers=customers, payers=payers, month=f"{begin:%Y-%m}")


@contextmanager
def keys_of_servers(client: Client) -> Iterator[dict[str, str]]:
    """API keys for the servers of each pool, by tier, for the time of the block.

    They may report and do nothing else.
    """
    created = {
        tier.name: client.accounts.CreateApiKey(
            CreateApiKeyRequest(
                scopes=[Scope(role=ROLE_PRODUCER)],
                description=f"simulated servers of {tier.pool}",
            )
        )
        for tier in TIERS
    }
    try:
        yield {name: it.secret for name, it in created.items()}
    finally:
        # A meter that has gone away keeps them: whoever brings it back can see and revoke them.
        with suppress(grpc.RpcError):
            for it in created.values():
                client.accounts.RevokeApiKey(RevokeApiKeyRequest(key_id=it.key.key_id))


def describe_site(client: Client, size: Size, *, begin: datetime) -> None:
    """Say where the pools stand, unless that is known already.

    Raises CommandError where the meter knows of another factory: a description replaces the one
    before it.
    """
    versions = client.energy.ListFactoryVersions(ListFactoryVersionsRequest()).versions
    if versions and _is_described(versions[-1], size):
        return
    start = _interval_start(begin)
    if versions and not all(pool.site == SITE for pool in versions[-1].pools):
        raise CommandError(
            "the meter has a factory's description that is not of a simulated site: take a meter"
            " of its own for this, such as `tokenworks up` in an empty folder",
            code=Exit.REFUSED,
        )
    if versions and versions[-1].start_time.ToDatetime(UTC) >= start:
        raise CommandError(
            f"the meter has a site of another size since {start:%H:%M} UTC: wait until"
            f" {start + INTERVAL:%H:%M}, or take another meter",
            code=Exit.REFUSED,
        )
    toml = _describe(size, begin=start)
    client.energy.SetFactory(SetFactoryRequest(toml=toml))


def interval_span(begin: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return the span of whole intervals around a time."""
    return _interval_start(begin), _interval_start(end) + INTERVAL


def _interval_start(time: datetime) -> datetime:
    return datetime.fromtimestamp(
        time.timestamp() // INTERVAL.total_seconds() * INTERVAL.total_seconds(), UTC
    )


def _is_described(version: FactoryVersion, size: Size) -> bool:
    sites = {it.site: it.contracted_watts for it in version.sites}
    pools = {it.pool: it.device_count for it in version.pools}
    return sites == {SITE: size.watts} and pools == {
        tier.pool: size.pool_server_count for tier in TIERS
    }


def _describe(size: Size, *, begin: datetime) -> str:
    lines = [
        "format = 1",
        f"from = {begin:%Y-%m-%dT%H:%M:%SZ}",
        f"[sites.{SITE}]",
        f"contracted_watts = {size.watts}",
    ]
    for tier in TIERS:
        lines += [
            f"[pools.{tier.pool}]",
            f'site = "{SITE}"',
            'hardware = "simulated rack"',
            f"device_count = {size.pool_server_count}",
        ]
    return "\n".join(lines) + "\n"


def _contract(customer: str, *, name: str, begin: datetime) -> str:
    quoted = json.dumps(f"{name} (simulated)")
    return f"""\
format   = 1
contract = "{customer}"
from     = {begin:%Y-%m}-01T00:00:00
zone     = "UTC"
currency = "USD"
book     = "{BOOK}"
covers   = ["{customer}"]
seller   = "site"
buyer    = "customer"

[parties.site]
name    = "A token factory (simulated)"
address = ["1 Substation Road"]

[parties.customer]
name    = {quoted}
address = ["2 Prompt Street"]

[document]
kind       = "invoice"
series     = "SITE"
terms_days = 30
"""
