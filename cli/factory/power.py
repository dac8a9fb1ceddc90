"""What sites draw by their last attributed interval, and for which tiers; figures without words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tokenworks.meter.v1 import energy_service_pb2 as pb

# The reason of what is nobody's, beside the tiers.
NOBODY: Final = ""
_MJ_PER_JOULE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDraw:
    """What a pool draws (W): of its hosts where these are metered, else of its boards."""

    pool: str
    boundary: str
    watts: Decimal
    is_valid: bool
    watts_by_tier: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDraw:
    """What a site draws (W): its machines, and with what it takes beside them.

    `machines_watts` is None where no pool's energy is known; `silent_pools` are those of which it
    is not. `facility_watts` is None where no PUE is known; the headroom is that of the machines
    then.
    """

    site: str
    contracted_watts: int
    reserved_watts: Mapping[str, int]
    machines_watts: Decimal | None
    pue: Decimal | None
    is_measured: bool
    silent_pools: Sequence[str] = ()
    watts_by_tier: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def facility_watts(self) -> Decimal | None:
        """Watts of the whole site."""
        if self.pue is None or self.machines_watts is None:
            return None
        return self.machines_watts * self.pue

    @property
    def headroom_watts(self) -> Decimal | None:
        """What is left of the contract, negative when it is exceeded; None where no power is."""
        drawn = self.machines_watts if self.facility_watts is None else self.facility_watts
        return None if drawn is None else self.contracted_watts - drawn


def find_draws(
    boards: pb.QueryEfficiencyResponse, hosts: pb.QueryEfficiencyResponse, *, seconds: int
) -> list[PoolDraw]:
    """Return what each pool draws by answers about so many seconds, split by pool and tier."""
    of_hosts = {it.pool for it in hosts.pools if it.measured_mj}
    draws = [
        _draw(it, hosts, boundary="host", seconds=seconds)
        for it in hosts.pools
        if it.pool in of_hosts
    ]
    draws += [
        _draw(it, boards, boundary="board", seconds=seconds)
        for it in boards.pools
        if it.measured_mj and it.pool not in of_hosts
    ]
    return sorted(draws, key=lambda it: it.pool)


def find_site_draws(
    version: pb.FactoryVersion, draws: Sequence[PoolDraw], sites: Sequence[pb.SiteEnergy]
) -> list[SiteDraw]:
    """Return what each described site draws, by what its pools do."""
    by_pool = {it.pool: it for it in draws}
    energy = {it.site: it for it in sites}
    found = []
    for site in version.sites:
        names = [it.pool for it in version.pools if it.site == site.site]
        pools = [by_pool[name] for name in names if name in by_pool]
        known = energy.get(site.site)
        by_tier: dict[str, Decimal] = {}
        for pool in pools:
            for tier, watts in pool.watts_by_tier.items():
                by_tier[tier] = by_tier.get(tier, Decimal(0)) + watts
        found.append(
            SiteDraw(
                site=site.site,
                contracted_watts=site.contracted_watts,
                reserved_watts=dict(site.reserved_watts),
                machines_watts=sum((pool.watts for pool in pools), Decimal(0)) if pools else None,
                pue=Decimal(known.pue) if known is not None and known.pue else None,
                is_measured=known is not None and known.basis == pb.PUE_BASIS_MEASURED,
                silent_pools=[name for name in names if name not in by_pool],
                watts_by_tier=by_tier,
            )
        )
    return found


def _draw(
    pool: pb.PoolEnergy, answer: pb.QueryEfficiencyResponse, *, boundary: str, seconds: int
) -> PoolDraw:
    by_tier = {
        row.tier: _watts(row.energy_mj, seconds)
        for row in answer.rows
        if row.pool == pool.pool and row.energy_mj
    }
    nobodys_mj = pool.measured_mj - pool.attributed_mj
    if nobodys_mj:
        by_tier[NOBODY] = _watts(nobodys_mj, seconds)
    return PoolDraw(
        pool=pool.pool,
        boundary=boundary,
        watts=_watts(pool.measured_mj, seconds),
        is_valid=pool.interval_count == pool.valid_interval_count,
        watts_by_tier=by_tier,
    )


def _watts(energy_mj: int, seconds: int) -> Decimal:
    return Decimal(energy_mj) / (_MJ_PER_JOULE * seconds)
