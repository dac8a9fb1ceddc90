"""Contracts: which version is in force, whose usage it bills, and what its periods are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.contracts import (
    Contracts,
    ContractVersion,
    PriceBy,
    accounts_below,
    billing_periods,
)
from billing.periods import Month, Span, month_span
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.times import to_ms
from tests.billing.terms import a_contract


def at(text: str) -> int:
    """The instant of a time in UTC."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def version(
    contract: str = "c",
    start: str = "2026-01-01",
    end: str | None = None,
    *,
    covers: tuple[str, ...] = ("acme",),
) -> ContractVersion:
    """A version of a contract, in UTC."""
    return replace(
        a_contract(),
        contract=contract,
        start_ms=at(start),
        end_ms=None if end is None else at(end),
        covers=covers,
    )


def account(account_id: str, *parents: tuple[str, str | None]) -> Account:
    """An account with these dated parents."""
    return Account(
        account_id=account_id,
        handle=account_id,
        create_ms=at(parents[0][0]),
        close_ms=None,
        parents=tuple(ParentEdge(start_ms=at(start), parent_id=it) for start, it in parents),
    )


TREE = AccountTree(
    [
        account("acme", ("2026-01-01", None)),
        account("team", ("2026-01-01", "acme")),
        account("agent", ("2026-01-01", "team")),
        account("other", ("2026-01-01", None)),
        account("mover", ("2026-03-01", "acme"), ("2026-06-01", "other")),
    ]
)


@pytest.mark.parametrize(
    ("price_by", "sold"), [(PriceBy.REQUESTED, "asked"), (PriceBy.SERVED, "answered")]
)
def test_sold_model__by_name(price_by: PriceBy, sold: str) -> None:
    """The name that is sold is the one that the contract prices by."""
    contract = replace(a_contract(), price_by=price_by)
    assert contract.sold_model("asked", "answered") == sold


def test_versions__end_where_the_next_begins() -> None:
    """A version is in force until its contract's next one, or its own end if that is earlier."""
    contracts = Contracts(
        [
            version(start="2026-07-01"),
            version(start="2026-01-01"),
            version(start="2026-03-01", end="2026-04-01"),
            version("other", "2026-02-01", "2027-01-01", covers=("other",)),
        ]
    )
    spans = [(it.start_ms, it.end_ms) for it in contracts.versions("c")]
    assert spans == [
        (at("2026-01-01"), at("2026-03-01")),
        (at("2026-03-01"), at("2026-04-01")),
        (at("2026-07-01"), None),
    ]
    assert [it.contract for it in contracts] == ["c", "c", "c", "other"]
    assert contracts.versions("nobody") == ()


@pytest.mark.parametrize(
    ("instant", "starts"),
    [
        ("2025-12-31T23:45", []),
        ("2026-01-01", ["2026-01-01"]),
        ("2026-02-28T23:45", ["2026-01-01"]),
        ("2026-03-01", ["2026-03-01"]),
        ("2026-03-31T23:45", ["2026-03-01"]),
        ("2026-04-01", []),
    ],
)
def test_covering__at_the_edges(instant: str, starts: list[str]) -> None:
    """A version covers from its first instant until before its last, and then the next does."""
    contracts = Contracts([version(), version(start="2026-03-01", end="2026-04-01")])
    found = [it.start_ms for it in contracts.covering("acme", at(instant))]
    assert found == [at(start) for start in starts]


@pytest.mark.parametrize(
    ("account_id", "instant", "contract"),
    [
        ("acme", "2026-02-01", "whole"),
        ("team", "2026-02-01", "whole"),
        ("agent", "2026-02-01", "whole"),
        # The nearest upward, while it is in force.
        ("team", "2026-05-01", "part"),
        ("agent", "2026-05-01", "part"),
        ("acme", "2026-05-01", "whole"),
        ("agent", "2026-06-01", "whole"),
        # Where the account was at the instant; before its first edge, with its first parent.
        ("mover", "2026-02-01", "whole"),
        ("mover", "2026-05-31T23:45", "whole"),
        ("mover", "2026-06-01", None),
        ("other", "2026-05-01", None),
        ("acme", "2025-12-31T23:45", None),
    ],
)
def test_find_billing__nearest_upward(account_id: str, instant: str, contract: str | None) -> None:
    """The contract that covers the nearest account upward, as tree and contracts stood, bills."""
    contracts = Contracts(
        [version("whole"), version("part", "2026-05-01", "2026-06-01", covers=("team",))]
    )
    found = contracts.find_billing(TREE, account_id, at(instant))
    assert (None if found is None else found.contract) == contract


