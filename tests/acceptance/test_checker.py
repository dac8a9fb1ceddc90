"""The checker itself: it agrees where all is well, and finds every kind of falsehood."""

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.domain.event import DimensionTable, EventBatch, Origin
from tests.acceptance import checker

# 2026-01-01T00:00:00Z, the begin of an interval.
INTERVAL_MS = 1_767_225_600_000
_PLACE = {"account": "acme", "tier": "high", "model": "large", "mode": "online"}
EVENTS: list[dict[str, Any]] = [
    {**_PLACE, "classes": {"input": 70_000, "output": 5}, "end_time_ms": INTERVAL_MS + 10},
    {**_PLACE, "classes": {"input": 3, "cache_read": 900}, "end_time_ms": INTERVAL_MS + 7},
    {**_PLACE, "classes": {"output": 4_095}, "end_time_ms": INTERVAL_MS + 900_001},
]

_BASICS = """
INSERT INTO accounts VALUES ('acme', 'acme', '2026-01-01Z');
INSERT INTO skus (model, served_model, tier, mode, region) VALUES ('large', 'large', 'high', 1, '');
INSERT INTO dimensions (account_id, sku_id, pool) SELECT 'acme', sku_id, '' FROM skus;
INSERT INTO shards VALUES (0, 1, 2);
INSERT INTO counting VALUES (0, 2, '2026-01-01Z', 2);
"""
_USAGE = """
INSERT INTO usage SELECT 'acme', to_timestamp(%(start_ms)s / 1000.0), sku_id, 0, 1, 0,
    %(input)s, %(cache_read)s, 0, 0, 0, 0, %(output)s, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    %(requests)s, %(output)s, 0 FROM skus
"""
FALSEHOODS = {
    "usage one token more": "UPDATE usage SET output = output + 1 WHERE input > 0",
    "usage in another class": "UPDATE usage SET input = 0, audio_input = input WHERE input > 0",
    "usage one request less": "UPDATE usage SET request_count = request_count - 1 WHERE input > 0",
    "usage in another interval": "UPDATE usage SET interval_start = '2025-01-01Z' WHERE input = 0",
    "usage at another tier": "UPDATE skus SET tier = 'free'",
    "usage row gone": "DELETE FROM usage WHERE input = 0",
    "usage not counted to the end": "UPDATE counting SET position = 1, totalled_position = 1",
    "journal row gone": "DELETE FROM journal WHERE position = 1",
    "last journal row gone": "DELETE FROM journal WHERE position = 2",
    "journal count wrong": "UPDATE journal SET event_count = event_count + 1 WHERE position = 2",
    "journal row twice": (
        "INSERT INTO journal SELECT shard, 3, epoch, event_count, first_end_time, last_end_time,"
        " commit_time, body FROM journal WHERE position = 2"
    ),
}


@pytest.fixture
def recorded(database_url: str) -> Iterator[psycopg.Connection]:
    """A database in which the journal and usage hold EVENTS, as two segments."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_BASICS)
        row = connection.execute("SELECT dimension_id FROM dimensions").fetchone()
        assert row is not None
        for position, serials in ((1, [0, 1]), (2, [2])):
            connection.execute(
                "INSERT INTO journal VALUES (0, %s, 1, %s, now(), now(), now(), %s)",
                (position, len(serials), _segment(serials, dimension_id=row[0])),
            )
        for sums in (
            {"start_ms": INTERVAL_MS, "input": 70_003, "cache_read": 900, "output": 5},
            {"start_ms": INTERVAL_MS + 900_000, "input": 0, "cache_read": 0, "output": 4_095},
        ):
            connection.execute(_USAGE, {**sums, "requests": 2 if sums["input"] else 1})
        yield connection


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A folder with the truth of EVENTS, in two files."""
    lines = [
        json.dumps({**event, "request_id": f"r{serial}"}) for serial, event in enumerate(EVENTS)
    ]
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/0.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n", "utf-8")
    (tmp_path / "truth/1.jsonl").write_text(f"{lines[1]}\n", "utf-8")
    return tmp_path / "truth"


