"""Who was heard, on a real Postgres: never backwards, never waiting, and what is found there."""

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import NotFound
from meter.journal.protocol import Verdict
from meter.journal.session import Seen
from meter.producers import Presence, ProducerQuery, Standing
from meter.store.health import HealthStore
from meter.store.journal import JournalStore
from meter.store.producers import ProducerStore
from tests.meter.store.recording import (
    INSTANCE,
    administrator,
    ask,
    ask_one,
    commit,
    numbered,
    open_producer,
    origin_of,
)

NEWER = b"n" * 16
SEEN = "SELECT seen_time FROM producers"
PAST = "UPDATE producers SET seen_time = seen_time - interval '1 hour'"


@pytest.fixture
def producers(engine: Engine) -> ProducerStore:
    """The producers of the database."""
    return ProducerStore(engine)


def present(
    producer: str = "p",
    *,
    heard_seconds: float | None = 0.0,
    announced: int = 0,
    instance: bytes = INSTANCE,
) -> Presence:
    """Return an open stream of acme."""
    return Presence(
        account_id="acme",
        producer=producer,
        instance=instance,
        announced_sequence=announced,
        heard_seconds=heard_seconds,
    )


def execute(database_url: str, *statements: str) -> None:
    """Change the database behind the store's back."""
    with administrator(database_url) as connection:
        for statement in statements:
            connection.execute(statement)


