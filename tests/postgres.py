"""A real Postgres for the tests: one cluster a run, one database a test."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

import migrations
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres

TEMPLATE = "migrated"
PASSWORD = "only-for-tests"
# The first version whose FILE_COPY leaves the copying to the kernel.
_CLONES_SINCE = 180_000


class Cluster:
    """A running Postgres with a migrated template database, from which others are cloned."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL of one of its databases."""
        return self._postgres.url(database)

    def stop(self) -> None:
        """Take the server away from whoever uses it."""
        self._postgres.stop()

    def start(self) -> None:
        """Bring it back on the same port, with all that was committed."""
        self._postgres.start(password=None)

    def migrate_template(self) -> None:
        """Make the template, once, by the product's own migrations."""
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        migrations.upgrade(self.url(TEMPLATE))

    @contextmanager
    def database(self, *, template: str = TEMPLATE) -> Iterator[str]:
        """A new database for the time of the block: its URL. `template0` gives an empty one."""
        name = sql.Identifier(f"test_{next(self._numbers)}")
        # The other strategy writes each page of the template to the log.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        self._execute(create.format(name, sql.Identifier(template)))
        try:
            yield self.url(name.as_string().strip('"'))
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if connection.info.server_version >= _CLONES_SINCE:
                connection.execute("SET file_copy_method = clone")
            connection.execute(statement)


@contextmanager
def running_cluster(*, bin_directory: Path | None) -> Iterator[Cluster]:
    """A cluster that forgets safety for speed, in a folder that vanishes with it."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-test-"))
    postgres = Postgres(
        folder / "cluster" / "postgres", programs=find_programs(bin_directory), durable=False
    )
    try:
        postgres.start(password=PASSWORD)
        yield Cluster(postgres)
    finally:
        postgres.stop()
        shutil.rmtree(folder)
