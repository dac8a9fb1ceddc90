"""Many streams open, or end, in one transaction: as one by one, and waiting for nobody."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import Overloaded
from meter.domain.event import Origin
from meter.journal.commit import Result, commit_group
from meter.journal.protocol import Verdict
from meter.producers import Opening, Presence, Standing
from meter.store.journal import JournalStore
from meter.store.producers import ProducerStore
from tests.meter.store.recording import (
    INSTANCE,
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    commit,
    now_ms,
    numbered,
    open_producer,
    origin_of,
    owner,
    producers_of,
    wait_for_lock,
)

NEWER: Final = b"n" * 16
NAMES: Final = ("a", "b", "c", "d")
INSTANCES: Final = (INSTANCE, NEWER, b"x" * 16)
# As a commit does that has written and not ended.
HOLD: Final = "UPDATE producers SET sequence = sequence WHERE producer = 'held'"
MAKE: Final = (
    "INSERT INTO producers (account_id, producer, instance, sequence, digests, state,"
    " announced_sequence, key_id, create_time)"
    " VALUES ('acme', %s, '0123456789abcdef', 0, '', 2, 0, '', now())"
)


def opening(producer: str, *, instance: bytes = INSTANCE, first_sequence: int = 0) -> Opening:
    """Return what a stream of acme's asks for."""
    origin = origin_of(producer, instance=instance)
    return Opening(origin=origin, first_sequence=first_sequence)


def of_account(origin: Origin, account_id: str) -> Origin:
    """Return the same of another account's key."""
    return origin._replace(account_id=account_id)


def drawn_openings(random: Random) -> Sequence[Opening]:
    """Return what some producers ask for at a moment, each in whatever state it is."""
    names = random.sample(NAMES, random.randint(1, len(NAMES)))
    return [
        Opening(
            origin=origin_of(name, instance=random.choice(INSTANCES))._replace(
                key_id=f"key_{turn}"
            ),
            first_sequence=random.choice((0, 0, 1, 3, 9)),
            missing_from=random.choice((0, 0, 0, 1, 4)),
            announced_sequence=random.choice((0, 0, 5, 12)),
            may_be_new=random.random() < 0.8,
        )
        for turn, name in enumerate(names)
    ]


def open_by_itself(producers: ProducerStore, asked: Opening) -> object:
    """Open one alone, and return its state, or None where it is refused."""
    try:
        return producers.open_producer(
            asked.origin,
            first_sequence=asked.first_sequence,
            missing_from=asked.missing_from,
            announced_sequence=asked.announced_sequence,
            may_be_new=asked.may_be_new,
        )
    except Overloaded:
        return None


def contents(database_url: str, account_id: str) -> list[list[tuple[Any, ...]]]:
    """Return all that the database has of an account's producers, but the times."""
    row = "producer, instance, sequence, digests, state, announced_sequence, key_id, edge"
    questions = (
        f"SELECT {row}, seen_time IS NULL FROM producers",
        "SELECT producer, instance FROM producer_instances",
        "SELECT producer, first_sequence, last_sequence FROM producer_gaps",
    )
    return [
        sorted(ask(database_url, f"{it} WHERE account_id = '{account_id}'")) for it in questions
    ]


@pytest.mark.parametrize("seed", range(4))
def test_open__together_is_as_one_by_one(store: JournalStore, database_url: str, seed: int) -> None:
    """However producers open, end and fall back: a group does what each of it alone would do."""
    random = Random(seed)
    producers = producers_of(store)
    for _ in range(12):
        asked = drawn_openings(random)
        together = producers.open_producers(asked)
        alone = [
            open_by_itself(producers, replace(it, origin=of_account(it.origin, "team")))
            for it in asked
        ]
        assert together == alone
        # Some record in between, as commits do, and some lose their row, as in a restore.
        move = random.choice(
            (
                "sequence = sequence + 2, digests = '\\x0102030405060708'",
                "announced_sequence = sequence + 7",
                f"state = {Standing.RETIRED}",
                "seen_time = NULL",
            )
        )
        name = random.choice(NAMES)
        with administrator(database_url) as connection:
            connection.execute(f"UPDATE producers SET {move} WHERE producer = %s".encode(), (name,))
            if random.random() < 0.2:
                connection.execute("DELETE FROM producers WHERE producer = %s", (name,))
        ending = [it.origin for it in random.sample(asked, random.randint(0, len(asked)))]
        producers.end_producers(ending)
        for origin in ending:
            producers.end_producer(of_account(origin, "team"))
        assert contents(database_url, "acme") == contents(database_url, "team")


def test_open__who_is_held_is_left_out(store: JournalStore, database_url: str) -> None:
    """A group waits for no commit: whoever it holds is to be opened alone, all others are open."""
    producers = producers_of(store)
    open_producer(store, "held")
    asked = [opening("held", instance=NEWER), opening("free", instance=NEWER)]
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as holder:
        holder.execute(HOLD)
        states = pool.submit(producers.open_producers, asked).result(WAIT_SECONDS_MAX)
    assert [None if it is None else it.instance for it in states] == [None, NEWER]
    known = "SELECT producer, instance FROM producer_instances ORDER BY 1, 2"
    assert ask(database_url, known) == [("free", NEWER), ("held", INSTANCE)]