@pytest.mark.usefixtures("recorded")
def test_check__agreement(
    database_url: str, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where truth, journal and usage are the same, the status is 0 and the table shows the sums."""
    assert _check(database_url, truth) == 0
    printed = capsys.readouterr().out
    assert "acme high input 70003 70003 70003" in " ".join(printed.split())
    assert "truth = journal = usage, 3 requests" in printed


@pytest.mark.parametrize("statement", FALSEHOODS.values(), ids=FALSEHOODS.keys())
def test_check__false_database(
    recorded: psycopg.Connection,
    database_url: str,
    truth: Path,
    statement: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each way to falsify journal or usage is found, and named."""
    recorded.execute(statement)
    assert _check(database_url, truth) == 1
    assert "differences, the first: " in capsys.readouterr().out


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("written", "false"),
    [
        ('"output": 5', '"output": 6'),
        ('"acme"', '"zenith"'),
        ('"high"', '"free"'),
        ('"large"', '"small"'),
        ('"online"', '"batch"'),
        (str(INTERVAL_MS + 10), str(INTERVAL_MS - 10)),
        ('"r0"', '"r9"'),
    ],
)
def test_check__false_truth(database_url: str, truth: Path, written: str, false: str) -> None:
    """Each field of a truth line counts: one that is changed is found."""
    file = truth / "0.jsonl"
    text = file.read_text("utf-8")
    assert written in text
    file.write_text(text.replace(written, false, 1), "utf-8")
    assert _check(database_url, truth) == 1


@pytest.mark.usefixtures("recorded")
def test_check__truth_line_gone_or_twice(database_url: str, truth: Path) -> None:
    """An event that was not sent but counted, or sent twice and counted once, is found."""
    file = truth / "1.jsonl"
    line = file.read_text("utf-8")
    file.write_text("", "utf-8")
    assert _check(database_url, truth) == 1
    file.write_text(line * 2, "utf-8")
    assert _check(database_url, truth) == 1


def test_read_segment__planes_and_sums() -> None:
    """Planes of half bytes, bases and running sums are read as the journal's page says."""
    body = _body(
        [["dimension", 0, 7, None], ["end_ms", 3, -2, 1_000], ["tokens.7", 1, 0, None]],
        data=bytes([10, 0, 5]) + bytes([0x20, 0x01]) + bytes([0xA3, 0x0F]),
        request_ids="a\nb\nc",
        event_count=3,
    )
    assert checker.read_segment(body) == [
        checker.Row(7, 1_000 + 10 - 2, {"output": 3}, "a"),
        checker.Row(7, 1_008 + 0x200 - 2, {"output": 10}, "b"),
        checker.Row(7, 1_518 + 0x105 - 2, {"output": 15}, "c"),
    ]


_COUNT = st.one_of(st.just(0), st.integers(0, 15), st.integers(0, 1_000_000_000))
_WRITTEN = st.tuples(
    st.integers(1, 2**31 - 1),
    st.integers(INTERVAL_MS, INTERVAL_MS + 2**30),
    st.fixed_dictionaries(dict.fromkeys(("input", "output", "video_output"), _COUNT)),
    st.text("ab7-", max_size=3),
)


@given(batches=st.lists(st.lists(_WRITTEN, max_size=9), min_size=1, max_size=3))
def test_read_segment__as_the_meter_writes(
    batches: list[list[tuple[int, int, dict[str, int], str]]],
) -> None:
    """What the meter writes is read here, by the page alone, as the same events in order."""
    origin = Origin(account_id="", key_id="key", received_ms=INTERVAL_MS)
    body = segment.encode(
        [(origin, _event_batch(events)) for events in batches],
        dimension_ids=lambda batch: batch.dimension,
    )
    written = [event for events in batches for event in events]
    read = [
        (row.dimension_id, row.end_ms, {k: v for k, v in row.counts.items() if v}, row.request_id)
        for row in checker.read_segment(body)
    ]
    assert read == [
        (dimension, end_ms, {k: v for k, v in counts.items() if v}, request_id)
        for dimension, end_ms, counts, request_id in written
    ]


