"""Papers on a real Postgres: made once, kept for good, by as many at once as there are."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from billing.documents.html import to_html
from billing.invoicing import Invoice
from billing.papers import PaperForm, PaperPress, Papers
from billing.store.issuing import issue_all
from billing.store.papers import PaperStore
from billing.typesetting import Typesetter, UnprintableDocument
from meter.domain.errors import Unavailable
from meter.runtime.engine import DatabaseRole, make_engine
from tests.billing.documents.gallery import SAMPLES
from tests.meter.store.recording import wait_for_lock

NOW_MS = 1_793_500_000_000
TYPESETTER = Typesetter()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine in billing's role, on a database with a cut."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO cuts VALUES (31, now())")
        connection.execute("INSERT INTO accounts VALUES ('acme', 'acme', now())")
    engine = make_engine(database_url, pool_size=4, role=DatabaseRole.BILLING)
    yield engine
    engine.dispose()


def issue_some(engine: Engine, count: int) -> list[Invoice]:
    """Issue so many documents, each of a contract of its own."""
    sample = replace(SAMPLES["two_lines"](), issue=None)
    drafts = [
        replace(sample, version=replace(sample.version, contract=f"acme-{place}"))
        for place in range(count)
    ]
    with engine.begin() as connection:
        return issue_all(connection, drafts, terms_version=1, now_ms=NOW_MS)


def ask(database_url: str, question: str) -> list[tuple[Any, ...]]:
    """The rows of a question put by the superuser."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


def press_on(engine: Engine) -> PaperPress:
    """The use cases on a store."""
    return PaperPress(store=PaperStore(engine), typesetter=TYPESETTER)


def test_make_missing__makes_all_once(engine: Engine, database_url: str) -> None:
    """Each document has its three papers, with their hashes, and a second run makes nothing."""
    issued = issue_some(engine, 3)
    made = press_on(engine).make_missing()
    assert (made.made_count, made.unshown, made.failed) == (3, {}, {})
    rows = ask(database_url, "SELECT number, form, body, sha256 FROM invoice_papers")
    assert {(number, form) for number, form, _, _ in rows} == {
        (it.issue.number, form.value) for it in issued if it.issue for form in PaperForm
    }
    assert all(hashlib.sha256(body).digest() == sha256 for _, _, body, sha256 in rows)
    assert press_on(engine).make_missing().made_count == 0
    assert ask(database_url, "SELECT number FROM papers_due") == []
    assert ask(database_url, "SELECT number, form, body, sha256 FROM invoice_papers") == rows


def test_make_missing__up_to_a_limit(engine: Engine, database_url: str) -> None:
    """No more are made than asked for; the next run goes on."""
    issue_some(engine, 3)
    assert press_on(engine).make_missing(limit=2).made_count == 2
    assert len(ask(database_url, "SELECT number FROM papers_due")) == 1
    assert press_on(engine).make_missing(limit=2).made_count == 1


def test_make_missing__stopped_in_the_middle(engine: Engine, database_url: str) -> None:
    """What was not committed is made by the next run: no document has some of its papers."""
    issue_some(engine, 3)
    press = press_on(engine)
    calls = iter([None, None])

    def fail_at_third(invoice: Invoice) -> Papers:
        next(calls)
        return press.make(invoice)

    with pytest.raises(StopIteration):
        PaperStore(engine).make_missing(fail_at_third, after="", limit=10)
    assert ask(database_url, "SELECT count(*) FROM invoice_papers") == [(0,)]
    assert press.make_missing().made_count == 3


def test_make_missing__two_at_once(engine: Engine, database_url: str) -> None:
    """What one is at, the other leaves alone and does not wait for."""
    issue_some(engine, 4)
    press, is_at_work, may_go_on = press_on(engine), Event(), Event()

    def slowly(invoice: Invoice) -> Papers:
        is_at_work.set()
        assert may_go_on.wait(30)
        return press.make(invoice)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(PaperStore(engine).make_missing, slowly, after="", limit=2)
        assert is_at_work.wait(30)
        second = PaperStore(engine).make_missing(press.make, after="", limit=10)
        may_go_on.set()
        assert (len(first.result().made), len(second.made)) == (2, 2)
    assert ask(database_url, "SELECT count(*) FROM invoice_papers") == [(12,)]


