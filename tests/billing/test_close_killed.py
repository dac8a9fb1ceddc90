"""A close that is killed, cut off or run twice: numbers 1 to n, one document a period, always."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from billing.closing import CloseOrder
from billing.periods import read_month
from meter.domain.errors import Unavailable
from tests.billing.test_closing import issued, ms, use
from tests.billing.town import Town, book_toml, contract_toml, town_on
from tests.postgres import Cluster

OCTOBER = read_month("2026-10")
TOKENWORKS = Path(sys.executable).parent / "tokenworks"
# What of a close is half done: rows without their document, periods closed without what they say.
HALF_DONE = """
SELECT count(*) FROM issued_invoices i
WHERE line_count <> (SELECT count(*) FROM issued_lines l WHERE l.number = i.number)
UNION ALL
SELECT count(*) FROM billing_periods p
WHERE (p.outcome = 'issued') <> EXISTS (
    SELECT FROM issued_invoices i
    WHERE i.contract = p.contract AND i.period_start = p.period_start
)
UNION ALL
SELECT count(*) FROM billing_periods WHERE state = 'closed' AND settled_cut_id IS NULL
"""


class Stop(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in November: three contracts with usage and one without."""
    with town_on(database_url, now_ms=ms("2026-11-10")) as town:
        town.import_book(book_toml())
        for name in ("a", "b", "c", "idle"):
            town.add_account(name)
            town.set_contract(contract_toml(f"of-{name}", covers=name))
        for name in ("a", "b", "c"):
            use(town, account=name)
        yield town


def check(town: Town) -> list[str]:
    """Hold that nothing is half done and no number is missing; return the numbers."""
    numbers = [str(number) for number, _ in issued(town)]
    assert numbers == [f"NG-2026-{it:06}" for it in range(1, len(numbers) + 1)]
    assert {count for (count,) in town.ask(HALF_DONE)} == {0}
    return numbers


@contextmanager
def stopping(town: Town, monkeypatch: pytest.MonkeyPatch, *, at: int) -> Iterator[list[int]]:
    """Stop before the n-th statement, COPY or commit; yields how many there were, in a list."""
    seen = [0]
    copy = psycopg.Cursor.copy

    def count(*_: object) -> None:
        seen[0] += 1
        if seen[0] == at:
            raise Stop

    def counted_copy(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        count()
        return copy(*arguments, **more)

    monkeypatch.setattr(psycopg.Cursor, "copy", counted_copy)
    for engine, moment in itertools.product(town.engines, ("before_cursor_execute", "commit")):
        event.listen(engine, moment, count)
    try:
        yield seen
    except Stop:
        pass
    finally:
        monkeypatch.undo()
        for engine, moment in itertools.product(town.engines, ("before_cursor_execute", "commit")):
            event.remove(engine, moment, count)


def test_close__killed_at_every_statement(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before whichever statement, COPY or commit it stops, the next close goes on, and once."""
    for at in itertools.count(1):
        with stopping(town, monkeypatch, at=at) as seen:
            town.billing.closing.close(CloseOrder(month=OCTOBER))
        check(town)
        if seen[0] < at:
            break
    assert at > 20
    assert len(check(town)) == 3
    assert town.ask("SELECT count(*) FROM billing_periods WHERE state = 'closed'") == [(4,)]


def _job(town: Town, *words: str) -> "subprocess.Popen[str]":
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("TOKENWORKS_")
    } | {"TOKENWORKS_DATABASE_URL": town.database_url}
    return subprocess.Popen(
        [TOKENWORKS, "billing", "close", "2026-10", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _many(town: Town, count: int) -> None:
    for number in range(count):
        name = f"m{number:03}"
        town.add_account(name)
        town.set_contract(contract_toml(f"of-{name}", covers=name))
        use(town, account=name)


def test_close__two_jobs_of_two_processes(town: Town) -> None:
    """Jobs that close one month beside each other share its periods, and issue each once."""
    _many(town, 6)
    jobs = [_job(town, "--jobs", "2") for _ in range(2)]
    for job in jobs:
        told, errors = job.communicate(timeout=120)
        assert job.returncode == 0, told + errors
    assert len(check(town)) == 9


@pytest.mark.stacks
def test_close__job_killed_at_random_moments(town: Town) -> None:
    """Kill -9 of a job and its processes, whenever it comes, leaves no gap and nothing half."""
    _many(town, 40)
    random = Random(5)
    for _ in range(12):
        job = _job(town, "--jobs", "2")
        try:
            job.communicate(timeout=random.uniform(0.5, 6.0))
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
        if len(check(town)) == 43:
            break
    told, errors = _job(town).communicate(timeout=120)
    assert len(check(town)) == 43, told + errors


def test_close__postgres_lost_in_the_middle(
    town: Town, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are ended under a close end it, and nothing of it is half done."""
    del cluster
    copy = psycopg.Cursor.copy
    lost = 0

    def lose(cursor: Any, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        nonlocal lost
        lost += 1
        with psycopg.connect(town.database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (cursor.connection.info.backend_pid,))
        return copy(cursor, *arguments, **more)

    monkeypatch.setattr(psycopg.Cursor, "copy", lose)
    with pytest.raises(Unavailable):
        town.billing.closing.close(CloseOrder(month=OCTOBER))
    monkeypatch.undo()
    assert lost == 1
    assert check(town) == []
    town.billing.closing.close(CloseOrder(month=OCTOBER))
    assert len(check(town)) == 3
