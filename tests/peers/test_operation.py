"""Complaints 34 and 35: what it takes to run a meter, and to upgrade it."""

import contextlib
import tomllib
from pathlib import Path
from typing import Final

import grpc
import psycopg
from alembic import command
from alembic.config import Config

import migrations
from tests.billing.town import Town, town_on
from tests.meter.store.recording import end_connections
from tests.peers.customers import NOW_MS, WAIT_SECONDS, Customer, client_of, tokens_of
from tests.postgres import Cluster
from tests.running_meter import RunningMeter
from tests.wire.session import Session
from tests.wire.talk import wait_until
from tokenworks.client import TokenClass

ROOT: Final = Path(__file__).resolve().parents[2]
INPUT: Final = TokenClass.INPUT
WITH_BILLING: Final = "0002_pre_billing"


def test_openmeter_615__postgres_is_all_that_it_takes(shared_meter: RunningMeter) -> None:
    """No client of a broker, a cache or a column store is among the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for name in ("kafka", "redis", "clickhouse", "celery", "nats", "rabbit"):
        assert not [it for it in project["dependencies"] if name in it.lower()]
    with psycopg.connect(shared_meter.database_url) as connection:
        who = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        (count,) = connection.execute(who).fetchone() or (0,)
    assert count > 1


def test_lago_188__all_goes_on_when_the_database_is_there_again(session: Session) -> None:
    """No part of a meter dies of a lost connection: it records, counts and answers by itself."""
    with client_of(session, "blip") as client:
        for place in range(2):
            client.record(input=10**place)
            assert client.flush(WAIT_SECONDS)
            end_connections(session.meter.database_url)

    def is_counted() -> bool:
        with contextlib.suppress(grpc.RpcError):
            return tokens_of(session, "blip") == {INPUT: 11}
        return False

    wait_until(is_counted)


def upgrade_to(revision: str, database_url: str) -> None:
    """Bring an empty database to an older schema."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("version_locations", str(ROOT / "migrations/versions"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    command.upgrade(config, revision)


def copy_rows(of: str, *, to: str) -> None:
    """Copy what a newer database has into the tables and columns of an older one."""
    question = (
        "SELECT table_name, string_agg(column_name, ', ' ORDER BY ordinal_position)"
        " FROM information_schema.columns JOIN information_schema.tables USING (table_name)"
        " WHERE tables.table_schema = 'public' AND table_type = 'BASE TABLE'"
        " AND table_name <> 'alembic_version' GROUP BY 1"
    )
    with psycopg.connect(of) as new, psycopg.connect(to) as old:
        old.execute("SET session_replication_role = replica")
        for table, columns in old.execute(question).fetchall():
            old.execute(f"DELETE FROM {table}".encode())
            read = f"COPY (SELECT {columns} FROM {table}) TO STDOUT"
            write = f"COPY {table} ({columns}) FROM STDIN"
            with (
                new.cursor().copy(read.encode()) as source,
                old.cursor().copy(write.encode()) as sink,
            ):
                for rows in source:
                    sink.write(rows)


def test_lago_171__usage_of_before_an_upgrade_is_seen_and_invoiced(cluster: Cluster) -> None:
    """A database of the first schema with billing has the same preview and bill when upgraded."""
    with cluster.database() as url, town_on(url, now_ms=NOW_MS) as town:
        before = Customer(town, "before")
        before.use(input=1_000_000, output=5)
        town.record(before.event(input=7), count=False)
        with cluster.database(template="template0") as old_url:
            upgrade_to(WITH_BILLING, old_url)
            copy_rows(url, to=old_url)
            migrations.upgrade(old_url)
            with town_on(old_url, now_ms=NOW_MS) as upgraded:
                upgraded.count()
                town.count()
                after = before.in_town(upgraded)
                assert after.preview().lines == before.preview().lines
                assert after.invoice().total == before.invoice().total


def test_lago_api_1864__upgrade_may_be_run_again(town: Town) -> None:
    """The one command of an upgrade finds nothing to do the second time, and changes nothing."""
    again = Customer(town, "upgraded")
    again.use(input=5)
    before = again.preview().lines
    migrations.upgrade(town.database_url)
    assert migrations.pending(town.database_url) == []
    assert again.preview().lines == before
