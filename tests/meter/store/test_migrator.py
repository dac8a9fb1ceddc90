"""Who owns the schema: a role, whoever migrates, handed over bit by bit beside the traffic."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from psycopg import errors, sql

import migrations
from cli.db import upgrade_schema
from meter.runtime.engine import SERVICE_ROLE, DatabaseRole
from meter.store.rights import MIGRATOR
from migrations.ownership import hand_over
from tests.postgres import Cluster, running_cluster

# All that can belong to somebody in the schemas of ours, but what belongs to its table.
OWNERS = """
SELECT c.oid::regclass::text, relowner::regrole::text FROM pg_class c
WHERE relnamespace IN ('public'::regnamespace, 'tenant'::regnamespace) AND relkind <> 'c'
UNION ALL
SELECT p.oid::regprocedure::text, proowner::regrole::text FROM pg_proc p
WHERE pronamespace IN ('public'::regnamespace, 'tenant'::regnamespace)
UNION ALL
SELECT 'type ' || t.oid::regtype, typowner::regrole::text FROM pg_type t
WHERE typnamespace IN ('public'::regnamespace, 'tenant'::regnamespace)
UNION ALL
SELECT 'schema ' || nspname, nspowner::regrole::text FROM pg_namespace WHERE nspname = 'tenant'
"""
VIEWS_OF_VIEWS = """
SELECT r.ev_class::bigint, d.refobjid::bigint
FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
WHERE c.relkind = 'v' AND r.ev_class <> d.refobjid AND r.ev_class >= 16384
"""
PARTS = "SELECT count(*) FROM journal_parts"
LATER = "INSERT INTO installation VALUES (true, true, '{}')"


@pytest.fixture(scope="module")
def bare(pg_bin: Path | None) -> Iterator[Cluster]:
    """A Postgres that knows none of our roles, and two logins; the first may make roles."""
    with running_cluster(bin_directory=pg_bin) as running:
        with psycopg.connect(running.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE first LOGIN CREATEROLE PASSWORD 'x'")
            connection.execute("CREATE ROLE second LOGIN PASSWORD 'x'")
        yield running


@contextmanager
def database_of_first(cluster: Cluster) -> Iterator[str]:
    """An empty database that belongs to the first login: the superuser's URL."""
    with cluster.database(template="template0") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO first").format(name))
        yield url


def url_of(login: str, url: str) -> str:
    """The same database, as a login."""
    return f"postgresql://{login}:x@" + url.split("@", 1)[1]


def owners(url: str) -> dict[str, str]:
    """Return who owns each thing of the schema."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute(OWNERS.encode()).fetchall())


def ask_as(role: str, url: str, statement: str) -> list[tuple[object, ...]]:
    """Return what a role is answered, asked by a superuser who acts as it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        return connection.execute(statement.encode()).fetchall()


