"""Two sides at an equal mix: the mix takes nothing from the figures, and what lacks is said."""

from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.factory.compare import Served, Side, change, compare

CASES: Final = 1_000
JOULE: Final = 1_000
MEGAWATT_HOUR: Final = 3_600_000_000 * JOULE


def served(tokens: int, mj: int, *, usd: int | None = 1) -> Served:
    """A tier."""
    return Served(
        output_tokens=tokens,
        energy_mj=mj,
        usd=None if usd is None else Fraction(usd),
        sold_tokens=tokens,
    )


def side(name: str = "a", **tiers: Served) -> Side:
    """A side."""
    return Side(name=name, tiers=tiers)


def test_compare__at_the_mix_of_the_first() -> None:
    """A mix that moved to the cheaper tier is no progress."""
    # Free takes 1 J a token and high 3 J, on both sides.
    before = side(free=served(100, 100 * JOULE), high=served(300, 900 * JOULE))
    after = side("b", free=served(900, 900 * JOULE), high=served(100, 300 * JOULE))
    found = compare(before, after)
    assert found.mix == {"free": Fraction(1, 4), "high": Fraction(3, 4)}
    assert found.before is not None
    assert found.after is not None
    assert found.before.tokens_per_joule == found.after.tokens_per_joule == Fraction(2, 5)
    assert found.own_after is not None
    assert found.own_after.tokens_per_joule == Fraction(1000, 1200)
    assert found.mix_share == 1
    assert not found.missing


def test_compare__money_by_the_energy() -> None:
    """Dollars a megawatt-hour are those of the mix's tokens by their energy, a year's 8,760."""
    before = side(
        high=Served(output_tokens=50, energy_mj=MEGAWATT_HOUR, usd=Fraction(40), sold_tokens=100)
    )
    found = compare(before, before).before
    assert found is not None
    # Half of the tokens that were sold were measured, and so is half of the money.
    assert found.usd_per_megawatt_hour == 20
    assert found.usd_per_megawatt_year == 20 * 8760


def test_compare__the_software_update() -> None:
    """700 to 5,000 tokens a second of the same power is 7.14 times, of money as well."""
    day = 86_400
    before = side("software:before", high=served(700 * day, 40_000 * day * JOULE, usd=700 * day))
    after = side("software:after", high=served(5_000 * day, 40_000 * day * JOULE, usd=5_000 * day))
    found = compare(before, after)
    assert found.before is not None
    assert found.after is not None
    assert change(found.before.tokens_per_joule, found.after.tokens_per_joule) == Fraction(50, 7)
    assert change(
        found.before.usd_per_megawatt_year, found.after.usd_per_megawatt_year
    ) == Fraction(50, 7)


def test_compare__a_tier_of_one_side_only() -> None:
    """Only tiers that both have are compared; how much that is, and what lacks, is said."""
    before = side(free=served(100, 100), high=served(300, 900))
    after = side("b", free=served(50, 50), ultra=served(1, 1))
    found = compare(before, after)
    assert found.mix == {"free": 1}
    assert found.mix_share == Fraction(1, 4)
    assert found.missing == [
        "a served no ultra in intervals of valid power",
        "b served no high in intervals of valid power",
    ]


def test_compare__nothing_in_common() -> None:
    """Without a tier in common there is no figure, rather than one of nothing."""
    found = compare(side(free=served(1, 1)), side("b", high=served(1, 1)))
    assert found.before is None
    assert found.after is None
    assert not found.mix
    assert found.mix_share == 0


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (served(0, 0), "b served no high in intervals of valid power"),
        (served(-5, 10), "b served no high in intervals of valid power"),
        (served(5, 0), "b has no energy of high"),
        (served(5, 5, usd=None), "b has no revenue of high in USD"),
    ],
)
def test_compare__what_a_side_lacks(there: Served, sentence: str) -> None:
    """Each thing that is missing of a tier is said, and no ratio is made without it."""
    found = compare(side(high=served(1, 1)), side("b", high=there))
    assert found.missing == [sentence]
    assert found.after is None or found.after.usd_per_megawatt_hour is None


tiers = st.builds(served, st.integers(1, 10**9), st.integers(1, 10**12), usd=st.integers(0, 10**6))
mixes = st.dictionaries(st.sampled_from(["free", "medium", "high", "ultra"]), tiers, min_size=1)


@settings(max_examples=CASES, deadline=None)
@given(mixes)
def test_compare__with_itself_changes_nothing(found: dict[str, Served]) -> None:
    """A side beside itself has the ratio of all of its tokens by all of its energy, twice."""
    itself = Side(name="a", tiers=found)
    result = compare(itself, itself)
    assert result.before == result.after == result.own_before == result.own_after
    assert result.before is not None
    total = sum(it.energy_mj for it in found.values())
    assert result.before.tokens_per_joule == Fraction(
        JOULE * sum(it.output_tokens for it in found.values()), total
    )


@settings(max_examples=CASES, deadline=None)
@given(mixes, st.integers(2, 50), st.data())
def test_compare__the_second_sides_mix_does_not_matter(
    found: dict[str, Served], times: int, data: st.DataObject
) -> None:
    """Whatever a tier has of the second side, tokens and energy alike, the figures stay."""
    tier = data.draw(st.sampled_from(sorted(found)))
    it = found[tier]
    more = Served(
        output_tokens=it.output_tokens * times,
        energy_mj=it.energy_mj * times,
        usd=None if it.usd is None else it.usd * times,
        sold_tokens=it.sold_tokens * times,
    )
    before = Side(name="a", tiers=found)
    after = Side(name="b", tiers=found | {tier: more})
    assert compare(before, before).after == compare(before, after).after


def test_change__of_nothing_is_none() -> None:
    """There is no ratio to what is not known, or to 0."""
    assert change(None, Fraction(1)) is None
    assert change(Fraction(1), None) is None
    assert change(Fraction(0), Fraction(1)) is None
    assert change(Fraction(2), Fraction(1)) == Fraction(1, 2)
