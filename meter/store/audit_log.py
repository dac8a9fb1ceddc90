"""The audit log in Postgres; its rows can be added by privilege, and not changed."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, insert, or_, select

from meter.audit_log import AuditEntry, AuditQuery, Change
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults
from meter.store.tables import audit_entries


class ChangeLog:
    """Writes entries."""

    def write(self, connection: Connection, *changes: Change) -> None:
        """Write entries for changes that this very transaction makes."""
        if changes:
            connection.execute(
                insert(audit_entries),
                [
                    {
                        "entry_time": to_time(it.at_ms),
                        "key_id": it.key_id,
                        "action": it.action,
                        "subject": it.subject,
                        "detail": dict(it.detail),
                    }
                    for it in changes
                ],
            )


class AuditStore:
    """Reads entries."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def entries(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return entries, newest first; raises Unavailable."""
        kept = audit_entries.c
        statement = select(audit_entries).order_by(kept.entry_id.desc()).limit(query.limit)
        if query.start_ms is not None:
            statement = statement.where(kept.entry_time >= to_time(query.start_ms))
        if query.end_ms is not None:
            statement = statement.where(kept.entry_time < to_time(query.end_ms))
        if query.action:
            below = kept.action.startswith(f"{query.action}.", autoescape=True)
            statement = statement.where(or_(kept.action == query.action, below))
        if query.subject:
            statement = statement.where(kept.subject == query.subject)
        if query.key_id:
            statement = statement.where(kept.key_id == query.key_id)
        if query.before_id is not None:
            statement = statement.where(kept.entry_id < query.before_id)
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return [
            AuditEntry(
                entry_id=row.entry_id,
                change=Change(
                    at_ms=to_ms(row.entry_time),
                    key_id=row.key_id,
                    action=row.action,
                    subject=row.subject,
                    detail=row.detail,
                ),
            )
            for row in rows
        ]
