"""Descriptions on a real Postgres: numbered, never changed, and never below what is attributed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from meter.domain.errors import InvalidArgument, NotFound, Reason, Refused
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso
from meter.energy.factory import UNDESCRIBED
from meter.store.factories import FactoryStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import FACTORY, attribute_all, put_energy
from tests.meter.store.recording import WAIT_SECONDS_MAX, ask, wait_for_lock

NEXT_MS = BEGIN_MS + INTERVAL_MS


def toml_from(start_ms: int, *, site: str = "") -> str:
    """Return a description that begins then."""
    return FACTORY.format(begin=to_iso(start_ms), site=site, pool="")


@pytest.fixture
def factories(engine: Engine) -> FactoryStore:
    """Keeps descriptions, for an installation that sells the tier high."""
    return FactoryStore(engine, tiers=("high",))


def set_from(factories: FactoryStore, start_ms: int, *, site: str = "") -> tuple[int, bool]:
    """Set a description; return its number, and whether that changed anything."""
    toml = toml_from(start_ms, site=site)
    factory, changed = factories.set(toml, key_id="key_1", now_ms=BEGIN_MS + 7)
    return factory.version, changed


def refusal_of(factories: FactoryStore, start_ms: int, *, site: str = "") -> str:
    """Return why a description is refused."""
    with pytest.raises(Refused) as failure:
        set_from(factories, start_ms, site=site)
    assert failure.value.reason is Reason.FACTORY_REFUSED
    return str(failure.value)


def test_set__versions_are_numbered(engine: Engine, factories: FactoryStore) -> None:
    """Versions count from 1 as they come, and each is in force from its begin to the next one's."""
    assert factories.load().at(BEGIN_MS) is UNDESCRIBED
    assert set_from(factories, NEXT_MS) == (1, True)
    assert set_from(factories, BEGIN_MS) == (2, True)
    for store in (factories, FactoryStore(engine)):
        known = store.load()
        assert [it.version for it in known] == [2, 1]
        numbers = [known.at(at).version for at in (BEGIN_MS - 1, BEGIN_MS, NEXT_MS - 1, NEXT_MS)]
        assert numbers == [0, 2, 2, 1]


def test_set__again_changes_nothing(factories: FactoryStore, database_url: str) -> None:
    """The same text again is no error; another one from the same time on is refused."""
    assert set_from(factories, BEGIN_MS) == (1, True)
    assert set_from(factories, BEGIN_MS) == (1, False)
    assert "Version 1 is in force from" in refusal_of(factories, BEGIN_MS, site='pue = "2"')
    assert ask(database_url, "SELECT version, key_id FROM factory_versions") == [(1, "key_1")]


def test_set__faults(factories: FactoryStore) -> None:
    """A file with faults is refused with all of them, and what is not sold is one."""
    with pytest.raises(InvalidArgument) as failure:
        set_from(factories, BEGIN_MS, site='pue = "0"\nreserved_watts = { gold = 1 }')
    assert failure.value.reason is Reason.FACTORY_INVALID
    assert len(str(failure.value).splitlines()) == 2


def test_set__nothing_that_is_attributed_changes(
    engine: Engine, factories: FactoryStore, database_url: str
) -> None:
    """A version begins after all that is attributed; the same file again is still no error."""
    set_from(factories, BEGIN_MS)
    put_energy(database_url, 100, start_ms=NEXT_MS)
    assert set_from(factories, BEGIN_MS - INTERVAL_MS) == (2, True)
    attribute_all(engine)
    for start_ms in (NEXT_MS, BEGIN_MS - 2 * INTERVAL_MS):
        assert "attributed up to the interval of" in refusal_of(factories, start_ms)
    assert set_from(factories, BEGIN_MS) == (1, False)
    assert set_from(factories, NEXT_MS + INTERVAL_MS) == (3, True)


def test_set__waits_for_attribution(
    engine: Engine, factories: FactoryStore, database_url: str
) -> None:
    """While intervals are attributed by a version no other one slips below them."""
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            assert factories.hold(connection).at(BEGIN_MS) is UNDESCRIBED
            waiting = pool.submit(set_from, factories, BEGIN_MS)
            wait_for_lock(database_url)
            assert factories.load().at(BEGIN_MS) is UNDESCRIBED
        assert waiting.result(WAIT_SECONDS_MAX) == (1, True)


def test_get__as_it_was_taken_in(factories: FactoryStore) -> None:
    """A version comes back as its file, with when it was taken in; without one it is said."""
    with pytest.raises(NotFound) as failure:
        factories.get(BEGIN_MS)
    assert failure.value.reason is Reason.FACTORY_NOT_FOUND
    set_from(factories, BEGIN_MS)
    stored = factories.get(NEXT_MS)
    assert (stored.factory.version, stored.set_ms) == (1, BEGIN_MS + 7)
    assert stored.toml == toml_from(BEGIN_MS)


@pytest.mark.parametrize("statement", ["UPDATE {} SET key_id = 'x'", "DELETE FROM {}"])
def test_role__service_cannot_change_a_version(engine: Engine, statement: str) -> None:
    """The service's own role may not change what was described."""
    with pytest.raises(ProgrammingError), engine.begin() as connection:
        connection.execute(text(statement.format("factory_versions")))
