"""What holds a month up on a real Postgres, and what a person lets go."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from billing.close_result import Outcome
from billing.errors import BillingReason
from billing.holds import Hold
from billing.periods import read_month
from meter.domain.errors import NotFound, Refused
from meter.engine_drift import EngineDrift, TokenKind
from tests.billing.test_closing import issued, ms, use
from tests.billing.test_month_life import NOVEMBER, OCTOBER, close, only
from tests.billing.town import Town, book_toml, contract_toml, town_on


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early December: acme with a contract from October, other without; book at 3."""
    with town_on(database_url, now_ms=ms("2026-12-10")) as town:
        for account in ("acme", "other"):
            town.add_account(account)
        town.import_book(book_toml())
        yield town


def test_hold__first(town: Town) -> None:
    """The first invoice is held where the contract wants it; approved, it is issued, once."""
    town.set_contract(contract_toml(extra="[closing]\nhold_first = true\n"))
    use(town)
    held = only(close(town))
    assert (held.outcome, held.holds) == (Outcome.HELD_FIRST, (Hold.FIRST,))
    assert issued(town) == []
    approve = town.billing.months.approve
    (done,) = approve("acme-2026", read_month(OCTOBER), reason="seen", key_id="key_1")
    assert done.outcome is Outcome.ISSUED
    assert town.ask("SELECT total, reason, key_id FROM period_approvals") == [
        (Decimal(3), "seen", "key_1")
    ]
    use(town, at="2026-11-10")
    assert only(close(town, NOVEMBER)).outcome is Outcome.ISSUED
    actions = [it for (it,) in town.ask("SELECT action FROM audit_log ORDER BY entry_id")]
    assert actions.count("period.approve") == 1


@pytest.mark.parametrize(
    ("jump", "count", "outcome"),
    [
        ("", 3_000_000, Outcome.ISSUED),
        ("", 3_010_000, Outcome.HELD_JUMP),
        ('hold_jump = "1.5"\n', 1_510_000, Outcome.HELD_JUMP),
        ('hold_jump = "0"\n', 300_000_000, Outcome.ISSUED),
    ],
)
def test_hold__jump(town: Town, jump: str, count: int, outcome: Outcome) -> None:
    """An invoice above three times the last one is held, or above what the contract says."""
    town.set_contract(contract_toml(extra=f"[closing]\n{jump}" if jump else ""))
    use(town)
    use(town, at="2026-11-10", input=count)
    close(town)
    assert only(close(town, NOVEMBER)).outcome is outcome


def test_hold__approval_is_for_one_total(town: Town) -> None:
    """What was approved for a total is held again once it comes to another."""
    town.set_contract(contract_toml(extra="[closing]\nhold_first = true\n"))
    use(town)
    close(town)
    town.ask(
        "INSERT INTO period_approvals (contract, period_start, total, reason, key_id, approve_time)"
        " SELECT contract, period_start, 2.99, 'seen', 'key_1', now() FROM billing_periods"
        " WHERE month = '2026-10-01' RETURNING 1"
    )
    assert only(close(town)).outcome is Outcome.HELD_FIRST
    town.ask(
        "INSERT INTO period_approvals (contract, period_start, total, reason, key_id, approve_time)"
        " SELECT contract, period_start, 3, 'seen', 'key_1', now() FROM billing_periods"
        " WHERE month = '2026-10-01' RETURNING 1"
    )
    assert only(close(town)).outcome is Outcome.ISSUED


def test_hold__drift_cannot_be_approved(town: Town) -> None:
    """Sums that are not the usage hold an invoice, and nobody can let it go."""
    town.set_contract(contract_toml(extra="[closing]\nhold_first = true\n"))
    use(town)
    closer = town.billing.closing.closer

    class Drifting:
        def __getattr__(self, name: str) -> object:
            return getattr(town.host.sums, name)

        def drifted(self, **_: object) -> frozenset[str]:
            return frozenset({"acme"})

    closer.sums = Drifting()  # type: ignore[assignment]
    held = only(close(town))
    assert held.outcome is Outcome.HELD_DRIFT
    assert held.holds == (Hold.DRIFT, Hold.FIRST)
    with pytest.raises(Refused) as error:
        town.billing.months.approve("acme-2026", read_month(OCTOBER), reason="r", key_id="k")
    assert error.value.reason is BillingReason.NOT_HELD