def execute(url: str, statement: str) -> None:
    """Do it as the URL's login."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_upgrade__by_any_login_that_is_granted_the_role(bare: Cluster) -> None:
    """All is handed over by a login that is no superuser, and another one changes it later."""
    with database_of_first(bare) as url:
        first, second = url_of("first", url), url_of("second", url)
        command.upgrade(migrations._config(first), "0012_post_roles")  # noqa: SLF001
        assert set(owners(url).values()) == {"first"}
        assert migrations.upgrade(first) is None
        assert set(owners(url).values()) == {MIGRATOR}
        with pytest.raises(errors.InsufficientPrivilege):
            execute(second, "ALTER TABLE journal ADD COLUMN more integer")
        execute(first, f"GRANT {MIGRATOR} TO second")
        for statement in (
            "ALTER TABLE journal ADD COLUMN more integer",
            "ALTER VIEW tenant.accounts RENAME COLUMN handle TO named",
            "CREATE SCHEMA later",
            # Of a name that is ours: as a later migration makes it.
            "DROP TABLE software_marks",
            "CREATE TABLE software_marks (mark_id integer GENERATED ALWAYS AS IDENTITY)",
            "GRANT SELECT ON software_marks TO tokenworks_ingest",
            "UPDATE alembic_version SET version_num = version_num",
        ):
            execute(second, statement)
        assert owners(url)["software_marks"] == "second"
        assert migrations.upgrade(second) is None
        assert set(owners(url).values()) == {MIGRATOR}
        execute(first, "ALTER TABLE software_marks ADD COLUMN more integer")


@pytest.mark.parametrize("role", [*DatabaseRole, SERVICE_ROLE, "tokenworks_reader"])
def test_role__changes_no_schema(database_url: str, role: str) -> None:
    """Who records, bills or reads alters and gives away nothing, and cannot act as the owner."""
    execute(database_url, f"CREATE ROLE serves LOGIN PASSWORD 'x' IN ROLE {role}")
    try:
        with psycopg.connect(url_of("serves", database_url), autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            for statement in (
                "ALTER TABLE journal ADD COLUMN more integer",
                "ALTER TABLE journal_first OWNER TO CURRENT_USER",
                "ALTER VIEW usage_daily RENAME TO other",
                "DROP FUNCTION make_journal_parts()",
                f"SET ROLE {MIGRATOR}",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    finally:
        execute(database_url, "DROP ROLE serves")


@pytest.mark.parametrize(
    ("locked", "lock"),
    [
        ("journal", "LOCK TABLE ONLY journal IN ACCESS SHARE MODE"),
        # Of the view alone, and not of what it reads.
        ("usage_daily", "COMMENT ON VIEW usage_daily IS ''"),
    ],
)
def test_hand_over__half_of_it(bare: Cluster, locked: str, lock: str) -> None:
    """What is held by a reader stays as it is, all roles go on, and the next one hands it over."""
    with database_of_first(bare) as url:
        first = url_of("first", url)
        command.upgrade(migrations._config(first), "head")  # noqa: SLF001  before what follows it
        execute(url, LATER.format("2031-01-15T00:00Z"))
        with psycopg.connect(url) as holding:
            holding.execute(lock.encode())
            left = hand_over(first, tries_max=1)
            assert left is not None
            assert "the next tokenworks db upgrade goes on" in left
            found = owners(url)
            assert (found["accounts"], found[locked]) == (MIGRATOR, "first")
            for role, statement in (
                ("tokenworks_reader", "SELECT count(*) FROM usage_daily"),
                ("tokenworks_tenant", "SELECT count(*) FROM tenant.usage_daily"),
                (DatabaseRole.INGEST, "SELECT count(*) FROM journal_segments"),
                (DatabaseRole.INGEST, "SELECT count(*) FROM usage"),
            ):
                assert ask_as(role, url, statement) == [(0,)]
            made = ask_as(DatabaseRole.INGEST, url, "SELECT make_journal_parts()")
            assert made == [(4,)]
            assert hand_over(first, on_wait=holding.rollback) is None
        assert set(owners(url).values()) == {MIGRATOR}


def test_views__are_made_after_those_that_they_read(database_url: str) -> None:
    """In that order they are handed over: one that is the role's reads none that is not."""
    with psycopg.connect(database_url) as connection:
        pairs = connection.execute(VIEWS_OF_VIEWS.encode()).fetchall()
    assert any(reading > read for reading, read in pairs)
    assert [pair for pair in pairs if pair[0] < pair[1]] == []


def test_parts__made_and_dropped_as_the_role(bare: Cluster) -> None:
    """Parts of the journal come and go as before, and those that are made are the role's."""
    with database_of_first(bare) as url:
        assert migrations.upgrade(url_of("first", url)) is None
        execute(url, LATER.format("2031-01-15T00:00Z"))
        made = ask_as(DatabaseRole.INGEST, url, "SELECT make_journal_parts()")
        assert made == [(4,)]
        assert owners(url)["journal_2031_02"] == MIGRATOR
        count = ask_as(DatabaseRole.INGEST, url, PARTS)[0][0]
        execute(url, "UPDATE installation SET driven_time = '2031-06-15T00:00Z'")
        for part in ("journal_first", "journal_2031_02"):
            dropped = ask_as(DatabaseRole.INGEST, url, f"SELECT drop_journal_part('{part}')")
            assert dropped == [("",)]
        assert ask_as(DatabaseRole.INGEST, url, PARTS) == [(int(str(count)) - 2,)]


def test_upgrade__without_the_right_to_make_roles(
    pg_bin: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the login stays the owner, all goes on, and it says what an administrator types."""
    with running_cluster(bin_directory=pg_bin) as cluster:
        execute(cluster.url(), "CREATE ROLE first LOGIN CREATEROLE PASSWORD 'x'")
        with database_of_first(cluster) as url:
            first = url_of("first", url)
            command.upgrade(migrations._config(first), "0012_post_roles")  # noqa: SLF001
            execute(url, "ALTER ROLE first NOCREATEROLE")
            execute(url, "ALTER VIEW usage_daily OWNER TO CURRENT_USER")
            assert upgrade_schema(first)[0] == "0013_post_migrator"
            left = capsys.readouterr().err
            assert left.startswith("warning: the schema still belongs to first, tokenworks, and")
            assert migrations.pending(first) == []
            assert owners(url)["journal"] == "first"
            assert ask_as(DatabaseRole.INGEST, url, "SELECT make_journal_parts()") == [(0,)]
            statements = left.split("as a superuser: ")[1].split("; then ")[0]
            assert statements.startswith("CREATE ROLE tokenworks_migrator NOLOGIN; GRANT")
            execute(url, statements)
            assert migrations.upgrade(first) is None
            assert set(owners(url).values()) == {MIGRATOR}