@pytest.mark.parametrize(
    ("new", "clashes"),
    [
        (version("new"), [("acme", "one"), ("acme", "two")]),
        (version("new", "2026-03-01", "2026-05-01"), []),
        (version("new", "2026-03-01", "2026-05-01T00:15"), [("acme", "two")]),
        (version("new", "2026-02-28T23:45", "2026-05-01"), [("acme", "one")]),
        (version("new", covers=("team",)), []),
        # Its own versions are no clash, and end it.
        (version("one", "2026-02-01"), [("acme", "two")]),
        (version("two", "2026-04-01"), []),
        (version("two", "2026-02-01", "2026-03-01"), [("acme", "one")]),
        (version("two", "2026-06-01", covers=("acme", "team")), []),
    ],
)
def test_clashes__two_contracts_for_one_account(
    new: ContractVersion, clashes: list[tuple[str, str]]
) -> None:
    """Two contracts that cover one account at some instant clash; those that follow do not."""
    contracts = Contracts(
        [version("one", "2026-01-01", "2026-03-01"), version("two", "2026-05-01")]
    )
    assert [(it, other.contract) for it, other in contracts.clashes(new)] == clashes


def test_clashes__ends_where_its_own_next_version_begins() -> None:
    """A version before another one of its contract clashes with nothing behind that."""
    later = version("c", "2026-05-01", covers=("team",))
    contracts = Contracts([later, version("d", "2026-06-01")])
    assert contracts.clashes(version("c", "2026-03-01")) == []


def test_billing_periods__month_and_version() -> None:
    """A period is what a month and a version share."""
    contract = version(start="2026-01-10", end="2026-03-20T06:15")
    found = [billing_periods(contract, Month(2026, it)) for it in range(1, 5)]
    assert [[(it.span.start_ms, it.span.end_ms) for it in periods] for periods in found] == [
        [(at("2026-01-10"), at("2026-02-01"))],
        [(at("2026-02-01"), at("2026-03-01"))],
        [(at("2026-03-01"), at("2026-03-20T06:15"))],
        [],
    ]
    assert found[0][0].month == Month(2026, 1)
    assert found[0][0].version is contract


def test_accounts_below__at_any_time_of_a_span() -> None:
    """An account that was below for a part of the span belongs to it."""
    zone = a_contract().zone
    may, june = (month_span(Month(2026, it), zone) for it in (5, 6))
    assert accounts_below(TREE, ["acme"], may) == {"acme", "team", "agent", "mover"}
    assert accounts_below(TREE, ["acme"], june) == {"acme", "team", "agent"}
    assert accounts_below(TREE, ["other"], june) == {"other", "mover"}
    both = Span(start_ms=may.start_ms, end_ms=june.end_ms)
    assert "mover" in accounts_below(TREE, ["acme"], both)
    assert "mover" in accounts_below(TREE, ["other"], both)
    assert accounts_below(TREE, ["team", "other"], may) == {"team", "agent", "other"}


VERSIONS = st.builds(
    version,
    st.sampled_from("abc"),
    st.sampled_from(["2026-01-01", "2026-02-01", "2026-03-01"]),
    st.sampled_from([None, "2026-04-01", "2026-05-01"]),
    covers=st.sampled_from([("acme",), ("team",), ("acme", "team")]),
)


@given(st.lists(VERSIONS, max_size=8), st.integers(0, 8))
def test_having__as_if_all_had_been_there(versions: list[ContractVersion], known: int) -> None:
    """Contracts with others taken in later are those that were made of the newest of each."""
    before = Contracts({(it.contract, it.start_ms): it for it in versions[:known]}.values())
    kept = list(before)
    step = before.having(versions[known:])
    whole = Contracts({(it.contract, it.start_ms): it for it in versions}.values())
    assert list(step) == list(whole)
    for contract in "abc":
        assert step.versions(contract) == whole.versions(contract)
    for account_id in ("acme", "team"):
        for day in ("2026-01-15", "2026-02-15", "2026-03-15", "2026-04-15"):
            found, wanted = (it.covering(account_id, at(day)) for it in (step, whole))
            assert sorted(map(repr, found)) == sorted(map(repr, wanted))
    assert list(before) == kept


def test_among__all_versions_of_who_names_them() -> None:
    """Contracts that name some accounts are found with all their versions, and no others."""
    first, later = version("a"), version("a", "2026-02-01", covers=("team",))
    contracts = Contracts([first, later, version("b", covers=("other",))])
    assert list(contracts.among(["team"])) == list(Contracts([first, later]))
    assert not list(contracts.among(["nobody"]))
