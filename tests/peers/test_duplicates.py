"""Complaints 1 to 9: the same usage counted, priced or invoiced more than once."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Final

import grpc
import psycopg
import pytest
from sqlalchemy import Engine

from billing.close_result import Outcome as CloseOutcome
from billing.errors import BillingReason
from meter.counting.follower import Follower
from meter.domain.errors import InvalidArgument
from meter.domain.outcome import Outcome
from meter.runtime.engine import DatabaseRole, make_engine
from tests.billing.town import Town, TownEvent, contract_toml
from tests.meter.store.recording import (
    TOTAL,
    ask_one,
    claiming,
    commit,
    counting_of,
    create_accounts,
    follow,
    owner,
    record,
    tokens_in_journal,
)
from tests.peers.customers import WAIT_SECONDS, Customer, client_of, ms, quantity, tokens_of
from tests.wire.session import Session, columns, event, opening, rows, to_columns
from tests.wire.talk import commits_held, record_later, wait_until, waiting_count
from tokenworks.meter.v1 import usage_pb2

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url, pool_size=4)
    yield engine
    engine.dispose()


def test_flexprice_2763__event_that_comes_again_counts_once(session: Session) -> None:
    """A repeat is recognised by its id, within a call and later; no setting has a part in it."""
    session.create_account("flexprice")
    sent = event("flexprice", tokens={INPUT: 5})
    outcomes = session.record(sent, sent) + session.record(sent)
    assert outcomes == [Outcome.RECORDED, Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert tokens_of(session, "flexprice") == {INPUT: 5}


def test_flexprice_1098__sums_are_the_same_whoever_reads_them(town: Town) -> None:
    """Preview, invoice, explanation and the view of usage all read what is counted once."""
    reader = Customer(town, "reader")
    reader.use(input=1_000_000)
    reader.use("2026-10-11", input=500_000)
    preview, issued = reader.preview(), reader.invoice()
    explained = town.billing.explaining.explain_line(reader.number(1), 1)
    shown = "SELECT sum(input)::bigint FROM usage_daily WHERE account_id = 'reader'"
    assert preview.lines == issued.lines
    assert explained.is_closed
    assert quantity(issued.lines) == 1_500_000
    assert town.ask(shown) == [(1_500_000,)]


def test_flexprice_hotspots__two_that_count_share_one_watermark(
    engine: Engine, database_url: str
) -> None:
    """Two processes that count the same events at once count each of them once."""
    journal = owner(engine)
    followers = [follow(counting_of(engine)), follow(counting_of(engine))]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            record(journal, 3, 4)
            list(pool.map(Follower.count_once, followers))
    assert ask_one(database_url, TOTAL) == 5 * 7


def test_lago_api_4744__repeats_are_never_stored(engine: Engine, database_url: str) -> None:
    """What came before leaves nothing behind that a query would have to leave out."""
    journal = owner(engine)
    stored = "SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM event_claims)"
    commit(journal, claiming((1, 5), (2, 7)))
    before = ask_one(database_url, stored)
    for _ in range(5):
        (again,) = commit(journal, claiming((1, 5), (2, 7)))
        assert again.outcomes == [Outcome.DUPLICATE] * 2
    assert ask_one(database_url, stored) == before
    assert tokens_in_journal(database_url) == 12


def test_lago_api_5327__clean_up_of_ids_deletes_no_usage(engine: Engine, database_url: str) -> None:
    """Ids are forgotten in their time; the events that they stood for stay, in both places."""
    journal = owner(engine)
    commit(journal, claiming((1, 5), (2, 7)))
    follow(counting_of(engine)).count_once()
    assert journal.forget_claims(before_ms=ms("2100-01-01")) == 2
    assert tokens_in_journal(database_url) == 12
    assert ask_one(database_url, TOTAL) == 12
    with psycopg.connect(database_url) as connection:
        connection.execute(f"SET ROLE {DatabaseRole.INGEST}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM journal")


# Columns of unique keys that may be null, where two nulls would be two different values.
NULLABLE_KEYS: Final = """
SELECT c.relname, a.attname
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indisunique AND NOT i.indnullsnotdistinct AND NOT a.attnotnull
    -- A key that leaves out the rows with a null promises nothing about them.
    AND pg_get_expr(i.indpred, i.indrelid) IS DISTINCT FROM format('(%I IS NOT NULL)', a.attname)
