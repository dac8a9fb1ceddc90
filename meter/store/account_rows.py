"""Accounts and API keys, from rows to the domain's words."""

from collections.abc import Collection, Iterator
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    any_,
    cast,
    extract,
    insert,
    literal,
    select,
    true,
)

from meter.domain.account import Account, ParentEdge
from meter.domain.credential import ApiKey, Credential, Role, Scope
from meter.store.tables import account_parents, accounts, api_key_scopes, api_keys

# Keys of one answer: of more than these only the newest are listed.
KEYS_LISTED_MAX: Final = 10_000


def select_accounts(connection: Connection) -> Iterator[Account]:
    """Yield all accounts with all their parents."""
    edges: dict[str, tuple[ParentEdge, ...]] = {}
    rows = connection.execute(
        select(
            account_parents.c.account_id,
            _ms(account_parents.c.start_time),
            account_parents.c.parent_id,
        ).order_by(account_parents.c.start_time)
    )
    for account_id, start_ms, parent_id in rows:
        edge = ParentEdge(start_ms=start_ms, parent_id=parent_id)
        edges[account_id] = (*edges.get(account_id, ()), edge)
    rows = connection.execute(
        select(
            accounts.c.account_id,
            accounts.c.handle,
            _ms(accounts.c.create_time),
            _ms(accounts.c.close_time),
        )
    )
    for account_id, handle, create_ms, close_ms in rows:
        yield Account(
            account_id=account_id,
            handle=handle,
            create_ms=create_ms,
            close_ms=close_ms,
            parents=edges[account_id],
        )


def select_credentials(connection: Connection) -> dict[bytes, Credential]:
    """Return all API keys, ended ones too, by the hash of their secret."""
    scopes = _select_scopes(connection, true())
    rows = connection.execute(
        select(
            api_keys.c.secret_hash,
            api_keys.c.key_id,
            api_keys.c.account_id,
            _ms(api_keys.c.end_time),
        )
    )
    return {
        secret_hash: Credential(
            key_id=key_id, account_id=account_id, scopes=scopes[key_id], end_ms=end_ms
        )
        for secret_hash, key_id, account_id, end_ms in rows
    }


def select_keys(connection: Connection, wanted: ColumnElement[bool]) -> list[ApiKey]:
    """Return the newest 10,000 of the keys that are wanted, oldest first."""
    rows = connection.execute(
        select(
            api_keys.c.key_id,
            api_keys.c.account_id,
            api_keys.c.prefix,
            _ms(api_keys.c.create_time),
            _ms(api_keys.c.end_time),
            api_keys.c.rotated_from,
            api_keys.c.description,
            api_keys.c.certificate_name,
        )
        .where(wanted)
        .order_by(api_keys.c.create_time.desc(), api_keys.c.key_id.desc())
        .limit(KEYS_LISTED_MAX)
    ).all()
    key_ids = [row[0] for row in rows]
    scopes = _select_scopes(connection, is_one_of(api_key_scopes.c.key_id, key_ids))
    return [
        ApiKey(
            credential=Credential(
                key_id=key_id, account_id=account_id, scopes=scopes[key_id], end_ms=end_ms
            ),
            prefix=prefix,
            create_ms=create_ms,
            rotated_from=rotated_from,
            description=description,
            certificate_name=name,
        )
        for (
            key_id,
            account_id,
            prefix,
            create_ms,
            end_ms,
            rotated_from,
            description,
            name,
        ) in rows[::-1]
    ]


def insert_scopes(connection: Connection, credential: Credential) -> None:
    """Write a key's scopes."""
    connection.execute(
        insert(api_key_scopes),
        [
            {
                "key_id": credential.key_id,
                "permission": scope.role,
                "account_id": scope.account_id,
            }
            for scope in credential.scopes
        ],
    )


def _select_scopes(
    connection: Connection, wanted: ColumnElement[bool]
) -> dict[str, tuple[Scope, ...]]:
    """Return each key's scopes."""
    scopes: dict[str, tuple[Scope, ...]] = {}
    columns = api_key_scopes.c
    rows = connection.execute(
        select(columns.key_id, columns.permission, columns.account_id)
        .where(wanted)
        .order_by(columns.key_id, columns.permission, columns.account_id.nulls_first())
    )
    for key_id, role, account_id in rows:
        scope = Scope(role=Role(role), account_id=account_id)
        scopes[key_id] = (*scopes.get(key_id, ()), scope)
    return scopes


def is_one_of(column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """One array parameter, however many values there are."""
    return column == any_(literal(list(values), ARRAY(Text)))


def _ms(time: ColumnElement[Any]) -> ColumnElement[int]:
    """Milliseconds since 1970 of a timestamp, in exact arithmetic."""
    return cast(extract("epoch", time) * 1000, BigInteger)
