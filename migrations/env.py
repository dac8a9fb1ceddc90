"""Alembic's entry: one migrator at a time, short lock waits, and a list of what was applied."""

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import create_engine, text

from meter.runtime.database_url import engine_url
from migrations.waiting import LOCK_MS_MAX, MIGRATION_LOCK


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    engine = create_engine(engine_url(url))
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
            # A migration that cannot get its lock soon must not hold up the traffic behind it;
            # `migrations.upgrade` tries again.
            connection.execute(text(f"SET lock_timeout = '{LOCK_MS_MAX}ms'"))
            connection.commit()
            context.configure(
                connection=connection,
                transaction_per_migration=True,
                on_version_apply=_note,
            )
            with context.begin_transaction():
                context.run_migrations()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
            connection.commit()
    finally:
        engine.dispose()


def _note(ctx: MigrationContext, step: MigrationInfo, *_: object, **_more: object) -> None:
    """Write down what was applied: an older version sees by it what it does not know."""
    assert ctx.connection is not None
    if ctx.connection.execute(text("SELECT to_regclass('schema_history')")).scalar() is None:
        return
    ctx.connection.execute(
        text("INSERT INTO schema_history (name) VALUES (:name) ON CONFLICT DO NOTHING"),
        {"name": step.up_revision_id},
    )


def _offline() -> None:
    """Write SQL for whoever looks at it before it runs."""
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url"), transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _offline()
else:
    _run()
