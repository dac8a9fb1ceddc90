"""What goes to Postgres by the driver: together, in order, and with the fate of a transaction."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from meter.runtime.engine import make_engine
from meter.runtime.trips import (
    BYTEA,
    UUID,
    Row,
    Statement,
    Trips,
    Value,
    forget_prepared,
    from_int,
    from_timestamp,
    to_array,
    to_int2,
    to_int4,
    to_int8,
    to_number_array,
    to_text_array,
    to_timestamp,
)
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    end_connections,
    wait_for_lock,
)

ADD = Statement(
    name="add", text="INSERT INTO accounts VALUES ($1::text, $1::text, now()) RETURNING account_id"
)
NAMED = "SELECT count(*) FROM accounts WHERE account_id IN ('one', 'two', 'three')"
LOCK = Statement(name="lock", text="SELECT pg_advisory_xact_lock(1) IS NULL")
LONG = Statement(name="long", text="SELECT $1::bytea || $1::bytea")
PARAMETERS_TOO_MANY = 65_536
READS: dict[str, tuple[Value, str]] = {
    "SELECT array_to_json($1::text[])::text": (
        to_text_array(["", "a b", "NULL", "\u00e9{},"]),
        '["","a b","NULL","\u00e9{},"]',
    ),
    "SELECT array_to_json($1::bytea[])::text": (
        to_array(BYTEA, [b"", b"\0\xff"]),
        '["\\\\x","\\\\x00ff"]',
    ),
    "SELECT coalesce(array_length($1::bytea[], 1), 0)::text": (to_array(BYTEA, []), "0"),
    "SELECT coalesce(array_length($1::uuid[], 1), 0)::text": (to_array(UUID, []), "0"),
    "SELECT coalesce(array_length($1::bigint[], 1), 0)::text": (to_number_array([]), "0"),
    "SELECT $1::text": ("\u00e9", "\u00e9"),
    "SELECT array_to_json($1::uuid[])::text": (
        to_array(UUID, [bytes(16), b"\xff" * 16]),
        '["00000000-0000-0000-0000-000000000000","ffffffff-ffff-ffff-ffff-ffffffffffff"]',
    ),
    "SELECT array_to_json($1::bigint[])::text": (
        to_number_array([0, -1, 2**63 - 1]),
        "[0,-1,9223372036854775807]",
    ),
    "SELECT $1::smallint::text": (to_int2(-32_768), "-32768"),
    "SELECT $1::integer::text": (to_int4(2_147_483_647), "2147483647"),
    "SELECT $1::timestamptz::text": (
        to_timestamp(datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        "1999-12-31 23:59:59.999999+00",
    ),
}


@pytest.fixture
def owned(database_url: str) -> Iterator[Engine]:
    """Connections that may do anything, as a journal's."""
    engine = make_engine(database_url, pool_size=2, role=None)
    event.listen(engine, "rollback", forget_prepared)
    yield engine
    engine.dispose()


def test_values__are_what_postgres_reads(owned: Engine) -> None:
    """Numbers, times and arrays arrive as they are, none of them empty or strange to it."""
    with owned.connect() as connection:
        trips = Trips(connection)
        for place, (question, (value, read)) in enumerate(READS.items()):
            statement = Statement(name=f"read_{place}", text=question)
            assert trips.ask(statement, value) == [[read.encode()]]


def test_values__are_read_as_postgres_writes_them(owned: Engine) -> None:
    """Numbers of every size, and times before and after 2000, come back."""
    times = (datetime(1969, 7, 20, tzinfo=UTC), datetime(2026, 11, 27, 1, 2, 3, 4, tzinfo=UTC))
    question = "SELECT -1::smallint, 7::integer, $1::bigint, $2::timestamptz"
    statement = Statement(name="all", text=question)
    with owned.connect() as connection:
        trips = Trips(connection)
        for time in times:
            ((*numbers, found),) = trips.ask(statement, to_int8(2**62), to_timestamp(time))
            assert [from_int(it) for it in numbers] == [-1, 7, 2**62]
            assert from_timestamp(found) == time


def test_tell__goes_with_what_is_asked(owned: Engine) -> None:
    """What is told waits for what is asked, is done before it, and hears its own rows."""
    heard: list[Sequence[Row]] = []
    with owned.begin() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"one", on_rows=heard.append)
        assert not heard
        assert trips.ask(ADD, b"two") == [[b"two"]]
        assert heard == [[[b"one"]]]
        assert trips.count(ADD, b"three") == 1
        assert connection.execute(text(NAMED)).scalar() == 3
        trips.commit()


def test_connection__is_spoken_on_after_what_waits(owned: Engine) -> None:
    """Whoever speaks by SQLAlchemy finds what was told before."""
    with owned.begin() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"one")
        assert trips.connection.execute(text(NAMED)).scalar() == 1


def test_commit__is_one_with_what_waits(owned: Engine, database_url: str) -> None:
    """All is there for others once the commit is answered, before SQLAlchemy has ended."""
    with owned.begin() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"one")
        trips.tell(ADD, b"two")
        trips.commit()
        assert ask_one(database_url, NAMED) == 2


