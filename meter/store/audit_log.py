"""The audit log in Postgres; its rows can be added by privilege, and not changed."""

from sqlalchemy import Connection, insert

from meter.audit_log import Change
from meter.domain.times import to_time
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
