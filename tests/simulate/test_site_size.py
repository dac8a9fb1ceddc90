"""How large a site is."""

from fractions import Fraction

import pytest

from cli.simulate.site.size import TIERS, SizeInvalid, parse_size


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("1GW", 1_000_000_000),
        ("10GW", 10_000_000_000),
        ("0.5GW", 500_000_000),
        ("100MW", 100_000_000),
        ("250kW", 250_000),
        ("100kW", 100_000),
    ],
)
def test_parse_size__of_a_site(text: str, watts: int) -> None:
    """A size is a number and a unit, in watts."""
    assert parse_size(text).watts == watts


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "GW", "1 GW", "1gw", "1Gw", "-1GW", "+1GW", "1e3MW", ".5GW", "1.GW", "1GW\n"),
        *("\uff11GW", "99kW", "11GW", "10.1GW", "0GW", "999999GW", "1W", "nanGW", "0.1000001MW"),
    ],
)
def test_parse_size__of_nothing(text: str) -> None:
    """What is no size, or one that is too small or too large, is refused."""
    with pytest.raises(SizeInvalid, match=r"^must be "):
        parse_size(text)


def test_size__of_a_gigawatt() -> None:
    """A gigawatt is 0.7 M events a second from two thousand servers, in equal parts of power."""
    size = parse_size("1GW")
    assert (size.server_count, size.account_count) == (2_000, 1_000)
    assert sum(size.server_events(tier) * size.pool_server_count for tier in TIERS) == 700_000
    # 0.5 MW a server at the site's meters, less what cooling and losses take.
    assert size.board_milliwatts == 1_000_000_000_000 * 5 // 6 // 2_000


@pytest.mark.parametrize("text", ["100kW", "200kW", "3MW", "100MW", "10GW"])
def test_size__scales(text: str) -> None:
    """Requests follow from watts at any size, and no server has more than fits a batch."""
    size = parse_size(text)
    events = sum(size.server_events(tier) * size.pool_server_count for tier in TIERS)
    assert events == Fraction(size.watts * 700, 10**6)
    assert all(size.server_events(tier) < 5_000 for tier in TIERS)
    assert size.server_count % len(TIERS) == 0
