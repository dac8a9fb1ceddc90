"""A database that holds energy already gets the factory's tables: nothing is lost or doubled."""

from collections.abc import Iterator
from typing import Final

import pytest
from alembic import command
from sqlalchemy import Engine

import migrations
from meter.domain.boundary import Boundary
from meter.runtime.engine import make_engine
from meter.store.audit import AuditStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import attribute_all, shares_of
from tests.meter.store.pooled import GAP_MS, read, reading, serve
from tests.meter.store.recording import (
    administrator,
    ask,
    counting_of,
    create_accounts,
    follow,
    owner,
)
from tests.postgres import Cluster

# 1,000 mJ to two tiers and a gap; a counter that two pools have read.
_BEFORE: Final = """
INSERT INTO skus (model, served_model, tier, mode, region)
VALUES ('m', 'm', 'free', 1, ''), ('m', 'm', 'high', 1, '');
INSERT INTO pool_intervals
    (pool, interval_start, measured_mj, gap_mj, gap_ms, reset_count, version, attributed_version)
VALUES ('h100', to_timestamp({begin}), 1000, 100, 60000, 1, 2, 2),
       ('h200', to_timestamp({begin}), 0, 0, 0, 0, 1, 1);
INSERT INTO pool_usage (pool, interval_start, sku_id, output_tokens, total_tokens, request_count)
SELECT 'h100', to_timestamp({begin}), sku_id, CASE tier WHEN 'free' THEN 10 ELSE 20 END, 40, 1
FROM skus;
INSERT INTO energy_shares (pool, interval_start, sku_id, reason, revision, energy_mj)
SELECT 'h100', to_timestamp({begin}), sku_id, '', 1, CASE tier WHEN 'free' THEN 300 ELSE 600 END
FROM skus
UNION ALL SELECT 'h100', to_timestamp({begin}), NULL, 'gap', 1, 100;
INSERT INTO energy_counters
VALUES ('h100', 'GPU-1', 'dcgm', 5000, to_timestamp({begin})),
       ('old', 'GPU-1', 'dcgm', 4000, to_timestamp({begin}) - interval '2 days');
"""


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[tuple[Engine, str]]:
    """A database that was migrated with energy in it, and its URL."""
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0006_pre_corrections")  # noqa: SLF001
        with administrator(url) as connection:
            connection.execute(_BEFORE.format(begin=BEGIN_MS // 1000).encode())
        migrations.upgrade(url)
        create_accounts(url)
        engine = make_engine(url, pool_size=4)
        yield engine, url
        engine.dispose()


def test_upgrade__keeps_energy_and_its_shares(engine: tuple[Engine, str]) -> None:
    """All is there once, of boards, and adds up; a counter is where it was seen last."""
    _, url = engine
    question = "SELECT boundary, name, measured_mj, gap_mj, gap_ms, reset_count FROM {}"
    assert ask(url, question.format("energy_intervals")) == [
        ("board", "h100", 1_000, 100, 60_000, 1)
    ]
    assert shares_of(url) == {
        ("h100", "free"): 300,
        ("h100", "high"): 600,
        ("h100", "gap"): 100,
    }
    counters = "SELECT device, boundary, name, counter_mj FROM energy_counters"
    assert ask(url, counters) == [("GPU-1", "board", "h100", 5_000)]
    hours = "SELECT tier, reason, energy_mj, output_tokens FROM efficiency_hourly ORDER BY 1, 2"
    assert ask(url, hours) == [("", "gap", 100, 0), ("free", "", 300, 10), ("high", "", 600, 20)]


def test_upgrade__goes_on_with_late_tokens_and_energy(engine: tuple[Engine, str]) -> None:
    """What comes late to an old interval is attributed beside the old, to the last millijoule."""
    connections, url = engine
    serve(owner(connections), 1, output=30)
    follow(counting_of(connections)).count_once()
    store = EnergyStore(connections, factories=FactoryStore(connections))
    # The counter goes on from where it was.
    moved = read(store, reading(5_600, time_ms=BEGIN_MS + GAP_MS // 60))
    assert moved.advance_count == 1
    assert attribute_all(connections) == 1
    # 1,500 mJ by tokens: 10 and 20 of before, whose account is not known, and now 30.
    assert shares_of(url) == {
        ("h100", "free"): 250,
        ("h100", "high"): 1_250,
        ("h100", "gap"): 100,
    }
    by_account = (
        "SELECT account_id, sum(energy_mj)::bigint FROM energy_shares GROUP BY 1 ORDER BY 1"
    )
    assert ask(url, by_account) == [("", 850), ("acme", 750)]
    assert AuditStore(connections).energy_faults(since_ms=None, until_ms=None) == (1, [])
    assert attribute_all(connections) == 0
    assert shares_of(url, boundary=Boundary.HOST) == {}
