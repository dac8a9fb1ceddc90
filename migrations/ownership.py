"""Who owns what the migrations make: a role, to which it is handed over beside the traffic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from meter.runtime.database_url import engine_url
from meter.store.rights import MIGRATOR, OWN_FUNCTIONS, OWN_TABLES, RIGHTS
from migrations.waiting import LOCK_MS_MAX, MIGRATION_LOCK, is_locked, retry_while_locked, state_of

# A minute and a half for each that is held for long. Nothing depends on it: the next upgrade goes
# on.
_TRIES_MAX: Final = 90
# What is made meanwhile, a part of the journal, is found by looking again.
_LOOKS_MAX: Final = 3
_REFUSED: Final = "42501"
# A part of the journal can be dropped at any time.
_GONE: Final = "42P01"

# The order is that in which nothing is out of reach meanwhile. A view and a function act as who
# owns them: they come when all that they act on is there, a view after those that it reads, which
# were made before it. As long as they are the login's, they have the role's rights by the login's.
_LEFT: Final = text("""
SELECT o.statement, r.rolname AS owner, pg_has_role(r.oid, 'USAGE') AS is_ours
FROM (
    SELECT CASE c.relkind WHEN 'v' THEN 3 ELSE 2 END AS turn, c.oid, c.relowner AS owner,
           format('ALTER %s %I.%I OWNER TO tokenworks_migrator',
                  CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, n.nspname, c.relname)
               AS statement
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v') AND (
        n.nspname = 'tenant' OR n.nspname = 'public' AND (
            c.relname = ANY(:tables) OR EXISTS (
                SELECT FROM pg_inherits i
                WHERE i.inhrelid = c.oid AND i.inhparent = to_regclass('public.journal')
            )
        )
    )
    UNION ALL
    SELECT 4, oid, proowner,
           format('ALTER FUNCTION %s OWNER TO tokenworks_migrator', oid::regprocedure)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = ANY(:functions)
    UNION ALL
    SELECT 1, oid, nspowner, format('ALTER SCHEMA %I OWNER TO tokenworks_migrator', nspname)
    FROM pg_namespace WHERE nspname = 'tenant'
) AS o JOIN pg_roles r ON r.oid = o.owner
WHERE r.rolname <> 'tokenworks_migrator' ORDER BY o.turn, o.oid
""")
_HINDRANCES: Final = text("""
SELECT quote_ident(current_user) AS login, v.has_options, r.oid IS NOT NULL AS has_role,
       coalesce(pg_has_role(r.oid, 'USAGE'), false)
           AND CASE WHEN v.has_options THEN pg_has_role(r.oid, 'SET') ELSE true END AS is_member,
       coalesce(has_schema_privilege(r.oid, 'public', 'CREATE'), false) AS may_create
FROM (SELECT current_setting('server_version_num')::integer >= 160000 AS has_options) AS v
LEFT JOIN pg_roles r ON r.rolname = 'tokenworks_migrator'
""")
# Nobody waits for a disk or a standby: what a crash forgets is handed over by the next upgrade.
_CALM: Final = (
    f"SET LOCAL lock_timeout = '{LOCK_MS_MAX}ms'; SET LOCAL synchronous_commit = off;"
    f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK}); "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Something of ours that is not the role's yet; `is_ours` when this login may give it away."""

    statement: str
    owner: str
    is_ours: bool


def hand_over(
    database_url: str,
    *,
    on_wait: Callable[[], None] = lambda: None,
    tries_max: int = _TRIES_MAX,
) -> str | None:
    """Make `tokenworks_migrator` the owner of all that the migrations made; again changes nothing.

    Returns None when that is so, else what is in the way and what is to be done: the owner stays
    who it is, with which everything goes on. Each thing is a transaction of its own; one that is
    locked is tried `tries_max` times, half a second apart. Takes a schema that has the migration
    that makes the role.
    """
    engine = create_engine(engine_url(database_url))
    try:
        for _ in range(_LOOKS_MAX):
            with engine.connect() as connection:
                left = _look(connection)
                if not left:
                    return None
                hindrance = _find_hindrance(connection, left)
            if hindrance is not None:
                return hindrance
            for each in left:
                problem = _give(
                    each, engine=engine, url=database_url, tries_max=tries_max, on_wait=on_wait
                )
                if problem is not None:
                    return problem
        return None
    finally:
        engine.dispose()


def _look(connection: Connection) -> list[_Left]:
    tables = sorted({*OWN_TABLES, *(name for held in RIGHTS.values() for name in held)})
    rows = connection.execute(_LEFT, {"tables": tables, "functions": [*OWN_FUNCTIONS]})
    return [_Left(statement=it.statement, owner=it.owner, is_ours=it.is_ours) for it in rows]


def _find_hindrance(connection: Connection, left: Sequence[_Left]) -> str | None:
    row = connection.execute(_HINDRANCES).one()
    needed: list[str] = []
    if not row.has_role:
        needed.append(f"CREATE ROLE {MIGRATOR} NOLOGIN")
    if not row.is_member:
        needed.append(
            f"GRANT {MIGRATOR} TO {row.login} WITH INHERIT TRUE, SET TRUE"
            if row.has_options
            else f"GRANT {MIGRATOR} TO {row.login}; ALTER ROLE {row.login} INHERIT"
        )
    if not row.may_create:
        needed.append(f"GRANT USAGE, CREATE ON SCHEMA public TO {MIGRATOR}")
    needed += [it.statement for it in left if not it.is_ours]
    if not needed:
        return None
    owners = ", ".join(sorted({it.owner for it in left}))
    return (
        f"the schema still belongs to {owners}, and only that login can migrate it;"
        f" as a superuser: {'; '.join(needed)}; then tokenworks db upgrade"
    )


def _give(
    each: _Left, *, engine: Engine, url: str, tries_max: int, on_wait: Callable[[], None]
) -> str | None:
    def give() -> None:
        with engine.begin() as connection:
            connection.execute(text(_CALM + each.statement))

    try:
        retry_while_locked(give, database_url=url, tries_max=tries_max, on_wait=on_wait)
    except DBAPIError as error:
        if is_locked(error):
            return (
                f"not all of the schema is {MIGRATOR}'s yet: somebody holds a lock;"
                " the next tokenworks db upgrade goes on"
            )
        if state_of(error) == _REFUSED:
            return (
                f"not all of the schema is {MIGRATOR}'s yet; as a superuser: {each.statement};"
                " then tokenworks db upgrade"
            )
        if state_of(error) != _GONE:
            raise
    return None