def test_open__alone_waits_for_a_commit(store: JournalStore, database_url: str) -> None:
    """One that is held is opened after whoever holds it, from what that one has written."""
    open_producer(store, "held")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as holder:
        holder.execute("UPDATE producers SET sequence = 7, announced_sequence = 7")
        state = pool.submit(
            producers_of(store).open_producer,
            origin_of("held", instance=NEWER),
            first_sequence=0,
        )
        wait_for_lock(database_url)
        holder.commit()
        assert state.result(WAIT_SECONDS_MAX).sequence == 7


def test_open__who_may_not_be_new_is_left_out(store: JournalStore, database_url: str) -> None:
    """Where an account has no room the group makes no row of it, and opens the others."""
    asked = [replace(opening("new"), may_be_new=False), opening("free")]
    states = producers_of(store).open_producers(asked)
    assert [it is None for it in states] == [True, False]
    assert ask(database_url, "SELECT producer FROM producers") == [("free",)]


def test_open__makes_rows_in_their_order(store: JournalStore, database_url: str) -> None:
    """A group that waits for a row which another server makes holds none that comes after it."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as other:
        other.execute(MAKE, ("m",))
        asked = [opening("z"), opening("m")]
        opened = pool.submit(producers_of(store).open_producers, asked)
        wait_for_lock(database_url)
        other.execute(MAKE, ("z",))
        other.commit()
        assert None not in opened.result(WAIT_SECONDS_MAX)


def test_end__together_retires_whom_it_may(store: JournalStore, database_url: str) -> None:
    """Of a group those end that are the newest and have nothing left; who is held is left out."""
    producers = producers_of(store)
    for name in ("done", "followed", "behind", "held"):
        open_producer(store, name)
    commit(store, numbered(1, 5, producer="done"))
    producers.open_producer(origin_of("followed", instance=NEWER), first_sequence=0)
    with administrator(database_url) as connection:
        connection.execute("UPDATE producers SET announced_sequence = 3 WHERE producer = 'behind'")
    origins = [origin_of(name) for name in ("held", "done", "followed", "behind", "nobody")]
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as holder:
        holder.execute(HOLD)
        decided = pool.submit(producers.end_producers, origins).result(WAIT_SECONDS_MAX)
    assert decided == [None, True, True, True, None]
    ended = f"SELECT producer FROM producers WHERE state = {Standing.RETIRED} ORDER BY 1"
    assert ask(database_url, ended) == [("done",)]
    producers.end_producer(origin_of("held"))
    assert ask(database_url, ended) == [("done",), ("held",)]


def test_end__alone_waits_for_a_commit(store: JournalStore, database_url: str) -> None:
    """One that is held is retired, or not, by what whoever holds it has written."""
    producers = producers_of(store)
    for name in ("held", "behind"):
        open_producer(store, name)
    state = "SELECT producer, state FROM producers ORDER BY 1"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as holder:
        holder.execute("UPDATE producers SET announced_sequence = 3 WHERE producer = 'behind'")
        holder.execute(HOLD)
        for name in ("behind", "held"):
            ending = pool.submit(producers.end_producer, origin_of(name))
            wait_for_lock(database_url)
            holder.commit()
            ending.result(WAIT_SECONDS_MAX)
            holder.execute(HOLD)
        holder.rollback()
    assert ask(database_url, state) == [("behind", Standing.ACTIVE), ("held", Standing.RETIRED)]


def test_open__beside_commits_and_presences(engine: Engine, database_url: str) -> None:
    """Two servers that open, end, record and hear the same producers never wait in a ring."""
    journal = owner(engine)
    names = [f"p{number}" for number in range(20)]
    producers = ProducerStore(engine)

    def open_and_end(server: int) -> None:
        for turn in range(20):
            random = Random(server * 20 + turn)
            new = [f"new {turn} {number}" for number in range(10)]
            asked = [opening(name) for name in random.sample([*names, *new], 30)]
            producers.open_producers(asked)
            producers.end_producers([it.origin for it in random.sample(asked, 10)])
            for it in random.sample(asked, 3):
                open_by_itself(producers, it)

    def record() -> list[Verdict]:
        found = []
        for turn in range(20):
            group = [numbered(turn + 1, 5, producer=name) for name in names]
            for result in commit_group(journal, group, now_ms=now_ms):
                assert result is None or isinstance(result, Result)
                found += [] if result is None else [result.verdict]
        return found

    def hear() -> None:
        for turn in range(40):
            presences = [
                Presence(
                    account_id="acme",
                    producer=name,
                    instance=INSTANCE,
                    announced_sequence=0,
                    heard_seconds=0.0,
                )
                for name in Random(turn).sample(names, len(names))
            ]
            producers.write_presences(presences)

    producers.open_producers([opening(name) for name in names])
    with ThreadPoolExecutor(4) as pool:
        works = [pool.submit(open_and_end, 0), pool.submit(open_and_end, 1), pool.submit(hear)]
        recording = pool.submit(record)
        for work in works:
            work.result(WAIT_SECONDS_MAX)
        assert Verdict.RECORD in recording.result(WAIT_SECONDS_MAX)
    assert ask_one(database_url, "SELECT count(*) FROM producer_gaps") == 0
