"""Books and contracts on a real Postgres: immutable, dated, one contract an account."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from billing.errors import BillingReason
from billing.periods import Month, month_span
from meter.domain.errors import InvalidArgument, MeterError, Refused
from tests.billing.town import Town, book_toml, contract_toml, town_on


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in mid-November, with accounts acme, acme's team, and other."""
    with town_on(database_url, now_ms=ms("2026-11-15")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.add_account("other")
        yield town


def refusal(error: pytest.ExceptionInfo[MeterError]) -> object:
    """Return the reason of an error."""
    return error.value.reason


def test_add_book__again_changes_nothing(town: Town) -> None:
    """The same file twice is one version; what moved is the terms' version, once."""
    terms = town.billing.terms
    before = terms.load().version
    assert [town.import_book(book_toml()).is_new for _ in range(2)] == [True, False]
    assert terms.load().version == before + 1
    assert len(terms.load().books.versions("list")) == 1


def test_add_book__another_under_the_same_date(town: Town) -> None:
    """A version never changes: other prices from the same instant are refused."""
    town.import_book(book_toml('all = "3"'))
    with pytest.raises(Refused) as error:
        town.import_book(book_toml('all = "4"'))
    assert refusal(error) is BillingReason.BOOK_CHANGED


def test_add_book__another_currency(town: Town) -> None:
    """A book keeps its currency from version to version."""
    town.import_book(book_toml())
    later = book_toml(start="2027-01-01T00:00:00").replace("USD", "EUR")
    with pytest.raises(Refused) as error:
        town.import_book(later)
    assert refusal(error) is BillingReason.BOOK_CHANGED


def test_set_contract__another_currency(town: Town) -> None:
    """A contract keeps its currency: what comes late is billed with a later month."""
    town.import_book(book_toml())
    town.import_book(book_toml(book="euros").replace("USD", "EUR"))
    town.set_contract(contract_toml())
    later = contract_toml(start="2027-01-01T00:00:00", book="euros").replace("USD", "EUR")
    with pytest.raises(InvalidArgument, match="is in USD, and a contract keeps its currency"):
        town.set_contract(later)


def test_add_book__faults(town: Town) -> None:
    """A file with faults is refused with all of them, and nothing is kept."""
    with pytest.raises(InvalidArgument) as error:
        town.import_book(book_toml("all = 3", 'tier.gold = { all = "1" }'))
    assert refusal(error) is BillingReason.BOOK_INVALID
    assert "gold" in error.value.message
    assert len(error.value.message.splitlines()) >= 2
    assert "list" not in town.billing.terms.load().books


def test_load__survives_a_tier_that_is_sold_no_more(town: Town, database_url: str) -> None:
    """What was taken in stays readable when the installation sells other tiers."""
    town.import_book(book_toml('tier.ultra = { all = "150" }'))
    with town_on(database_url, now_ms=town.clock.now) as other:
        assert "list" in other.billing.terms.load().books


def test_set_contract__again_and_anew(town: Town) -> None:
    """The same file changes nothing; another one is its next revision while none is issued."""
    terms = town.billing.terms
    town.import_book(book_toml())
    assert town.set_contract(contract_toml()).is_new
    assert not town.set_contract(contract_toml()).is_new
    assert town.set_contract(contract_toml(extra='po = "7"\n')).is_new
    (version,) = terms.load().contracts.versions("acme-2026")
    stored = terms.find_contract_text("acme-2026", version.start_ms)
    assert stored is not None
    assert (version.po, stored.revision) == ("7", 2)


def test_set_contract__account_taken(town: Town) -> None:
    """Two contracts cannot cover one account at one time; one after the other they can."""
    town.import_book(book_toml())
    town.set_contract(contract_toml("first", until="2026-12-01T00:00:00"))
    with pytest.raises(Refused) as error:
        town.set_contract(contract_toml("second", start="2026-11-30T00:00:00"))
    assert refusal(error) is BillingReason.COVER_TAKEN
    town.set_contract(contract_toml("second", start="2026-12-01T00:00:00"))
    town.set_contract(contract_toml("below", covers="team"))


def test_set_contract__two_at_once(town: Town) -> None:
    """Of two that come at the same moment for one account, one is refused."""
    town.import_book(book_toml())

    def put(name: str) -> bool:
        try:
            town.set_contract(contract_toml(name))
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(put, ["a", "b", "c", "d"]))
    assert sum(done) == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("id:acme", "id:nobody", "nobody"),
        ("Europe/Berlin", "Europe/Bielefeld", "Bielefeld"),
        ('book = "list"', 'book = "unknown"', "unknown"),
        ('currency = "USD"', 'currency = "EUR"', "USD"),
    ],
)
def test_set_contract__faults(town: Town, old: str, new: str, says: str) -> None:
    """What does not exist, or is not the book's, is named."""
    town.import_book(book_toml())
    with pytest.raises(InvalidArgument) as error:
        town.set_contract(contract_toml().replace(old, new))
    assert refusal(error) is BillingReason.CONTRACT_INVALID
    assert says in error.value.message