def test_make_missing__one_cannot_be_printed(engine: Engine, database_url: str) -> None:
    """A document that cannot be set holds nobody up, is named, and is tried again the next time."""
    issued = issue_some(engine, 3)
    press = press_on(engine)

    class Faulty(Typesetter):
        def to_pdf(self, invoice: Invoice) -> Any:  # noqa: ANN401
            if invoice == issued[1]:
                raise UnprintableDocument("no ink")
            return TYPESETTER.to_pdf(invoice)

    assert issued[1].issue is not None
    faulty = PaperPress(store=PaperStore(engine), typesetter=Faulty())
    made = faulty.make_missing()
    assert (made.made_count, made.failed) == (2, {issued[1].issue.number: "no ink"})
    assert len(ask(database_url, "SELECT number FROM papers_due")) == 1
    assert press.make_missing().made_count == 1


def test_render__what_cannot_be_printed(engine: Engine, database_url: str) -> None:
    """A document that no PDF can be made of is shown in its other forms; nothing is kept."""
    (invoice,) = issue_some(engine, 1)

    class Faulty(Typesetter):
        def to_pdf(self, invoice: Invoice) -> Any:  # noqa: ANN401, ARG002
            raise UnprintableDocument("a fault")

    press = PaperPress(store=PaperStore(engine), typesetter=Faulty())
    assert press.render(invoice, "html") == to_html(invoice)
    assert press.render(invoice, "csv")
    with pytest.raises(UnprintableDocument):
        press.render(invoice, "pdf")
    assert ask(database_url, "SELECT count(*) FROM invoice_papers") == [(0,)]


def test_get__makes_what_is_missing(engine: Engine, database_url: str) -> None:
    """Who asks first has the papers made and kept, and nobody makes them again."""
    (invoice,) = issue_some(engine, 1)
    press = press_on(engine)
    assert press.get(invoice, PaperForm.HTML) == to_html(invoice)
    assert ask(database_url, "SELECT count(*) FROM invoice_papers") == [(3,)]
    assert press.make_missing().made_count == 0


def test_get__is_as_it_was_kept(engine: Engine) -> None:
    """The first to keep a paper wins: later ones, of a later version perhaps, change nothing."""
    (invoice,) = issue_some(engine, 1)
    assert invoice.issue is not None
    store, press = PaperStore(engine), press_on(engine)
    old = {form: f"as of then: {form}".encode() for form in PaperForm}
    store.keep(invoice.issue.number, Papers(bodies=old, unshown=""))
    store.keep(invoice.issue.number, press.make(invoice))
    assert [press.render(invoice, form.value) for form in PaperForm] == list(old.values())


def test_get__while_it_is_made(engine: Engine, database_url: str) -> None:
    """Who asks for a paper that a job is at waits for it, and has what the job kept."""
    (invoice,) = issue_some(engine, 1)
    press, is_at_work, may_go_on = press_on(engine), Event(), Event()

    def slowly(_: Invoice) -> Papers:
        is_at_work.set()
        assert may_go_on.wait(30)
        return Papers(bodies=dict.fromkeys(PaperForm, b"the job's"), unshown="")

    with ThreadPoolExecutor(2) as pool:
        job = pool.submit(PaperStore(engine).make_missing, slowly, after="", limit=2)
        assert is_at_work.wait(30)
        asked = pool.submit(press.get, invoice, PaperForm.PDF)
        wait_for_lock(database_url)
        may_go_on.set()
        assert len(job.result().made) == 1
        assert asked.result() == b"the job's"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE invoice_papers SET body = ''",
        "DELETE FROM invoice_papers",
        "TRUNCATE invoice_papers",
    ],
)
def test_paper__is_never_changed(engine: Engine, statement: str) -> None:
    """The service may add papers, and neither change nor remove one."""
    issue_some(engine, 1)
    press_on(engine).make_missing()
    with engine.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
        connection.exec_driver_sql(statement)


def test_find__without_a_database() -> None:
    """A database that is away is Unavailable, no paper."""
    away = make_engine("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable):
        PaperStore(away).find("NG-2026-000001", PaperForm.PDF)
