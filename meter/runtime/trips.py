"""Statements that go to Postgres together, by the driver: a transaction waits for few answers.

Each answer that is waited for is also a turn of Python's lock, and SQLAlchemy and psycopg take
longer over a statement than the network does. So what is said in every commit is said here: by
libpq's pipelines, prepared once a session, with numbers and arrays in Postgres' own bytes.
"""

import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg import errors, pq
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from meter.runtime.engine import driver_connection

# What a session is known to have prepared; not there where that has to be asked.
_PREPARED: Final = "tokenworks_prepared"
_ASK_PREPARED: Final = b"SELECT name FROM pg_prepared_statements"
_BINARY: Final = 1
# As numbers: of what is asked of each answer, a member of an enumeration is the dearest.
_FATAL_ERROR: Final = int(pq.ExecStatus.FATAL_ERROR)
_PIPELINE_SYNC: Final = int(pq.ExecStatus.PIPELINE_SYNC)
_IDLE: Final = int(pq.TransactionStatus.IDLE)
_OFF: Final = int(pq.PipelineStatus.OFF)
# Between two results there is one nothing; of a connection that was lost there is nothing else.
_NOTHING_MAX: Final = 2
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Types of Postgres.
BYTEA: Final = 17
UUID: Final = 2950

Row = Sequence[bytes]
# Bytes are what Postgres has in memory, a text is what it reads.
Value = bytes | str
_Hear = Callable[[pq.abc.PGresult], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement with parameters $1, $2, ...; a name stands for one text in all of a session."""

    name: str
    text: str


class Trips:
    """Speaks on a connection that SQLAlchemy has begun a transaction on, and beside SQLAlchemy.

    What is told waits until something is asked or pushed, or the end. Faults are those of
    SQLAlchemy.
    """

    def __init__(self, connection: Connection) -> None:
        """Take a connection in a transaction of which nothing was said yet."""
        self._connection = connection
        self._pgconn: pq.abc.PGconn = driver_connection(connection).pgconn
        self._waiting: list[Callable[[], None]] = []
        self._heard: list[_Hear] = []
        self._preparing: set[bytes] = set()

    @property
    def connection(self) -> Connection:
        """The connection, for SQLAlchemy; what waits is sent before."""
        self.send()
        return self._connection

    def tell(
        self,
        statement: Statement,
        *values: Value,
        on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
    ) -> None:
        """Have a statement sent with whatever comes next; `on_rows` takes what it returns."""
        self._tell(statement, values, hear=lambda result: on_rows(_rows_of(result)))

    def ask(self, statement: Statement, *values: Value) -> Sequence[Row]:
        """Send what waits and a statement, and return its rows, in Postgres' own bytes."""
        found: list[Row] = []
        self._tell(statement, values, hear=lambda result: found.extend(_rows_of(result)))
        self.send()
        return found

    def count(self, statement: Statement, *values: Value) -> int:
        """Send what waits and a statement, and return how many rows it has written."""
        counts: list[int] = []
        self._tell(statement, values, hear=lambda result: counts.append(result.command_tuples or 0))
        self.send()
        return counts[0]

    def commit(self) -> None:
        """Send what waits and the commit: a statement that fails keeps it from being done."""
        if self._heard:
            self._command(b"COMMIT")
            self.send()

    def push(self) -> None:
        """Send what waits and go on: Postgres does it meanwhile, and answers what comes next."""
        waiting, self._waiting = self._waiting, []
        with _faults(self._connection):
            _push(self._pgconn, waiting)

    def drop(self) -> None:
        """Hear no answer to what was pushed: nothing of it is committed, and the session ends."""
        if self._pgconn.pipeline_status != _OFF:
            with _faults(self._connection):
                self._pgconn.finish()

    def send(self) -> None:
        """Send what waits, and hear the answers, with those to what was pushed."""
        if not self._heard:
            return
        waiting, heard = self._waiting, self._heard
        self._waiting, self._heard = [], []
        with _faults(self._connection):
            results = _exchange(self._pgconn, waiting)
        for hear, result in zip(heard, results, strict=True):
            hear(result)
        if self._preparing:
            self._prepared().update(self._preparing)
            self._preparing.clear()

    def _tell(self, statement: Statement, values: Sequence[Value], *, hear: _Hear) -> None:
        self._begin()
        name = statement.name.encode()
        if name not in self._prepared() and name not in self._preparing:
            text = statement.text.encode()
            self._add(lambda: self._pgconn.send_prepare(name, text), lambda _: None)
            self._preparing.add(name)
        formats = [isinstance(it, bytes) for it in values]
        sent = [it if isinstance(it, bytes) else it.encode() for it in values]
        self._add(lambda: self._pgconn.send_query_prepared(name, sent, formats, _BINARY), hear)

    def _begin(self) -> None:
        is_idle = self._pgconn.transaction_status == _IDLE
        if is_idle and not self._heard:
            self._command(b"BEGIN")

    def _command(self, text: bytes) -> None:
        self._add(lambda: self._pgconn.send_query_params(text, None), lambda _: None)

    def _add(self, send: Callable[[], None], hear: _Hear) -> None:
        self._waiting.append(send)
        self._heard.append(hear)

    def _prepared(self) -> set[bytes]:
        """Return the names of what the session has prepared."""
        known: set[bytes] | None = self._connection.info.get(_PREPARED)
        if known is None:
            names: list[Row] = []
            self._add(
                lambda: self._pgconn.send_query_params(_ASK_PREPARED, None),
                lambda result: names.extend(_rows_of(result)),
            )
            self.send()
            known = self._connection.info[_PREPARED] = {name for (name,) in names}
        return known


def forget_prepared(connection: Connection) -> None:
    """Hear that SQLAlchemy rolls back: psycopg may have the session forget all that is prepared."""
    if not connection.invalidated:
        connection.info.pop(_PREPARED, None)


def to_array(kind: int, items: Sequence[bytes]) -> bytes:
    """Return an array of `BYTEA` or `UUID` as Postgres has it."""
    sizes = set(map(len, items))
    if len(sizes) == 1:
        parts = [size := sizes.pop().to_bytes(4, "big"), size.join(items)]
    else:
        parts = [part for item in items for part in (len(item).to_bytes(4, "big"), item)]
    return b"".join([_array_head(kind, len(items)), *parts])


def to_text_array(items: Iterable[str]) -> str:
    """Return an array of texts as Postgres reads it; they have neither quotes nor backslashes."""
    return '{"' + '","'.join(items) + '"}'


def to_number_array(numbers: Iterable[int]) -> str:
    """Return an array of numbers as Postgres reads it."""
    return "{" + ",".join(map(str, numbers)) + "}"


def to_int2(number: int) -> bytes:
    """Return a smallint as Postgres has it."""
    return number.to_bytes(2, "big", signed=True)


def to_int4(number: int) -> bytes:
    """Return an integer as Postgres has it."""
    return number.to_bytes(4, "big", signed=True)


def to_int8(number: int) -> bytes:
    """Return a bigint as Postgres has it."""
    return number.to_bytes(8, "big", signed=True)


def to_timestamp(time: datetime) -> bytes:
    """Return an aware time as Postgres has it."""
    return to_int8((time - _EPOCH) // _MICROSECOND)


def from_int(value: bytes) -> int:
    """Return a number of any size."""
    return int.from_bytes(value, "big", signed=True)


def from_timestamp(value: bytes) -> datetime:
    """Return a time, in UTC."""
    return _EPOCH + from_int(value) * _MICROSECOND


def _array_head(kind: int, count: int) -> bytes:
    """Return how many dimensions there are, that nothing is null, the type, length and origin."""
    numbers = (1, 0, kind, count, 1) if count else (0, 0, kind)
    return b"".join(map(to_int4, numbers))


def _rows_of(result: pq.abc.PGresult) -> list[Row]:
    columns = range(result.nfields)
    # What is returned here is never null.
    return [
        [result.get_value(row, column) or b"" for column in columns]
        for row in range(result.ntuples)
    ]


@contextmanager
def _faults(connection: Connection) -> Iterator[None]:
    """Make of the driver's faults what SQLAlchemy makes of them; no lost connection comes again.

    When one is lost, so are all that were made before: whoever ends one ends them all.
    """
    driver = driver_connection(connection)
    try:
        yield
    except psycopg.Error as error:
        raise DBAPIError.instance(
            None,
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            connection_invalidated=driver.closed,
        ) from error
    finally:
        if driver.closed:
            connection.invalidate()
            connection.engine.dispose()


def _exchange(
    pgconn: pq.abc.PGconn, commands: Sequence[Callable[[], None]]
) -> Sequence[pq.abc.PGresult]:
    """Send commands together and return what each came to; raises the first one's fault.

    After a fault the commands behind it are not done.
    """
    results: list[pq.abc.PGresult] = []
    try:
        _enter(pgconn)
        for command in commands:
            command()
        pgconn.pipeline_sync()
        results.extend(_results(pgconn))
        pgconn.exit_pipeline_mode()
    except psycopg.Error:
        # What the database said before it went tells more.
        _raise_fault(results)
        raise
    finally:
        if pgconn.pipeline_status != _OFF:
            # Answers that were not read would be taken for those of whoever comes next.
            pgconn.finish()
    _raise_fault(results)
    return results


def _push(pgconn: pq.abc.PGconn, commands: Sequence[Callable[[], None]]) -> None:
    """Send commands whose answers are heard with those of what comes behind them."""
    try:
        _enter(pgconn)
        for command in commands:
            command()
        _flush(pgconn)
    except psycopg.Error:
        pgconn.finish()
        raise


def _enter(pgconn: pq.abc.PGconn) -> None:
    if pgconn.pipeline_status == _OFF:
        pgconn.enter_pipeline_mode()


def _flush(pgconn: pq.abc.PGconn) -> None:
    """Write all; what cannot be written now is read for by libpq itself: nobody waits for another.

    Who waits for Python's lock has it meanwhile.
    """
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        poller.poll()


def _raise_fault(results: Iterable[pq.abc.PGresult]) -> None:
    for result in results:
        if result.status == _FATAL_ERROR:
            raise errors.error_from_result(result)


def _results(pgconn: pq.abc.PGconn) -> Iterator[pq.abc.PGresult]:
    """Yield results up to the pipeline's end; who waits for Python's lock has it meanwhile."""
    _flush(pgconn)
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN)
    nothing_count = 0
    while nothing_count < _NOTHING_MAX:
        while pgconn.is_busy():
            poller.poll()
            pgconn.consume_input()
        result = pgconn.get_result()
        nothing_count = nothing_count + 1 if result is None else 0
        if result is not None and result.status == _PIPELINE_SYNC:
            return
        if result is not None:
            yield result
    raise psycopg.OperationalError("the connection ended before the answer")
