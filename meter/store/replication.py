"""How far the standbys are: what pg_stat_replication says, for whoever may read it."""

from typing import Any, Final

from sqlalchemy import Engine, text

from meter.domain.errors import Reason, Refused
from meter.journal.durability import Sight
from meter.runtime.engine import DatabaseRole, store_faults

# A commit returns when its record is on this server's disk, so that the end of what is there lies
# behind it; without synchronous_commit it returns earlier. The name of the log's file begins with
# the timeline. Where several connections bear a name, the last of them counts.
_LOOK: Final = text(
    """
    SELECT left(pg_walfile_name(here.lsn), 8) || ' ' || pg_postmaster_start_time() AS line,
        here.lsn - '0/0'::pg_lsn AS position, r.application_name AS name,
        min(r.flush_lsn) - '0/0'::pg_lsn AS flushed
    FROM (SELECT CASE current_setting('synchronous_commit') WHEN 'off'
            THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END AS lsn) AS here
        LEFT JOIN pg_stat_replication r ON r.application_name = ANY(CAST(:names AS text[]))
    GROUP BY 1, 2, 3
    """
)
_MAY_LOOK: Final = text("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')")


class ReplicationStore:
    """Looks at the log and at the standbys that are named; changes nothing."""

    def __init__(self, engine: Engine, *, standbys: tuple[str, ...]) -> None:
        """Take the engine and the standbys' names (application_name)."""
        self._engine = engine
        self._standbys = standbys

    def check_privilege(self) -> None:
        """Raise Refused where the meter's role may not see how far standbys are."""
        with store_faults(), self._engine.connect() as connection:
            if not connection.execute(_MAY_LOOK).scalar_one():
                raise Refused(
                    Reason.SCOPE_MISSING,
                    "TOKENWORKS_DURABLE_STANDBYS is set, but the meter's role may not see how far"
                    " standbys are. As a superuser, or as who may grant it:"
                    f" GRANT pg_read_all_stats TO {DatabaseRole.INGEST}",
                )

    def look(self) -> Sight:
        """Return where the log ends and how far each standby is; raises Unavailable."""
        with store_faults(), self._engine.connect() as connection:
            rows: list[Any] = list(connection.execute(_LOOK, {"names": list(self._standbys)}))
        return Sight(
            line=rows[0].line,
            position=int(rows[0].position),
            flushed={
                row.name: None if row.flushed is None else int(row.flushed)
                for row in rows
                if row.name is not None
            },
        )
