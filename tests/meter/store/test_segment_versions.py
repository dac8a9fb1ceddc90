"""Which version of segments is written, while servers of before read them, and after that."""

from alembic import command

import migrations
from meter.runtime.engine import make_engine
from tests.meter.store.recording import (
    administrator,
    ask,
    commit,
    create_accounts,
    numbered,
    open_producer,
    owner,
    tokens_in_journal,
)
from tests.postgres import Cluster

_VERSIONS = "SELECT get_byte(body, 0) FROM journal ORDER BY position"


def test_append__version_that_all_servers_read(cluster: Cluster) -> None:
    """A newer version is written once `post` was run, as long as it was; never a yet newer one."""
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0017_pre_segments")  # noqa: SLF001
        create_accounts(url)
        engine = make_engine(url)
        store = owner(engine)
        open_producer(store)
        commit(store, numbered(1, 5))
        migrations.upgrade(url)
        engine.dispose()
        commit(store, numbered(2, 7))
        with administrator(url) as connection:
            connection.execute("INSERT INTO segment_versions VALUES (4)")
        engine.dispose()
        commit(store, numbered(3, 11))
        assert ask(url, _VERSIONS) == [(1,), (3,), (3,)]
        assert tokens_in_journal(url) == 23
        # A database from before `post`, as a backup may be.
        with administrator(url) as connection:
            connection.execute("DELETE FROM segment_versions")
        engine.dispose()
        commit(store, numbered(4, 13))
        assert ask(url, _VERSIONS)[-1] == (1,)
        engine.dispose()
