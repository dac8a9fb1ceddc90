"""The watermark at the start of a meter: it never lies behind what a cut has sealed."""

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from meter.domain.errors import StoreRefusal
from meter.runtime.engine import make_engine
from meter.store.usage import UsageStore
from tests.meter.store.recording import holding


def test_ensure_watermark__behind_a_cut(database_url: str) -> None:
    """A database whose watermark is older than its cuts is refused, in words that help."""
    engine = make_engine(database_url)
    holding(engine, shard=0)
    usage = UsageStore(engine, own_shard=lambda: 0)
    usage.ensure_watermark(0)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE counting SET position = 7, totalled_position = 7")
    assert usage.take_cut_if_due(now_ms=1_800_000_000_000, every_ms=86_400_000) == 1
    usage.ensure_watermark(0)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE counting SET position = 6, totalled_position = 6")
    with pytest.raises(StoreRefusal, match="Restore all of it"):
        usage.ensure_watermark(0)
    engine.dispose()


def test_watermark__counted_without_totals(database_url: str) -> None:
    """A server from before there were totals is refused: what it counts would be in no month."""
    engine = make_engine(database_url)
    holding(engine, shard=0)
    UsageStore(engine, own_shard=lambda: 0).ensure_watermark(0)
    moved = "UPDATE counting SET position = 7, counted_until = now() WHERE shard = 0"
    with engine.begin() as connection, pytest.raises(IntegrityError, match="counting_totalled"):
        connection.execute(text(moved))
    engine.dispose()