def test_terms__an_account_that_moved_is_still_meant(town: Town) -> None:
    """Covers are whom they meant when the contract was set, wherever that account is now."""
    town.import_book(book_toml())
    town.set_contract(contract_toml(covers="team"))
    town.accounts.move_account("team", parent_id="other", start_ms=None, by="key_1")
    (version,) = town.billing.terms.load().contracts.versions("acme-2026")
    assert version.covers == ("team",)


def test_load__without_what_was_compiled(town: Town, database_url: str) -> None:
    """A contract that was set before there was anything compiled is read from its file."""
    town.import_book(book_toml())
    town.set_contract(contract_toml(extra='minimum = "1.00"\n'))
    compiled = town.billing.terms.load()
    town.ask("UPDATE contracts SET compiled = NULL RETURNING contract")
    with town_on(database_url, now_ms=town.clock.now) as other:
        read = other.billing.terms.load()
    assert list(read.contracts) == list(compiled.contracts)
    assert read.digests == compiled.digests


def test_terms__who_changed_them_is_written_down(town: Town) -> None:
    """Each change is in the audit log, with the hash of its file; what changes nothing is not."""
    for _ in range(2):
        town.import_book(book_toml())
        town.set_contract(contract_toml())
    town.set_contract(contract_toml(extra='po = "7"\n'))
    question = (
        "SELECT key_id, action, subject, detail ->> 'from', detail ->> 'revision',"
        " length(detail ->> 'sha256') FROM audit_log"
        " WHERE action IN ('book.import', 'contract.set') ORDER BY entry_id"
    )
    assert town.ask(question) == [
        ("key_1", "book.import", "list", "2026-01-01T00:00Z", None, 64),
        ("key_1", "contract.set", "acme-2026", "2026-09-30T22:00Z", "1", 64),
        ("key_1", "contract.set", "acme-2026", "2026-09-30T22:00Z", "2", 64),
    ]


def test_files__of_a_span(town: Town) -> None:
    """A span is priced by its contract's file and the versions of the book in force in it."""
    town.import_book(book_toml())
    for month in ("10", "11", "12"):
        town.import_book(book_toml('all = "4"', start=f"2026-{month}-15T00:00:00"))
    town.set_contract(contract_toml())
    terms = town.billing.terms.load()
    (version,) = terms.contracts
    files = terms.files(version, month_span(Month(2026, 11), version.zone))
    starts = [ms("2026-09-30T22:00"), ms("2026-10-15"), ms("2026-11-15")]
    assert [(it.kind, it.name, it.start_ms) for it in files] == list(
        zip(["contract", "book", "book"], ["acme-2026", "list", "list"], starts, strict=True)
    )
    assert files[0].sha256 == hashlib.sha256(contract_toml().encode()).hexdigest()
