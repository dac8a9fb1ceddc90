"""Software marks on a real Postgres: kept once, in order, never changed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from psycopg import errors
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from meter.domain.errors import Reason, Refused
from meter.energy.marks import SoftwareMark
from meter.store.marks import SoftwareMarkStore
from tests.meter.plain_events import BEGIN_MS

HOUR_MS: Final = 3_600_000


@pytest.fixture
def marks(engine: Engine) -> SoftwareMarkStore:
    """Keeps marks."""
    return SoftwareMarkStore(engine)


def mark(software: str, *, hour: int, pool: str = "h100") -> SoftwareMark:
    """A mark so many hours in."""
    return SoftwareMark(pool=pool, software=software, start_ms=BEGIN_MS + hour * HOUR_MS)


def test_mark__is_listed_by_pool_and_time(marks: SoftwareMarkStore) -> None:
    """Marks come in order, whatever order they were kept in."""
    kept = [
        mark("vllm 0.11", hour=5),
        mark("vllm 0.10", hour=1),
        mark("sglang 1", hour=2, pool="b200"),
    ]
    assert [marks.mark(it, key_id="key_1", now_ms=BEGIN_MS) for it in kept] == [True] * 3
    assert marks.list_marks() == [kept[2], kept[1], kept[0]]
    assert marks.list_marks(pool="h100") == [kept[1], kept[0]]
    assert marks.list_marks(pool="none") == []


def test_mark__the_same_again_changes_nothing(marks: SoftwareMarkStore) -> None:
    """A pool that has the software already is not marked again, then or later."""
    assert marks.mark(mark("vllm 0.10", hour=1), key_id="key_1", now_ms=BEGIN_MS)
    assert not marks.mark(mark("vllm 0.10", hour=1), key_id="key_1", now_ms=BEGIN_MS)
    assert not marks.mark(mark("vllm 0.10", hour=9), key_id="key_1", now_ms=BEGIN_MS)
    assert marks.mark(mark("vllm 0.10", hour=9, pool="b200"), key_id="key_1", now_ms=BEGIN_MS)
    assert len(marks.list_marks()) == 2


def test_mark__back_to_an_older_software(marks: SoftwareMarkStore) -> None:
    """A rollback is a mark like any other."""
    for hour, software in enumerate(("vllm 0.10", "vllm 0.11", "vllm 0.10")):
        assert marks.mark(mark(software, hour=hour), key_id="key_1", now_ms=BEGIN_MS)
    assert len(marks.list_marks()) == 3


def test_mark__another_software_at_the_same_time(marks: SoftwareMarkStore) -> None:
    """What was said of a time stays."""
    marks.mark(mark("vllm 0.10", hour=1), key_id="key_1", now_ms=BEGIN_MS)
    with pytest.raises(Refused) as raised:
        marks.mark(mark("vllm 0.11", hour=1), key_id="key_1", now_ms=BEGIN_MS)
    assert raised.value.reason is Reason.FACTORY_REFUSED
    assert "h100 has vllm 0.10 from" in raised.value.message
    assert marks.list_marks() == [mark("vllm 0.10", hour=1)]


def test_mark__many_at_once_are_one(marks: SoftwareMarkStore) -> None:
    """Of callers who say the same at the same time one is told that it changed something."""
    with ThreadPoolExecutor(8) as pool:
        told = pool.map(
            lambda _: marks.mark(mark("vllm", hour=1), key_id="key_1", now_ms=BEGIN_MS), range(8)
        )
        assert sorted(told) == [False] * 7 + [True]


def test_mark__may_not_be_rewritten(marks: SoftwareMarkStore, engine: Engine) -> None:
    """The service's role may add marks, and change none."""
    marks.mark(mark("vllm 0.10", hour=1), key_id="key_1", now_ms=BEGIN_MS)
    with engine.begin() as connection, pytest.raises(ProgrammingError) as raised:
        connection.execute(text("UPDATE software_marks SET software = 'other'"))
    assert isinstance(raised.value.orig, errors.InsufficientPrivilege)
