"""An upgrade from N, with N's own code: one schema whatever the way, and no error under load."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

import migrations
from tests.faults.__main__ import run_rows
from tests.faults.older import Older
from tests.faults.row import Skipped
from tests.postgres import Cluster

pytestmark = pytest.mark.stacks
ROWS = ["upgrade-beside-the-traffic"]
# What there is in a schema, each thing as a line.
CATALOG = """
SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
       concat_ws(' ', a.attnotnull, a.attidentity, a.attstorage, a.attcollation::regcollation,
                 pg_get_expr(d.adbin, d.adrelid))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, '', pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
UNION ALL
SELECT 'index', indrelid::regclass::text, indexrelid::regclass::text, '',
       pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'relation', c.oid::regclass::text, concat_ws(' ', relkind, relowner::regrole),
       coalesce(pg_get_expr(relpartbound, c.oid), ''),
       CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) ELSE array_to_string(reloptions, ' ') END
FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
UNION ALL
SELECT 'right', c.oid::regclass::text, a.grantee::regrole::text, a.privilege_type, ''
FROM pg_class c CROSS JOIN aclexplode(relacl) a WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'function', p.oid::regprocedure::text, coalesce(array_to_string(proacl, ' '), ''),
       proowner::regrole::text,
       pg_get_functiondef(p.oid)
FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
ORDER BY 1, 2, 3, 4, 5
"""


def catalog(url: str) -> list[tuple[Any, ...]]:
    """Return all that a schema has."""
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOG.encode()).fetchall()


def test_upgrade__whatever_the_way(cluster: Cluster, tmp_path: Path) -> None:
    """A new database, one of N, and one that was upgraded in two stages have the same schema."""
    try:
        older = Older(tmp_path / "older")
    except Skipped as reason:
        pytest.skip(str(reason))
    with (
        cluster.database(template="template0") as fresh,
        cluster.database(template="template0") as upgraded,
        cluster.database(template="template0") as staged,
    ):
        migrations.upgrade(fresh)
        for url in (upgraded, staged):
            older.run("db", "upgrade", TOKENWORKS_DATABASE_URL=url)
            with psycopg.connect(url) as connection:
                connection.execute(
                    "INSERT INTO event_claims VALUES (gen_random_uuid(), gen_random_uuid(), now())"
                )
        migrations.upgrade(upgraded)
        migrations.upgrade(staged, stage=migrations.Stage.PRE)
        assert migrations.look(staged).missing_pre == []
        migrations.upgrade(staged, stage=migrations.Stage.POST)
        expected = catalog(fresh)
        assert expected
        assert catalog(upgraded) == catalog(staged) == expected
        with psycopg.connect(staged) as connection:
            claims = "SELECT count(*) FROM event_claims WHERE source IS NULL"
            assert connection.execute(claims).fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rows__upgrade_beside_the_traffic(tmp_path: Path) -> None:
    """N and N+1 serve side by side while migrations run: no error, no long lock, exact totals."""
    out = tmp_path / "faults.json"
    results = run_rows(ROWS, seconds=2, keep=tmp_path / "faults", out=out)
    if all(it.skipped for it in results.values()):
        pytest.skip(str(results[ROWS[0]].skipped))
    assert {name: it.wrong for name, it in results.items()} == dict.fromkeys(ROWS)
    assert all(it.ok for it in results.values())