def test_approve__what_is_not_held(town: Town) -> None:
    """What can be closed as it is, is closed already, or does not exist, has nothing to approve."""
    town.set_contract(contract_toml())
    use(town)
    approve = town.billing.months.approve
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            approve("acme-2026", read_month(OCTOBER), reason="r", key_id="k")
        assert refused.value.reason is BillingReason.NOT_HELD
        close(town)
    for contract, month in (("acme-2026", "2027-10"), ("none", OCTOBER)):
        with pytest.raises(NotFound) as unknown:
            approve(contract, read_month(month), reason="r", key_id="k")
        assert unknown.value.reason is BillingReason.PERIOD_NOT_FOUND


class Compared:
    """What engines counted, as a test says; `asked` are the times that were asked of."""

    def __init__(self, *drifts: EngineDrift, hold_ppm: int | None) -> None:
        self.drifts = drifts
        self.hold_ppm = hold_ppm
        self.asked: list[tuple[int, int]] = []

    def compare(self, *, start_ms: int, end_ms: int) -> tuple[EngineDrift, ...]:
        """Return them, whatever is asked."""
        self.asked.append((start_ms, end_ms))
        return self.drifts


def drift_of(model: str, *, engine: int, metered: int) -> EngineDrift:
    """Return a drift of output tokens."""
    return EngineDrift(
        pool="h100",
        model=f"served/{model}",
        kind=TokenKind.OUTPUT,
        start_ms=0,
        end_ms=900_000,
        compared_ms=900_000,
        engine_tokens=engine,
        metered_tokens=metered,
        models=frozenset({model}),
    )


@pytest.mark.parametrize(
    ("hold_ppm", "drift", "outcome"),
    [
        (None, drift_of("llama-4", engine=2, metered=1), Outcome.ISSUED),
        (10_000, drift_of("llama-4", engine=100, metered=99), Outcome.HELD_ENGINES),
        (10_000, drift_of("llama-4", engine=99, metered=100), Outcome.HELD_ENGINES),
        (10_001, drift_of("llama-4", engine=100, metered=99), Outcome.ISSUED),
        (1, drift_of("another", engine=2, metered=1), Outcome.ISSUED),
    ],
)
def test_hold__engines(
    town: Town, hold_ppm: int | None, drift: EngineDrift, outcome: Outcome
) -> None:
    """Too much that engines counted otherwise, of a model that it bills, holds an invoice."""
    town.set_contract(contract_toml())
    use(town)
    town.billing.closing.closer.engine_drifts = Compared(drift, hold_ppm=hold_ppm)
    closed = only(close(town))
    assert closed.outcome is outcome
    is_held = outcome is Outcome.HELD_ENGINES
    assert closed.engine_drifts == ((drift,) if is_held else ())
    if is_held:
        approve = town.billing.months.approve
        (done,) = approve("acme-2026", read_month(OCTOBER), reason="tests", key_id="key_1")
        assert (done.outcome, done.engine_drifts) == (Outcome.ISSUED, ())


def test_hold__engines_of_the_period(town: Town) -> None:
    """Engines are asked of the period's own time, once for all of its contracts."""
    for account in ("acme", "other"):
        town.set_contract(contract_toml(contract=f"{account}-2026", covers=account, zone="UTC"))
        use(town, account=account)
    compared = Compared(hold_ppm=1)
    town.billing.closing.closer.engine_drifts = compared
    close(town)
    assert compared.asked == [(ms("2026-10-01"), ms("2026-11-01"))]
