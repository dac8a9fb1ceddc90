"""Who may read: logins for finance, and logins for a customer that see its subtree alone."""

from typing import Final

from psycopg import sql
from sqlalchemy import Connection, Engine, text

from meter.domain.account import AccountTree
from meter.domain.errors import Reason, Refused
from meter.runtime.engine import driver_connection, refusals, store_faults
from meter.store.account_rows import select_accounts
from meter.store.rights import READER, TENANT

_KNOWN: Final = text("SELECT rolname FROM pg_roles WHERE rolname = :login")
# Whoever reads everything would read past the views that are cut down.
_READS_ALL: Final = text("""
SELECT rolname FROM pg_roles
WHERE rolname IN ('tokenworks_reader', 'tokenworks_ingest', 'tokenworks_billing',
                  'tokenworks_service', 'tokenworks_migrator')
  AND pg_has_role(:login, rolname, 'MEMBER') ORDER BY 1
""")
_KEEP: Final = text("""
INSERT INTO reader_logins (login, account_id) VALUES (:login, :account)
ON CONFLICT (login) DO UPDATE SET account_id = excluded.account_id, grant_time = now()
""")


class ReaderStore:
    """Grants logins what they may read, as whoever owns the schema."""

    def __init__(self, engine: Engine) -> None:
        """Take an engine that takes no role."""
        self._engine = engine

    def grant(self, login: str, *, account_id: str | None) -> None:
        """Let a login that there is read an account's subtree, or everything for None.

        Doing it again sets another account in the place of the one before. Raises NotFound,
        Refused (SCOPE_MISSING) and StoreRefusal, which says what this login may not grant.
        """
        with refusals("the grant"), store_faults(), self._engine.begin() as connection:
            self._check(connection, login, account_id=account_id)
            role = READER if account_id is None else TENANT
            cursor = driver_connection(connection).cursor()
            names = [sql.Identifier(role), sql.Identifier(login)]
            cursor.execute(sql.SQL("GRANT {} TO {}").format(*names))
            if account_id is not None:
                connection.execute(_KEEP, {"login": login, "account": account_id})
                # So that the views have the same names as those of finance.
                path = sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = tenant")
                database = driver_connection(connection).info.dbname
                cursor.execute(path.format(names[1], sql.Identifier(database)))

    def _check(self, connection: Connection, login: str, *, account_id: str | None) -> None:
        if connection.execute(_KNOWN, {"login": login}).scalar() is None:
            raise Refused(
                Reason.SCOPE_MISSING,
                f"There is no login {login}: CREATE ROLE {login} LOGIN PASSWORD '…'",
            )
        if account_id is None:
            return
        AccountTree(select_accounts(connection)).get(account_id)
        roles = list(connection.execute(_READS_ALL, {"login": login}).scalars())
        if roles:
            raise Refused(
                Reason.SCOPE_MISSING,
                f"{login} is a member of {', '.join(roles)} and sees more than an account.",
            )