@given(signs=st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=5))
def test_read_segment__with_signs_as_the_meter_writes(signs: list[int]) -> None:
    """What a correction takes back, and what it counts, are told from each other."""
    origin = Origin(account_id="", key_id="key", received_ms=INTERVAL_MS)
    events = [(7, INTERVAL_MS, {"input": 5, "output": 0, "video_output": 0}, "r")] * len(signs)
    batch = replace(_event_batch(events), extra={"sign": np.array(signs, np.int64)})
    body = segment.encode([(origin, batch)], dimension_ids=lambda it: it.dimension)
    assert [row.sign for row in checker.read_segment(body)] == signs


@pytest.mark.usefixtures("recorded")
def test_check__what_was_taken_back(
    recorded: psycopg.Connection, database_url: str, truth: Path
) -> None:
    """An event that was voided is in no sum; where usage alone has it still, that is found."""
    ((dimension_id,),) = recorded.execute("SELECT dimension_id FROM dimensions").fetchall()
    recorded.execute(
        "INSERT INTO journal VALUES (0, 3, 1, 1, now(), now(), now(), %s)",
        (_segment([2], dimension_id=dimension_id, sign=-1),),
    )
    recorded.execute("UPDATE shards SET position = 3")
    recorded.execute("UPDATE counting SET position = 3, totalled_position = 3")
    back = json.dumps({**EVENTS[2], "request_id": "r2", "sign": -1})
    (truth / "2.jsonl").write_text(f"{back}\n", "utf-8")
    assert _check(database_url, truth) == 1
    recorded.execute("UPDATE usage SET output = 0, request_count = 0 WHERE output = 4095")
    assert _check(database_url, truth) == 0
    (truth / "2.jsonl").unlink()
    assert _check(database_url, truth) == 1


@pytest.mark.parametrize("damage", [b"\x02", b"\x03", b"\x01"], ids=["signs", "version", "length"])
def test_read_segment__damaged(damage: bytes) -> None:
    """Bytes of another version, or more of them than the header tells, are refused."""
    body = _segment([0], dimension_id=1)
    with pytest.raises(checker.SegmentUnreadable):
        checker.read_segment(damage + body[1:] + b"\0")


def _event_batch(events: list[tuple[int, int, dict[str, int], str]]) -> EventBatch:
    numbers = {name: number for number, name in checker.CLASSES.items()}
    return EventBatch(
        table=DimensionTable(),
        dimension=np.array([event[0] for event in events], np.int64),
        end_ms=np.array([event[1] for event in events], np.int64),
        tokens={
            numbers[name]: np.array([event[2][name] for event in events], np.int64)
            for name in ("input", "output", "video_output")
        },
        request_ids=[event[3] for event in events],
    )


def _check(database_url: str, truth: Path) -> int:
    return checker.main(["--database-url", database_url, str(truth)])


def _segment(serials: list[int], *, dimension_id: int, sign: int = 1) -> bytes:
    """A segment of some EVENTS, every column in planes of eight bytes."""
    events = [EVENTS[serial] for serial in serials]
    columns = {
        "dimension": [dimension_id] * len(events),
        "end_ms": [event["end_time_ms"] for event in events],
        **{
            f"tokens.{number}": [event["classes"].get(name, 0) for event in events]
            for number, name in ((1, "input"), (2, "cache_read"), (7, "output"))
        },
    }
    signs: list[list[object]] = [] if sign == 1 else [["sign", 0, sign, None]]
    wide: list[list[object]] = [[name, 16, 0, None] for name in columns]
    return _body(
        wide + signs,
        version=1 if sign == 1 else 2,
        data=b"".join(
            bytes(value >> (8 * plane) & 0xFF for value in values)
            for values in columns.values()
            for plane in range(8)
        ),
        request_ids="\n".join(f"r{serial}" for serial in serials),
        event_count=len(events),
    )


def _body(
    columns: list[list[object]],
    *,
    data: bytes,
    request_ids: str,
    event_count: int,
    version: int = 1,
) -> bytes:
    header = {
        "batches": [["", "key", "p", "00" * 16, 1, INTERVAL_MS, event_count]],
        "columns": columns,
        "event_ids": 0,
        "request_ids": len(request_ids),
    }
    text = json.dumps(header).encode()
    return struct.pack("<BI", version, len(text)) + text + data + request_ids.encode()
