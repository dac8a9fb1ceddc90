"""Who had reported for whom before rows held many accounts, after an upgrade."""

import psycopg
from alembic import command

import migrations
from tests.postgres import Cluster

_NOTE = (
    "INSERT INTO producer_accounts (account_id, month, key_account_id, producer)"
    " VALUES (%s, '2027-01-01', 'acme', 'p') ON CONFLICT DO NOTHING"
)
_NOTED = (
    "SELECT DISTINCT key_account_id, producer, month::text, account_id"
    " FROM producer_reports, unnest(account_ids) AS account_id ORDER BY 4"
)


def test_upgrade__forgets_nobody(cluster: Cluster) -> None:
    """What was noted before the upgrade is there, and what a server of before notes meanwhile."""
    with cluster.database(template="template0") as url:
        config = migrations._config(url)  # noqa: SLF001
        command.upgrade(config, "0015_pre_engines")
        with psycopg.connect(url, autocommit=True) as connection:
            for account in ("acme", "team", "other"):
                connection.execute("INSERT INTO accounts VALUES (%s, %s, now())", (account,) * 2)
            connection.execute(_NOTE, ("acme",))
            command.upgrade(config, "0016_pre_reports")
            # In the role that its servers act in.
            connection.execute("SET ROLE tokenworks_ingest")
            for account in ("acme", "team", "team"):
                connection.execute(_NOTE, (account,))
            connection.execute("RESET ROLE")
            wanted = [("acme", "p", "2027-01-01", account) for account in ("acme", "team")]
            assert connection.execute(_NOTED).fetchall() == wanted
            migrations.upgrade(url)
            assert connection.execute(_NOTED).fetchall() == wanted
