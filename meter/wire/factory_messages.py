"""SetFactory, ListFactoryVersions, GetFactory: the factory's description, as its messages."""

import asyncio
from decimal import Decimal
from typing import Final, Protocol

from meter.domain.clock import Clock
from meter.energy.factory import (
    WEIGHT_UNIT,
    Factories,
    Factory,
    IdlePolicy,
    Pool,
    Site,
    StoredFactory,
    Weights,
)
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb

_MS_PER_SECOND: Final = 1_000
# The year 9999 ends.
_LAST_MS: Final = 253_402_300_799_000
_IDLE: Final = {
    IdlePolicy.UNATTRIBUTED: pb.IDLE_POLICY_UNATTRIBUTED,
    IdlePolicy.PROPORTIONAL: pb.IDLE_POLICY_PROPORTIONAL,
}


class FactoryVersions(Protocol):
    """Keeps the versions of the description."""

    def load(self) -> Factories:
        """Return all versions."""
        ...

    def set(self, toml: str, *, key_id: str, now_ms: int) -> tuple[Factory, bool]:
        """Keep a version; False when it is there already, word for word."""
        ...

    def get(self, at_ms: int) -> StoredFactory:
        """Return the version in force at an instant."""
        ...


class FactoryDesk:
    """Takes in, lists and returns versions for whoever was let in."""

    def __init__(self, versions: FactoryVersions, *, clock: Clock) -> None:
        """Take who keeps them, and the clock."""
        self._versions = versions
        self._clock = clock

    async def set(self, request: pb.SetFactoryRequest, *, key_id: str) -> pb.SetFactoryResponse:
        """Keep a version. Raises InvalidArgument, Refused."""
        now_ms = self._clock.now_ms()
        factory, changed = await asyncio.to_thread(
            self._versions.set, request.toml, key_id=key_id, now_ms=now_ms
        )
        return pb.SetFactoryResponse(version=_to_version(factory), changed=changed)

    async def list_versions(self) -> pb.ListFactoryVersionsResponse:
        """Return all versions by their begin."""
        factories = await asyncio.to_thread(self._versions.load)
        return pb.ListFactoryVersionsResponse(versions=map(_to_version, factories))

    async def get(self, request: pb.GetFactoryRequest) -> pb.GetFactoryResponse:
        """Return a version with its file. Raises InvalidArgument, NotFound."""
        at_ms = self._clock.now_ms()
        if request.HasField("at"):
            at_ms = request.at.seconds * _MS_PER_SECOND
            if not 0 <= at_ms <= _LAST_MS:
                raise invalid("at", "a time in the years 1970 to 9999")
        stored = await asyncio.to_thread(self._versions.get, at_ms)
        response = pb.GetFactoryResponse(version=_to_version(stored.factory), toml=stored.toml)
        response.set_time.FromMilliseconds(stored.set_ms)
        return response


def _to_version(factory: Factory) -> pb.FactoryVersion:
    message = pb.FactoryVersion(
        version=factory.version,
        sites=[_to_site(site) for _, site in sorted(factory.sites.items())],
        pools=[_to_pool(pool) for _, pool in sorted(factory.pools.items())],
        weights=map(_to_weights, factory.weights),
    )
    message.start_time.FromMilliseconds(factory.start_ms)
    return message


def _to_site(site: Site) -> pb.FactorySite:
    carbon = site.carbon
    return pb.FactorySite(
        site=site.site,
        contracted_watts=site.contracted_watts,
        pue=_to_text(site.pue),
        reserved_watts=site.reserved_watts,
        carbon_location="" if carbon is None else _to_text(carbon.location),
        carbon_market="" if carbon is None else _to_text(carbon.market),
        carbon_source="" if carbon is None else carbon.source,
    )


def _to_pool(pool: Pool) -> pb.FactoryPool:
    return pb.FactoryPool(
        pool=pool.pool,
        site=pool.site,
        hardware=pool.hardware,
        device_count=pool.device_count or 0,
        devices=sorted(pool.devices),
        idle_mw=pool.idle_mw,
        idle=_IDLE[pool.idle],
    )


def _to_weights(weights: Weights) -> pb.TokenWeights:
    return pb.TokenWeights(
        hardware=weights.hardware,
        model=weights.model,
        input=_to_text(Decimal(weights.input) / WEIGHT_UNIT),
        cached_input=_to_text(Decimal(weights.cached_input) / WEIGHT_UNIT),
        output=_to_text(Decimal(weights.output) / WEIGHT_UNIT),
        source=weights.source,
    )


def _to_text(number: Decimal | None) -> str:
    return "" if number is None else f"{number:f}"