"""
UNIQUE_TABLES: Final = """
SELECT DISTINCT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE i.indisunique
"""


def test_lago_api_4225__null_makes_no_key_unique(database_url: str) -> None:
    """No unique key of the schema lets two rows through because a column of it is null."""
    with psycopg.connect(database_url) as connection:
        # Only keys that are bound to a certificate have its name, and each name one key.
        assert connection.execute(NULLABLE_KEYS).fetchall() == [("api_keys", "certificate_name")]
        unique = {name for (name,) in connection.execute(UNIQUE_TABLES)}
    assert unique >= {"event_claims", "producers", "journal_first", "usage", "issued_invoices"}


def test_lago_api_4795__billing_job_that_runs_twice_issues_once(town: Town) -> None:
    """Of two closes side by side one issues the invoice, and the other one finds it."""
    twice = Customer(town, "twice")
    twice.use(input=1_000_000)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: twice.close()[0].outcome, range(2)))
    assert sorted(results) == [CloseOutcome.ALREADY_ISSUED, CloseOutcome.ISSUED]
    assert town.ask("SELECT total FROM invoices WHERE contract = 'twice'") == [(3,)]


def test_lago_api_5523__second_close_burns_no_number(town: Town) -> None:
    """What was issued is not issued again, and the next invoice has the next number."""
    again = Customer(town, "again")
    again.set_contract(start="2026-09-01T00:00:00")
    again.use("2026-09-10", input=1_000_000)
    again.use("2026-10-10", input=2_000_000)
    first = again.invoice("2026-09")
    assert again.close("2026-09")[0].outcome is CloseOutcome.ALREADY_ISSUED
    second = again.invoice()
    assert [it.issue and it.issue.number for it in (first, second)] == [
        again.number(1),
        again.number(2),
    ]
    assert [first.total, second.total] == [Decimal(3), Decimal(6)]


OVERLAPPING: Final = """
[[overrides]]
models = ["llama-4"]
factor = "0.5"
[[overrides]]
tiers = ["high"]
factor = "0.1"
"""
WINDOWS: Final = """
[windows.night]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
hours = ["20:00-06:00"]
factor = "0.5"
[windows.early]
days = ["sat"]
hours = ["05:00-08:00"]
factor = "0.5"
"""


def test_lago_api_5916__token_that_fits_two_rules_is_priced_once(town: Town) -> None:
    """Of overrides the first one that fits applies; windows that could meet are refused."""
    fitting = Customer(town, "fitting")
    fitting.set_contract(extra=OVERLAPPING)
    fitting.use(input=1_000_000)
    (line,) = fitting.invoice().lines
    assert (line.token_count, str(line.price.unit_price)) == (1_000_000, "1.5")
    with pytest.raises(InvalidArgument, match="meets window") as refused:
        fitting.import_book('all = "3"' + WINDOWS, start="2026-11-01T00:00:00")
    assert refused.value.reason is BillingReason.BOOK_INVALID


def test_killbill_877__nearest_contract_bills_and_no_other(town: Town) -> None:
    """A team with a contract of its own is in no invoice of the company above it."""
    company = Customer(town, "company")
    town.add_account("company-team", moves=((0, "company"),))
    toml = contract_toml("team", covers="company-team", book="company", zone="UTC", series="TEAM")
    town.set_contract(toml)
    company.use(input=1_000_000)
    town.record(
        TownEvent(account="company-team", end_ms=ms("2026-10-10"), classes={"input": 2_000_000})
    )
    assert quantity(company.invoice().lines) == 1_000_000
    company.name = "company-team"
    assert quantity(company.invoice().lines) == 2_000_000


def test_killbill_1987__new_terms_at_a_local_midnight_bill_each_token_once(town: Town) -> None:
    """Around a change of terms and the ends of a local month no event is in two invoices."""
    east = Customer(town, "east", zone="Asia/Tokyo")
    east.set_contract(start="2026-10-15T00:00:00")
    # Tokyo's midnights: begin of October, the change, begin of November.
    edges = [ms(it) for it in ("2026-09-30T15:00", "2026-10-14T15:00", "2026-10-31T15:00")]
    events = [
        TownEvent(account="east", end_ms=edge + step, classes={"input": 10**6 + 10**place})
        for place, (edge, step) in enumerate((edge, step) for edge in edges for step in (-1, 0))
    ]
    town.record(*events)
    parts = [closed.invoice for closed in east.close()]
    assert [quantity(part.lines) for part in parts if part] == [*(2_000_110, 2_011_000)]


def test_meteroid_1056__usage_that_is_shown_is_the_usage_that_is_billed(town: Town) -> None:
    """Each line leads back to the journal, and the segments there add up to it."""
    shown = Customer(town, "shown")
    town.record(
        *(shown.event(input=count * 10**6, output=1) for count in (5, 7, 5)),
    )
    lines = shown.invoice().lines
    for line in lines:
        found = town.billing.explaining.explain_line(shown.number(1), line.line)
        assert sum(it.token_count for it in found.segments) == line.token_count
    assert [line.token_count for line in lines] == [17_000_000, 3]


def test_langfuse_15917__call_whose_answer_was_lost_counts_once(session: Session) -> None:
    """Whoever heard nothing sends again, and finds what was recorded."""
    session.create_account("unheard")
    sent = event("unheard", tokens={INPUT: 5})
    with commits_held(session.meter.database_url):
        call = record_later(session, sent)
        wait_until(lambda: waiting_count(session.meter.database_url))
        call.cancel()
    again = session.record(sent)
    assert again in ([Outcome.RECORDED], [Outcome.DUPLICATE])
    assert session.record(sent) == [Outcome.DUPLICATE]
    assert tokens_of(session, "unheard") == {INPUT: 5}


class FourTimes(grpc.StreamStreamClientInterceptor):
    """Sends each message behind the first one four times."""

    def intercept_stream_stream(  # type: ignore[override] # bytes are what it gets here
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[bytes],
    ) -> Any:  # noqa: ANN401 - gRPC's own
        """Open the stream with the repeats."""

        def repeated() -> Iterator[bytes]:
            yield next(request_iterator)
            for request in request_iterator:
                yield from (request,) * 4

        return continuation(client_call_details, repeated())


def test_vexa_330__batch_that_is_sent_four_times_keeps_its_number(session: Session) -> None:
    """The client numbers a batch once; whatever sends it again sends the same bytes."""
    with client_of(session, "vexa", interceptors=[FourTimes()]) as client:
        for count in (5, 7):
            client.record(input=count)
            assert client.flush(WAIT_SECONDS)
    assert tokens_of(session, "vexa") == {INPUT: 12}


def test_opencomputer_276__call_without_an_id_is_not_taken(session: Session) -> None:
    """An event that could not be recognised when it comes again is set aside at once."""
    session.create_account("nameless")
    outcomes = session.record(event("nameless", event_id=""), event("nameless"))
    assert outcomes == [Outcome.FIELD_INVALID, Outcome.RECORDED]
    assert tokens_of(session, "nameless") == {INPUT: 3}


def test_polar_9090__account_that_moves_in_mid_month_is_charged_once(town: Town) -> None:
    """What an account used is billed to whom it belonged to then, each part once."""
    customers = [Customer(town, name) for name in ("mover-a", "mover-b")]
    moved_ms = ms("2026-10-15")
    town.add_account("mover", moves=((0, "mover-a"), (moved_ms, "mover-b")))
    town.record(
        *(
            TownEvent(account="mover", end_ms=moved_ms + step, classes={"input": count})
            for step, count in ((-1, 100), (0, 20), (86_400_000, 3))
        )
    )
    assert [quantity(it.preview().lines) for it in customers] == [100, 23]


def test_autumn_2552__each_event_of_a_batch_is_charged(session: Session) -> None:
    """Events that are alike in everything are as many as there are, on streams and in calls."""
    session.create_account("alike")
    same = event("alike", tokens={INPUT: 5}, event_id="")
    batches = [rows(1, *[same] * 10), columns(2, to_columns([same] * 10))]
    answers = session.exchange(opening("alike"), *batches)
    assert not any(answer.ack.set_aside_count for answer in answers[1:])
    assert answers[-1].ack.sequence == 2
    named = []
    for _ in range(10):
        copy = usage_pb2.UsageEvent()
        copy.CopyFrom(same)
        copy.event_id = os.urandom(16).hex()
        named.append(copy)
    assert session.record(*named) == [Outcome.RECORDED] * 10
    assert tokens_of(session, "alike") == {INPUT: 30 * 5}