def test_write__never_goes_backwards(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """A later sign of life moves the time on; an earlier one, by whatever clock, does not."""
    open_producer(store)
    execute(database_url, PAST)
    before = ask_one(database_url, SEEN)
    producers.write_presences([present(heard_seconds=7200.0, announced=9)])
    assert ask_one(database_url, SEEN) == before
    producers.write_presences([present(heard_seconds=5.0)])
    age = ask_one(database_url, f"SELECT clock_timestamp() - ({SEEN})").total_seconds()
    assert 5 <= age < 60
    # A clock that was ahead and is set right: what it wrote stays, commits included.
    execute(database_url, "UPDATE producers SET seen_time = now() + interval '1 day'")
    ahead = ask_one(database_url, SEEN)
    producers.write_presences([present()])
    commit(store, numbered(1, 5))
    open_producer(store)
    assert ask_one(database_url, SEEN) == ahead


def test_write__announced_never_falls(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """The highest number that was announced stays."""
    open_producer(store)
    for announced in (9, 7):
        execute(database_url, PAST)
        producers.write_presences([present(announced=announced)])
    assert ask_one(database_url, "SELECT announced_sequence FROM producers") == 9


def test_write__waits_for_no_commit(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """A producer that a commit holds is passed over, the others are written, all are told."""
    for name in ("held", "free"):
        open_producer(store, name)
    execute(database_url, PAST)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM producers WHERE producer = 'held' FOR UPDATE")
        found = producers.write_presences([present("free"), present("held")])
    assert {name for _, name, _ in found} == {"free", "held"}
    fresh = "SELECT producer FROM producers WHERE seen_time > now() - interval '1 minute'"
    assert ask(database_url, fresh) == [("free",)]


def test_write__says_what_is_not_told_yet(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """What is announced while a commit holds its producer is told again; by others it is not."""
    open_producer(store)
    key, older = ("acme", "p", INSTANCE), ("acme", "p", NEWER)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM producers FOR UPDATE")
        assert not producers.write_presences([present(announced=9)])[key].is_told
        assert producers.write_presences([present(announced=0)])[key].is_told
        assert producers.write_presences([present(announced=9, instance=NEWER)])[older].is_told
    assert producers.write_presences([present(announced=9)])[key].is_told
    assert ask_one(database_url, "SELECT announced_sequence FROM producers") == 9


def test_write__what_a_commit_wrote_is_not_written_again(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """A producer that reports all the time costs no row more for being there."""
    open_producer(store)
    commit(store, numbered(1, 5))
    row = "SELECT xmin::text, ctid::text FROM producers"
    before = ask(database_url, row)
    producers.write_presences([present(announced=1)])
    assert ask(database_url, row) == before


@pytest.mark.parametrize(
    ("instance", "found"),
    [
        (INSTANCE, Seen(instance=NEWER, sequence=1, is_known=True)),
        (NEWER, Seen(instance=NEWER, sequence=1, is_known=True)),
        (b"x" * 16, Seen(instance=NEWER, sequence=1, is_known=False)),
    ],
)
def test_write__finds_who_is_the_newest(
    store: JournalStore,
    producers: ProducerStore,
    database_url: str,
    instance: bytes,
    found: Seen,
) -> None:
    """An older instance learns of the newer one and moves nothing; a forgotten one learns that."""
    open_producer(store)
    commit(store, numbered(1, 5))
    producers.open_producer(origin_of(instance=NEWER), first_sequence=0)
    execute(database_url, PAST)
    before = ask_one(database_url, SEEN)
    answer = producers.write_presences([present(instance=instance, announced=50)])
    assert answer == {("acme", "p", instance): found}
    assert (ask_one(database_url, SEEN) > before) is (instance == NEWER)


def test_write__makes_active_again_who_was_heard(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """A producer that was retired while it reports elsewhere is active once it says something."""
    open_producer(store)
    producers.retire("acme", "p", by="key_1")
    states = []
    for heard_seconds in (None, 0.0):
        producers.write_presences([present(heard_seconds=heard_seconds)])
        states.append(ask_one(database_url, "SELECT state FROM producers"))
    assert states == [Standing.RETIRED, Standing.ACTIVE]


def test_write__row_that_is_gone_is_absent(producers: ProducerStore) -> None:
    """Nothing is told of a producer that the database does not know, and nothing is made."""
    assert producers.write_presences([present()]) == {}
    assert producers.summarize(silence_ms=None).counts == {}


def test_open__lost_with_its_producer(store: JournalStore, producers: ProducerStore) -> None:
    """What an earlier instance announced and a newer one does not hold is a gap."""
    open_producer(store)
    commit(store, numbered(1, 5))
    producers.write_presences([present(announced=4)])
    # The same instance still holds them.
    open_producer(store)
    assert producers.summarize(silence_ms=None).missing_count == 0
    state = producers.open_producer(origin_of(instance=NEWER), first_sequence=0)
    assert (state.sequence, state.digests) == (4, b"")
    (found,) = producers.list_producers(ProducerQuery(), silence_ms=None)
    assert [(gap.first_sequence, gap.last_sequence) for gap in found.gaps] == [(2, 4)]
    assert found.missing_batch_count == 3
    result = commit(store, numbered(5, 5, instance=NEWER))
    assert result[0].verdict is Verdict.RECORD


def test_open__what_was_announced_and_is_held_is_no_gap(
    store: JournalStore, producers: ProducerStore
) -> None:
    """A newer instance with the spool of the older one loses nothing."""
    open_producer(store)
    commit(store, numbered(1, 5))
    producers.write_presences([present(announced=4)])
    state = producers.open_producer(origin_of(instance=NEWER), first_sequence=2)
    assert state.sequence == 1
    assert producers.summarize(silence_ms=None).missing_count == 0


def test_open__row_lost_and_instance_known(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """An instance whose row was lost opens anew and is nobody's older one."""
    open_producer(store)
    execute(database_url, "DELETE FROM producers")
    state = producers.open_producer(origin_of(), first_sequence=0)
    assert (state.instance, state.sequence) == (INSTANCE, 0)


def test_end__retires_only_who_has_nothing_left(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """A goodbye counts from the newest instance, without backlog; opening makes active again."""
    state = "SELECT state FROM producers"
    open_producer(store)
    producers.write_presences([present(announced=1)])
    producers.end_producer(origin_of())
    assert ask_one(database_url, state) == Standing.ACTIVE
    commit(store, numbered(1, 5))
    producers.end_producer(origin_of(instance=NEWER))
    assert ask_one(database_url, state) == Standing.ACTIVE
    producers.end_producer(origin_of())
    assert ask_one(database_url, state) == Standing.RETIRED
    open_producer(store)
    assert ask_one(database_url, state) == Standing.ACTIVE


def test_silence__of_whom_is_expected(
    store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """Registered and active ones fall silent, retired ones do not; announcing anew begins anew."""
    for name in ("talks", "silent", "retired"):
        open_producer(store, name)
    producers.register("acme", "never", edge=False, silence_ms=None, by="key_1")
    producers.retire("acme", "retired", by="key_1")
    execute(
        database_url,
        f"{PAST}, create_time = create_time - interval '1 hour' WHERE producer <> 'never'",
        "UPDATE producers SET create_time = create_time - interval '2 hours'"
        " WHERE producer = 'never'",
    )
    producers.write_presences([present("talks", announced=3)])
    summary = producers.summarize(silence_ms=60_000)
    assert summary.counts == {
        Standing.REGISTERED: 1,
        Standing.ACTIVE: 2,
        Standing.RETIRED: 1,
    }
    heard = summary.hearing({"acme"})
    assert summary.hearings == {"acme": heard}
    assert (heard.silent_count, summary.backlog_count) == (2, 3)
    assert [name for _, name in summary.seen] == ["never", "silent", "talks"]
    two_hours_ago = ask_one(
        database_url, "SELECT extract(epoch FROM now() - interval '2 hours')::float8 * 1000"
    )
    assert heard.heard_until_ms == pytest.approx(two_hours_ago, abs=60_000)
    query = ProducerQuery(silent_only=True)
    silent = producers.list_producers(query, silence_ms=60_000)
    assert [(it.name, it.is_silent) for it in silent] == [("never", True), ("silent", True)]
    assert producers.list_producers(query, silence_ms=None) == []
    assert producers.summarize(silence_ms=None).hearing().silent_count == 0
    producers.retire("acme", "silent", by="key_1")
    again = producers.register("acme", "silent", edge=False, silence_ms=60_000, by="key_1")
    assert (again.standing, again.is_silent) == (Standing.REGISTERED, False)


def test_register__active_one_stays_as_it_is(store: JournalStore, producers: ProducerStore) -> None:
    """Announcing a producer that reports changes nothing; a name of nobody is not found."""
    open_producer(store)
    commit(store, numbered(1, 5))
    known = producers.register("acme", "p", edge=False, silence_ms=None, by="key_1")
    assert (known.standing, known.recorded_sequence) == (Standing.ACTIVE, 1)
    with pytest.raises(NotFound):
        producers.retire("acme", "q", by="key_1")
    with pytest.raises(NotFound):
        producers.retire("", "p", by="key_1")


def test_list__in_pages_by_account_and_name(store: JournalStore, producers: ProducerStore) -> None:
    """Each page begins after the last one's end; the gaps listed are the newest of all."""
    for number in range(12):
        open_producer(store, "b", first_sequence=2 * number + 2)
        commit(store, numbered(2 * number + 2, 5, producer="b"))
    for account, name in (("", "z"), ("acme", "a"), ("team", "a")):
        producers.register(account, name, edge=False, silence_ms=None, by="key_1")
    order = [("", "z"), ("acme", "a"), ("acme", "b"), ("team", "a")]
    for place in range(4):
        after = order[place - 1] if place else ("", "")
        query = ProducerQuery(after=after, limit=1)
        (found,) = producers.list_producers(query, silence_ms=None)
        assert (found.account_id, found.name) == order[place]
    query = ProducerQuery(account_id="acme", standing=Standing.ACTIVE)
    (only,) = producers.list_producers(query, silence_ms=None)
    assert only.missing_batch_count == 12
    assert [gap.first_sequence for gap in only.gaps] == list(range(23, 3, -2))


def test_known__tells_an_older_instance_from_a_forgotten_one(
    store: JournalStore, producers: ProducerStore
) -> None:
    """An instance that a newer one has followed is known for good."""
    open_producer(store)
    producers.open_producer(origin_of(instance=NEWER), first_sequence=0)
    assert producers.is_known(origin_of())
    assert not producers.is_known(origin_of(instance=b"x" * 16))


def test_summary__of_one_that_is_announced_anew(
    engine: Engine, store: JournalStore, producers: ProducerStore, database_url: str
) -> None:
    """Who had ended long ago and is expected anew has the time of a new one, for doctor too."""
    open_producer(store)
    producers.end_producer(origin_of())
    past = PAST + ", create_time = create_time - interval '1 hour'"
    execute(database_url, past)
    producers.register("acme", "p", edge=False, silence_ms=60_000, by="key_1")
    heard = producers.summarize(silence_ms=60_000).hearing()
    assert heard.silent_count == 0
    created = "SELECT extract(epoch FROM create_time)::float8 * 1000 FROM producers"
    assert heard.heard_until_ms == pytest.approx(ask_one(database_url, created), abs=1)
    assert HealthStore(engine).read(silence_ms=60_000).silent_count == 0
    execute(database_url, past)
    assert producers.summarize(silence_ms=60_000).hearing().silent_count == 1
    assert HealthStore(engine).read(silence_ms=60_000).silent_count == 1
