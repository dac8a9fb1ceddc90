"""Complaints 17 to 22: wrong prices, wrong periods, invoices that do not fit the usage."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from click.testing import CliRunner

from billing.documents.canonical import to_json
from billing.errors import BillingReason
from cli.main import tokenworks
from meter import segment
from meter.counting.aggregate import aggregate
from meter.counting.findings import Check as Looked
from meter.domain.errors import Refused
from meter.domain.outcome import Outcome
from meter.store.usage import UsageStore
from tests.billing.town import Town, TownEvent
from tests.meter.store.recording import wait_for_lock
from tests.peers.customers import WAIT_SECONDS, Customer, ms, quantity, tokens_of
from tests.wire.session import Session, event
from tokenworks.meter.v1 import usage_pb2

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT


def prices(customer: Customer, month: str = "2026-10") -> list[tuple[int, str]]:
    """Return tokens and unit price of each line of a preview."""
    lines = customer.preview(month).lines
    return sorted((line.token_count, str(line.price.unit_price)) for line in lines)


def test_killbill_1001__usage_has_the_price_that_was_in_force_when_it_ended(town: Town) -> None:
    """A version of a book holds from its instant on, in the middle of a month too."""
    dated = Customer(town, "dated")
    dated.import_book('all = "4"', start="2026-10-15T00:00:00")
    for at, count in (("2026-10-14T23:59:59", 100), ("2026-10-15T00:00:00", 7)):
        dated.use(at, input=count)
    assert prices(dated) == [(7, "4"), (100, "3")]


def test_killbill_1081__usage_of_any_size_is_on_the_invoice(town: Town) -> None:
    """Sums that no single number of 32 bits holds are billed like any other."""
    large = Customer(town, "large")
    events = [large.event("2026-10-01T00:00:00", input=1_000_000_000) for _ in range(30)]
    town.record(*events)
    issued = large.invoice()
    assert quantity(issued.lines) == 30_000_000_000
    assert issued.total == 90_000


def test_flexprice_911__preview_is_the_invoice(town: Town) -> None:
    """Of the same usage a preview and an invoice are the same, to the last digit."""
    same = Customer(town, "same", prices=['input = "0.1234567"', 'output = "9.87654321"'])
    same.use(input=333_333, output=77)
    same.use("2026-10-11", input=1, output=1)
    preview, issued = same.preview(), same.invoice()
    assert (preview.lines, preview.total, preview.residue) == (
        issued.lines,
        issued.total,
        issued.residue,
    )


def test_flexprice_2821__line_keeps_all_that_it_was_priced_by(town: Town) -> None:
    """Lines of one price are not merged over tiers, classes, modes or models."""
    split = Customer(town, "split", prices=['all = "3"', '[models."glm"]', 'all = "3"'])
    batch = TownEvent(
        account="split", end_ms=ms("2026-10-10"), classes={"input": 8}, mode="batch", model="glm"
    )
    town.record(
        split.event(tier="high", input=1),
        split.event(tier="free", input=2),
        split.event(tier="high", output=4),
        batch,
    )
    found = {
        (it.model, it.tier, it.mode.name, it.token_class.name): it.token_count
        for it in split.invoice().lines
    }
    assert found == {
        ("llama-4", "high", "ONLINE", "INPUT"): 1,
        ("llama-4", "free", "ONLINE", "INPUT"): 2,
        ("llama-4", "high", "ONLINE", "OUTPUT"): 4,
        ("glm", "high", "BATCH", "INPUT"): 8,
    }


def test_lago_api_1911__issued_invoice_is_read_as_it_was_issued(town: Town) -> None:
    """Neither new prices nor a new contract nor more usage change a byte of it."""
    fixed = Customer(town, "fixed")
    fixed.use(input=1_000_000)
    issued = fixed.invoice()
    fixed.import_book('all = "9"', start="2026-11-01T00:00:00")
    fixed.set_contract(start="2026-11-01T00:00:00", extra='po = "9"\n')
    fixed.use(input=5)
    read = town.billing.explaining.get_invoice(fixed.number(1))
    assert to_json(read) == to_json(issued)


def test_lago_462__contract_that_has_ended_bills_nothing_more(town: Town) -> None:
    """Usage behind a contract's end is in none of its invoices, and is named as uncovered."""
    ended = Customer(town, "ended")
    ended.set_contract(until="2026-10-15T00:00:00")
    ended.use("2026-10-14T23:59:59", input=100)
    ended.use("2026-10-15T00:00:00", input=7)
    assert quantity(ended.preview().lines) == 100
    result = town.billing.closing.close_month(ended.preview().month, account_id=None, dry_run=True)
    assert "ended" in result.uncovered


def test_lago_4247__negative_count_is_set_aside(session: Session) -> None:
    """Nobody takes usage back by reporting less than nothing."""
    session.create_account("negative")
    outcomes = session.record(
        event("negative", tokens={INPUT: -1}), event("negative", tokens={INPUT: 5})
    )
    assert outcomes == [Outcome.COUNT_NEGATIVE, Outcome.RECORDED]
    assert tokens_of(session, "negative") == {INPUT: 5}