def test_commit__is_not_done_after_a_fault(owned: Engine, database_url: str) -> None:
    """A statement that fails takes with it what came before, what came behind, and the commit."""

    def add_twice() -> None:
        with owned.begin() as connection:
            trips = Trips(connection)
            trips.ask(ADD, b"one")
            for name in (b"two", b"two", b"three"):
                trips.tell(ADD, name)
            trips.commit()

    with pytest.raises(DBAPIError, match="duplicate key") as failure:
        add_twice()
    assert not failure.value.connection_invalidated
    assert ask_one(database_url, NAMED) == 0


def test_push__is_done_while_nobody_asks(owned: Engine, database_url: str) -> None:
    """Postgres does what was pushed before anything is asked, and answers it in its turn."""
    heard: list[str] = []
    with owned.begin() as connection:
        trips = Trips(connection)
        with administrator(database_url) as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            trips.tell(LOCK, on_rows=lambda _: heard.append("lock"))
            trips.push()
            wait_for_lock(database_url)
            assert not heard
        trips.tell(ADD, b"one", on_rows=lambda _: heard.append("one"))
        trips.push()
        trips.tell(ADD, b"two", on_rows=lambda _: heard.append("two"))
        trips.commit()
        assert heard == ["lock", "one", "two"]
        assert ask_one(database_url, NAMED) == 2


def test_push__of_all_that_is_committed(owned: Engine, database_url: str) -> None:
    """A commit with nothing new to say is one all the same."""
    with owned.begin() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"one")
        trips.push()
        trips.commit()
        assert ask_one(database_url, NAMED) == 1


def test_push__of_what_fails(owned: Engine, database_url: str) -> None:
    """The fault of what was pushed keeps what comes behind it, and the commit, from being done."""

    def add_twice() -> None:
        with owned.begin() as connection:
            trips = Trips(connection)
            trips.tell(ADD, b"one")
            trips.tell(ADD, b"one")
            trips.push()
            trips.tell(ADD, b"two")
            trips.commit()

    with pytest.raises(DBAPIError, match="duplicate key") as failure:
        add_twice()
    assert not failure.value.connection_invalidated
    assert ask_one(database_url, NAMED) == 0


def test_drop__ends_what_was_pushed(owned: Engine, database_url: str) -> None:
    """Nothing of it is done, and whoever comes next has a session without its answers."""
    with owned.connect() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"one")
        trips.push()
        trips.drop()
        assert connection.invalidated
    with owned.connect() as connection:
        trips = Trips(connection)
        assert trips.ask(LONG, b"x") == [[b"xx"]]
        trips.drop()
        assert not connection.invalidated
    assert ask_one(database_url, NAMED) == 0


def test_rollback__may_make_the_session_forget_what_is_prepared(
    owned: Engine, database_url: str
) -> None:
    """Psycopg deallocates all after a rollback, once it has prepared anything: it is asked for."""
    for name in (b"one", b"two"):
        with owned.begin() as connection:
            for _ in range(10):
                connection.execute(text("SELECT :value"), {"value": 1})
            Trips(connection).ask(ADD, name)
            connection.rollback()
    with owned.begin() as connection:
        trips = Trips(connection)
        trips.tell(ADD, b"three")
        trips.commit()
    assert ask_one(database_url, NAMED) == 1


def test_send__is_read_while_it_is_written(owned: Engine) -> None:
    """Neither side waits for the other with more to say than the kernel holds between them."""
    sizes: list[int] = []
    with owned.begin() as connection:
        trips = Trips(connection)
        for _ in range(16):
            trips.tell(
                LONG, b"x" * 4_000_000, on_rows=lambda rows: sizes.extend(len(it) for (it,) in rows)
            )
        sending = threading.Thread(target=trips.send, daemon=True)
        sending.start()
        sending.join(WAIT_SECONDS_MAX)
        assert not sending.is_alive()
    assert sizes == [8_000_000] * 16


def test_send__of_what_cannot_be_sent(owned: Engine, database_url: str) -> None:
    """The fault is told as it is, and a connection whose answers were not read is nobody's."""

    def send() -> None:
        with owned.begin() as connection:
            trips = Trips(connection)
            trips.tell(ADD, b"one")
            trips.tell(ADD, *[b"two"] * PARAMETERS_TOO_MANY)
            trips.commit()

    with pytest.raises(DBAPIError, match="number of parameters"):
        send()
    with owned.begin() as connection:
        trips = Trips(connection)
        assert trips.ask(ADD, b"three") == [[b"three"]]
        trips.commit()
    assert ask_one(database_url, NAMED) == 1


def test_fault__of_a_lost_connection_is_that_of_all(owned: Engine, database_url: str) -> None:
    """Who ends one session ends them all: the next one is new, whoever has it, and says why."""
    with owned.connect() as one, owned.connect() as other:
        assert one.connection.driver_connection is not other.connection.driver_connection

    def ended() -> None:
        with owned.begin() as connection:
            trips = Trips(connection)
            trips.ask(ADD, b"one")
            end_connections(database_url)
            trips.tell(ADD, b"two")
            trips.commit()

    with pytest.raises(DBAPIError, match="terminating connection") as failure:
        ended()
    assert failure.value.connection_invalidated
    for _ in range(3):
        with owned.connect() as one, owned.connect() as other:
            assert Trips(one).ask(LONG, b"x") == Trips(other).ask(LONG, b"x") == [[b"xx"]]
    assert ask(database_url, NAMED) == [(0,)]
