"""Alembic's entry: one migrator at a time, short lock waits."""

from alembic import context
from sqlalchemy import create_engine, text

# Any constant does; it must only be the same in every release.
_MIGRATION_LOCK = 7_411


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            # A migration that cannot get its lock soon must not hold up the traffic behind it.
            connection.execute(text("SET lock_timeout = '4s'"))
            connection.commit()
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
            connection.commit()
    finally:
        engine.dispose()


_run()
