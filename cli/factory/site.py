"""A site as it was measured: the terms of a plan that a file need not say."""

from dataclasses import dataclass
from fractions import Fraction

from billing.factory.compare import Served
from billing.factory.figures import TOKENS_PER_PRICE, WATTS_PER_MEGAWATT, ratio
from billing.factory.plan_file import PlanTerms, TierTerms
from cli.connection import Client
from cli.factory.measured import Measured, measure, to_request
from cli.process import CommandError, Exit
from cli.usage.span import Span
from meter.domain.units import MJ_PER_JOULE
from tokenworks.meter.v1 import energy_service_pb2 as pb

_MS_PER_SECOND = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTerms:
    """The terms that a site's measurements give, and what is to be known of them."""

    terms: PlanTerms
    notes: list[str]


def measure_site(client: Client, site: str | None, *, span: Span) -> SiteTerms:
    """Return the terms of a site, the only one when none is named; raises CommandError."""
    request = pb.GetFactoryRequest()
    request.at.FromMilliseconds(span.end_ms - 1)
    version = client.energy.GetFactory(request).version
    names = [it.site for it in version.sites]
    if site is None and len(names) != 1:
        raise CommandError(
            f"there are several sites; name one with --site: {', '.join(names)}", code=Exit.USAGE
        )
    found = next((it for it in version.sites if it.site == (site or names[0])), None)
    if found is None:
        raise CommandError(
            f"there is no site {site}; there are: {', '.join(names)}", code=Exit.USAGE
        )
    pools = {it.pool for it in version.pools if it.site == found.site}
    energy = client.energy.QueryEfficiency(to_request(span, boundary=pb.ENERGY_BOUNDARY_BOARD))
    pue, pue_note = _find_pue(energy, found.site)
    measured = measure(client, span, takes=pools.__contains__)
    seconds = (span.end_ms - span.start_ms) // _MS_PER_SECOND
    tiers = _to_tiers(found, measured, seconds=seconds, pue=pue or Fraction(1))
    return SiteTerms(
        terms=PlanTerms(
            name=f"{found.site}, {span}",
            power_mw=Fraction(found.contracted_watts, WATTS_PER_MEGAWATT),
            pue=pue,
            tiers=tiers,
        ),
        notes=[pue_note, *_notes(measured, planned=set(tiers))],
    )


def _find_pue(answer: pb.QueryEfficiencyResponse, site: str) -> tuple[Fraction | None, str]:
    known = next((it for it in answer.sites if it.site == site and it.pue), None)
    if known is None:
        return None, "no PUE is known: the whole contract is taken for IT"
    basis = "measured" if known.basis == pb.PUE_BASIS_MEASURED else "configured"
    return Fraction(known.pue), f"PUE {known.pue} is {basis}"


def _to_tiers(
    site: pb.FactorySite, measured: Measured, *, seconds: int, pue: Fraction
) -> dict[str, TierTerms]:
    load = measured.load
    if load is None:
        return {}
    return {
        tier: _to_tier(
            served,
            load=load,
            seconds=seconds,
            reserved_mw=ratio(site.reserved_watts.get(tier, 0), WATTS_PER_MEGAWATT * pue),
        )
        for tier, served in measured.served.items()
        if served.is_measured
    }


def _to_tier(served: Served, *, load: Fraction, seconds: int, reserved_mw: Fraction) -> TierTerms:
    """Return a tier whose megawatts bear their part of idling, so that all of them add up."""
    mj_per_token = served.mj_per_token * load
    rate = ratio(MJ_PER_JOULE * WATTS_PER_MEGAWATT, mj_per_token)
    earned = served.usd_per_token
    return TierTerms(
        tps_per_mw=rate,
        price=None if earned is None else earned * TOKENS_PER_PRICE,
        minimum_tps=reserved_mw * rate,
        actual_mw=ratio(served.sold_tokens, seconds * rate),
    )


def _notes(measured: Measured, *, planned: set[str]) -> list[str]:
    notes = []
    if measured.load is not None:
        share = round(100 * measured.standing_mj / (measured.attributed_mj + measured.standing_mj))
        notes.append(
            f"energy is that of {' and '.join(sorted(measured.boundaries))}s;"
            f" idling is {share} % of it, and each tier bears its part"
        )
    left_out = sorted(set(measured.served) - planned)
    if left_out:
        notes.append(f"without energy, and so not in it: {', '.join(left_out)}")
    if measured.other_currencies:
        notes.append(f"revenue in {', '.join(sorted(measured.other_currencies))} is not in it")
    return notes