def audit(town: Town) -> tuple[str, str]:
    """Return the marks of an audit: of usage against the journal, of invoices against usage."""
    environment = {"TOKENWORKS_DATABASE_URL": town.database_url}
    ran = CliRunner().invoke(tokenworks, ["doctor", "--audit", "--json"], env=environment)
    assert ran.stdout, (ran.stderr, ran.exception)
    marks = {it["check"]: it["mark"] for it in json.loads(ran.stdout)["checks"]}
    return marks[Looked.SUMS], marks[Looked.INVOICES]


def test_openmeter_2383__journal_usage_and_invoices_agree(town: Town) -> None:
    """An audit adds all three up by itself, and finds the token that one of them lacks."""
    audited = Customer(town, "audited")
    audited.use(input=5_000_000, output=7_000_000)
    audited.invoice()
    assert audit(town) == ("ok", "ok")
    change = "UPDATE usage SET input = input + {} WHERE account_id = 'audited' RETURNING 1"
    town.ask(change.format(1))
    assert audit(town) == ("fail", "fail")
    town.ask(change.format(-1))


def test_openmeter_4845__event_of_long_ago_is_in_the_next_preview(town: Town) -> None:
    """There is no snapshot that could be stale: each preview adds up all that is counted."""
    past = Customer(town, "past")
    past.use("2026-10-30", input=5)
    assert quantity(past.preview().lines) == 5
    past.use("2026-10-02", input=7)
    assert quantity(past.preview().lines) == 12


def test_openmeter_3997__close_waits_for_counting_under_way(town: Town) -> None:
    """A cut lies before a round of counting or behind it: an invoice has it whole, or not."""
    during = Customer(town, "during")
    town.record(during.event(input=5), during.event(output=7), count=False)
    usage = UsageStore(town.engine, own_shard=lambda: 0)
    with ThreadPoolExecutor(1) as pool:
        with usage.counting() as step:
            bodies = step.read(events_max=10)
            step.add(aggregate([segment.decode(body) for body in bodies]))
            step.advance()
            cutting = pool.submit(town.host.cuts.take_cut, now_ms=town.clock.now)
            wait_for_lock(town.database_url)
        cut = cutting.result(WAIT_SECONDS)
    question = "SELECT DISTINCT cut_id FROM usage WHERE account_id = 'during'"
    assert town.ask(question) == [(cut.cut_id,)]
    assert quantity(during.invoice().lines) == 12


def test_otari_376__new_prices_never_rewrite_what_was_used_before(town: Town) -> None:
    """A version that is in force cannot be edited, and none can change what was invoiced."""
    history = Customer(town, "history")
    history.use(input=1_000_000)
    history.invoice()
    with pytest.raises(Refused) as edited:
        history.import_book('all = "9"')
    with pytest.raises(Refused) as backdated:
        history.import_book('all = "9"', start="2026-10-05T00:00:00")
    assert edited.value.reason is BillingReason.BOOK_CHANGED
    assert backdated.value.reason is BillingReason.PERIOD_ISSUED
    assert prices(history) == [(1_000_000, "3")]


def test_giselle_865__price_is_that_of_the_event_s_end(town: Town) -> None:
    """An event of before the change that is counted after it has the price of before."""
    ending = Customer(town, "ending")
    ending.import_book('all = "4"', start="2026-10-15T00:00:00")
    ending.use("2026-10-20", input=7)
    ending.use("2026-10-10", input=100)
    assert prices(ending) == [(7, "4"), (100, "3")]


ABOVE: Final = (
    'input = "1"',
    'cache_read = "0.5"',
    '[[models."llama-4".above]]',
    "prompt = 272_000",
    'input = "2"',
    'cache_read = "1"',
)


def test_litellm_40002__long_prompt_has_its_price_from_the_very_token(town: Town) -> None:
    """The whole prompt decides, cached tokens included, and all tokens of the request cost that."""
    long = Customer(town, "long", prices=ABOVE)
    long.use(input=271_000, cache_read=999)
    long.use(input=1_000, cache_read=271_000)
    assert prices(long) == [(999, "0.5"), (1_000, "2"), (271_000, "1"), (271_000, "1")]


PEAK: Final = """all = "1"
[windows.peak]
days = ["mon", "tue", "wed", "thu", "fri"]
hours = ["01:00-04:00"]
factor = "2"
[windows.second_peak]
days = ["mon", "tue", "wed", "thu", "fri"]
hours = ["06:00-10:00"]
factor = "2"
"""


def test_mcp_rubber_duck_148__hour_is_still_known_when_its_price_comes(town: Town) -> None:
    """Usage that was counted before anybody thought of peak hours is priced by them."""
    hours = Customer(town, "hours", prices=['input = "7"'])
    # Thursday the first, and a Saturday, which has no peak.
    for at, count in (
        ("2026-10-01T00:59:59", 1),
        ("2026-10-01T01:00:00", 10),
        ("2026-10-01T04:00:00", 100),
        ("2026-10-01T09:59:59", 1_000),
        ("2026-10-03T09:59:59", 10_000),
    ):
        hours.use(at, input=count)
    hours.import_book(PEAK, start="2026-10-01T00:00:00")
    assert prices(hours) == [(10, "2"), (1_000, "2"), (10_101, "1")]
