"""Better reports of requests that come after their month was closed: billed as corrections are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import pytest

from billing.close_result import Outcome
from billing.invoicing import DocumentKind
from billing.periods import Month
from meter.sources.observation import Source
from tests.billing.town import Town, book_toml, contract_toml, town_on
from tests.meter.arbitrating import Settling
from tests.meter.observing import INPUT, Reporting, seen
from tests.meter.store.recording import commit
from tests.meter.test_intake import ORIGIN
from tests.postgres import Cluster

OCTOBER: Final = Month(2026, 10)
NOVEMBER: Final = Month(2026, 11)


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in November in which acme's October was billed by what an engine's span said."""
    with cluster.database() as url, town_on(url, now_ms=ms("2026-11-05")) as town:
        town.import_book(book_toml())
        town.add_account("acme")
        town.set_contract(contract_toml())
        report(town, Source.SPAN, tokens=1_000_000)
        assert close(town, OCTOBER) is Outcome.ISSUED
        yield town


def report(town: Town, source: Source, *, tokens: int) -> None:
    """Report the one request, and count what is decided about it."""
    observation = seen(
        source.name, model="llama-4", tokens={INPUT: tokens}, end_ms=ms("2026-10-10")
    )
    origin = ORIGIN._replace(received_ms=town.clock.now)
    commit(town.journal, Reporting()(observation, source=source, origin=origin))
    town.count()
    Settling(town.engine, town.journal)()
    town.count()


def close(town: Town, month: Month) -> Outcome:
    """Close a month of acme, whenever it is."""
    closing = town.billing.closing
    (closed,) = closing.close_month(month, account_id="acme", early=True).closed
    return closed.outcome


def issued(town: Town) -> list[tuple[object, ...]]:
    """Return kind and sum of all documents, in order."""
    return town.ask("SELECT kind, net FROM invoices ORDER BY series, number")


@pytest.mark.parametrize(
    ("tokens", "kind", "net"),
    [
        (1_500_000, DocumentKind.SUPPLEMENTARY_INVOICE, "1.50"),
        (600_000, DocumentKind.CREDIT_NOTE, "-1.20"),
    ],
)
def test_late_report__is_billed_or_credited(
    town: Town, tokens: int, kind: DocumentKind, net: str
) -> None:
    """What the gateway knew better comes to a document over the difference, and once."""
    report(town, Source.PROXY, tokens=tokens)
    correcting = town.billing.correcting
    (made,) = correcting.correct("acme-2026", OCTOBER, reason="a report came", key_id="key_1")
    assert (made.kind, made.net) == (kind, Decimal(net))
    assert correcting.correct("acme-2026", OCTOBER, reason="again", key_id="key_1") == ()


def test_late_report__comes_with_the_next_invoice(town: Town) -> None:
    """Nobody corrects October: November's invoice bears the difference."""
    report(town, Source.PROXY, tokens=1_500_000)
    town.clock.now = ms("2026-12-10")
    assert close(town, NOVEMBER) is Outcome.ISSUED
    assert [net for _, net in issued(town)] == [Decimal("3.00"), Decimal("1.50")]


def test_late_report__worse_than_what_was_billed(town: Town) -> None:
    """What an engine's log says later is evidence: no month moves."""
    report(town, Source.LOG, tokens=9_000_000)
    correcting = town.billing.correcting
    assert correcting.correct("acme-2026", OCTOBER, reason="none", key_id="key_1") == ()
