"""Accounts and API keys in Postgres; every change moves the registry's version.

A change locks the registry's row before it looks at anything, so that its rules are checked against
the newest accounts and two changes that together would break a rule cannot both pass. What a store
has read it keeps, and reads all of it again only when somebody else has moved the version.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, or_, select, true, update

from meter.audit_log import JOB, Action, Change
from meter.domain.account import Account, AccountTree
from meter.domain.account import close_account as closed
from meter.domain.account import create_account as created
from meter.domain.account import move_account as moved
from meter.domain.certificate_name import unbound_hash
from meter.domain.clock import Clock
from meter.domain.credential import (
    ApiKey,
    Credential,
    MintedKey,
    RandomBytes,
    RegistrySnapshot,
    Role,
    Scope,
    check_key,
    check_rotation,
    mint_key,
    rotation_end_ms,
)
from meter.domain.errors import AlreadyExists, NotFound, Reason
from meter.domain.interval import next_edge_ms
from meter.domain.times import to_iso, to_time
from meter.runtime.engine import store_faults
from meter.store.account_rows import (
    insert_scopes,
    is_one_of,
    select_accounts,
    select_credentials,
    select_keys,
)
from meter.store.audit_log import ChangeLog
from meter.store.tables import account_parents, accounts, api_keys, registry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AccountStore:
    """Reads and changes accounts and API keys; safe to share between threads.

    Every method raises Unavailable when the database is away. `by` is who makes a change, as the
    audit log has it: the id of an API key, or JOB.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: RegistrySnapshot | None = None
        self._known_lock = threading.Lock()
        # One change at a time in this process: others would hold connections only to wait.
        self._change_lock = threading.Lock()

    @property
    def known(self) -> RegistrySnapshot | None:
        """The newest snapshot that this store has read or written; None before the first."""
        return self._known

    def version(self) -> int:
        """Return the registry's version, which every change moves.

        A lower one than was known before is that of an older database: nothing else lowers it.
        """
        known = self._known
        with store_faults(), self._engine.connect() as connection:
            version = _select_version(connection)
        with self._known_lock:
            if known is not None and version < known.version and self._known is known:
                self._known = None
        return version

    def load(self) -> RegistrySnapshot:
        """Return all accounts and keys at one version."""
        with store_faults(), self._engine.connect() as connection:
            # Version, accounts and keys of the same moment.
            connection.execution_options(isolation_level="REPEATABLE READ")
            version = _select_version(connection)
            snapshot = self._read(connection, version=version)
        self._keep(snapshot)
        return snapshot

    def create_account(
        self, account_id: str, *, handle: str, parent_id: str | None, by: str
    ) -> Account:
        """Create an account now; raises what `meter.domain.account.create_account` does."""
        with self._changing(by) as change:
            tree, now_ms = change.snapshot.tree, change.now_ms
            account = created(tree, account_id, handle=handle, parent_id=parent_id, now_ms=now_ms)
            change.insert_account(account)
            change.note(Action.ACCOUNT_CREATE, account_id, handle=handle, parent=parent_id or "")
        return account

    def move_account(
        self, account_id: str, *, parent_id: str | None, start_ms: int | None, by: str
    ) -> Account:
        """Give an account a new parent from `start_ms` on; None means the next edge.

        Raises what `meter.domain.account.move_account` does.
        """
        with self._changing(by) as change:
            tree, now_ms = change.snapshot.tree, change.now_ms
            start_ms = next_edge_ms(now_ms) if start_ms is None else start_ms
            account = moved(tree, account_id, parent_id=parent_id, start_ms=start_ms, now_ms=now_ms)
            if account != tree.get(account_id):
                change.insert_edge(account, start_ms=start_ms)
                start = to_iso(start_ms)
                change.note(
                    Action.ACCOUNT_MOVE, account_id, parent=parent_id or "", start_time=start
                )
        return account

    def close_account(self, account_id: str, *, by: str) -> Account:
        """Close an account now; raises NotFound, Refused (CLOSE_REFUSED)."""
        with self._changing(by) as change:
            account = closed(change.snapshot.tree, account_id, now_ms=change.now_ms)
            change.update_close_time(account)
            change.note(Action.ACCOUNT_CLOSE, account_id)
        return account

    def create_key(
        self,
        minted: MintedKey,
        *,
        account_id: str | None,
        scopes: tuple[Scope, ...],
        description: str,
        by: str,
        certificate_name: str | None = None,
    ) -> ApiKey:
        """Keep a new API key; raises InvalidArgument, NotFound when one of its accounts is not.

        One with a `certificate_name` was made by `bind_key`; raises AlreadyExists
        (CERTIFICATE_BOUND) while another goes on that is bound to it.
        """
        check_key(scopes=scopes, description=description)
        with self._changing(by) as change:
            for concerned_id in (account_id, *(scope.account_id for scope in scopes)):
                if concerned_id is not None:
                    change.snapshot.tree.get(concerned_id)
            if certificate_name is not None:
                change.free_certificate_name(certificate_name)
            key = ApiKey(
                credential=Credential(
                    key_id=minted.key_id, account_id=account_id, scopes=scopes, end_ms=None
                ),
                prefix=minted.prefix,
                create_ms=change.now_ms,
                rotated_from=None,
                description=description,
                certificate_name=certificate_name,
            )
            change.insert_key(key, secret_hash=minted.secret_hash)
            change.note(Action.KEY_CREATE, key.key_id, **_key_detail(key))
        return key

    def create_installation_key(
        self, random_bytes: RandomBytes, *, pepper: bytes, description: str
    ) -> str:
        """Draw and keep an API key that may do everything; return its text."""
        minted = mint_key(random_bytes, pepper=pepper)
        scopes = tuple(Scope(role=it, account_id=None) for it in Role)
        self.create_key(minted, account_id=None, scopes=scopes, description=description, by=JOB)
        return minted.text

    def rotate_key(self, key_id: str, minted: MintedKey, *, grace_seconds: int, by: str) -> ApiKey:
        """Keep a successor of an API key, which itself ends after the grace; return the successor.

        Raises InvalidArgument, NotFound (API_KEY_NOT_FOUND), Refused (ROTATION_REFUSED).
        """
        with self._changing(by) as change:
            old, secret_hash = change.get_key(key_id)
            end_ms = rotation_end_ms(
                old.credential, grace_seconds=grace_seconds, now_ms=change.now_ms
            )
            kin = change.find_kin(old)
            check_rotation(old, kin=kin, now_ms=change.now_ms)
            change.end_key(old, secret_hash=secret_hash, end_ms=end_ms)
            key = ApiKey(
                credential=replace(old.credential, key_id=minted.key_id, end_ms=None),
                prefix=minted.prefix,
                create_ms=change.now_ms,
                rotated_from=key_id,
                description=old.description,
            )
            change.insert_key(key, secret_hash=minted.secret_hash)
            change.note(Action.KEY_ROTATE, key_id, successor=key.key_id, end_time=to_iso(end_ms))
        return key

    def revoke_key(self, key_id: str, *, by: str) -> ApiKey:
        """End an API key now, if it has not ended before; raises NotFound (API_KEY_NOT_FOUND)."""
        with self._changing(by) as change:
            key, secret_hash = change.get_key(key_id)
            if not key.credential.is_ended_at(change.now_ms):
                key = change.end_key(key, secret_hash=secret_hash, end_ms=change.now_ms)
                change.note(Action.KEY_REVOKE, key_id)
        return key

    def find_key(self, key_id: str) -> ApiKey | None:
        """Return an API key, ended or not; None when there is none of this name."""
        with store_faults(), self._engine.connect() as connection:
            found = select_keys(connection, api_keys.c.key_id == key_id)
        return found[0] if found else None

    def list_keys(self, *, owners: Collection[str] | None) -> list[ApiKey]:
        """Return the newest 10,000 keys of these accounts, oldest first; all keys for None."""
        wanted = true() if owners is None else is_one_of(api_keys.c.account_id, owners)
        with store_faults(), self._engine.connect() as connection:
            return select_keys(connection, wanted)

    @contextmanager
    def _changing(self, by: str) -> Iterator["_Change"]:
        """One transaction on the newest accounts and keys; its end moves the version."""
        with self._change_lock:
            with store_faults(), self._engine.begin() as connection:
                version = connection.execute(
                    select(registry.c.version).with_for_update()
                ).scalar_one()
                before = self._read(connection, version=version)
                # The time of the change is read under the lock: changes are made in its order.
                now_ms = self._clock.now_ms()
                change = _Change(connection, snapshot=before, now_ms=now_ms, by=by)
                yield change
                if change.snapshot is before:
                    return
                after = replace(change.snapshot, version=version + 1)
                connection.execute(update(registry).values(version=after.version))
            self._keep(after)

    def _read(self, connection: Connection, *, version: int) -> RegistrySnapshot:
        known = self._known
        if known is not None and known.version == version:
            return known
        return RegistrySnapshot(
            version=version,
            tree=AccountTree(select_accounts(connection)),
            credentials=select_credentials(connection),
        )

    def _keep(self, snapshot: RegistrySnapshot) -> None:
        with self._known_lock:
            if self._known is None or self._known.version < snapshot.version:
                self._known = snapshot


class _Change:
    """One open transaction that holds the registry's lock; `snapshot` follows what it writes."""

    def __init__(
        self, connection: Connection, *, snapshot: RegistrySnapshot, now_ms: int, by: str
    ) -> None:
        self._connection = connection
        self.snapshot = snapshot
        self.now_ms = now_ms
        self._by = by

    def note(self, action: Action, subject: str, **detail: object) -> None:
        """Write what was done into the audit log."""
        change = Change(
            at_ms=self.now_ms, key_id=self._by, action=action, subject=subject, detail=detail
        )
        ChangeLog().write(self._connection, change)

    def insert_account(self, account: Account) -> None:
        self._connection.execute(
            insert(accounts).values(
                account_id=account.account_id,
                handle=account.handle,
                create_time=to_time(account.create_ms),
            )
        )
        self.insert_edge(account, start_ms=account.parents[0].start_ms)

    def insert_edge(self, account: Account, *, start_ms: int) -> None:
        """Write the edge of `account` that begins at `start_ms`."""
        self._connection.execute(
            insert(account_parents).values(
                account_id=account.account_id,
                start_time=to_time(start_ms),
                parent_id=account.parent_at(start_ms),
            )
        )
        self._put_account(account)

    def update_close_time(self, account: Account) -> None:
        assert account.close_ms is not None
        self._connection.execute(
            update(accounts)
            .where(accounts.c.account_id == account.account_id)
            .values(close_time=to_time(account.close_ms))
        )
        self._put_account(account)

    def get_key(self, key_id: str) -> tuple[ApiKey, bytes]:
        """Return a key with the hash of its secret; raises NotFound (API_KEY_NOT_FOUND)."""
        found = select_keys(self._connection, api_keys.c.key_id == key_id)
        if not found:
            raise NotFound(Reason.API_KEY_NOT_FOUND, "No API key has this id.")
        secret_hash = self._connection.execute(
            select(api_keys.c.secret_hash).where(api_keys.c.key_id == key_id)
        ).scalar_one()
        return found[0], secret_hash

    def find_kin(self, key: ApiKey) -> list[ApiKey]:
        """Return the key's predecessor and its successors."""
        is_kin = or_(api_keys.c.key_id == key.rotated_from, api_keys.c.rotated_from == key.key_id)
        return select_keys(self._connection, is_kin)

    def free_certificate_name(self, name: str) -> None:
        """Take a name from the key that has it and has ended; raises AlreadyExists."""
        for holder in select_keys(self._connection, api_keys.c.certificate_name == name):
            if not holder.credential.is_ended_at(self.now_ms):
                raise AlreadyExists(
                    Reason.CERTIFICATE_BOUND,
                    f"{holder.key_id} is bound to this name; revoke it first.",
                    key_id=holder.key_id,
                )
            self._connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == holder.key_id)
                .values(certificate_name=None, secret_hash=unbound_hash(holder.key_id))
            )

    def insert_key(self, key: ApiKey, *, secret_hash: bytes) -> None:
        credential = key.credential
        self._connection.execute(
            insert(api_keys).values(
                key_id=credential.key_id,
                account_id=credential.account_id,
                prefix=key.prefix,
                secret_hash=secret_hash,
                create_time=to_time(key.create_ms),
                rotated_from=key.rotated_from,
                description=key.description,
                certificate_name=key.certificate_name,
            )
        )
        insert_scopes(self._connection, credential)
        self._put_credential(credential, secret_hash=secret_hash)

    def end_key(self, key: ApiKey, *, secret_hash: bytes, end_ms: int) -> ApiKey:
        """Write when a key ends, and return it so."""
        self._connection.execute(
            update(api_keys).where(api_keys.c.key_id == key.key_id).values(end_time=to_time(end_ms))
        )
        credential = replace(key.credential, end_ms=end_ms)
        self._put_credential(credential, secret_hash=secret_hash)
        return replace(key, credential=credential)

    def _put_account(self, account: Account) -> None:
        self.snapshot = replace(self.snapshot, tree=self.snapshot.tree.with_account(account))

    def _put_credential(self, credential: Credential, *, secret_hash: bytes) -> None:
        credentials = {**self.snapshot.credentials, secret_hash: credential}
        self.snapshot = replace(self.snapshot, credentials=credentials)


def _key_detail(key: ApiKey) -> dict[str, object]:
    """Return what an API key may do, for the audit log."""
    scopes = key.credential.scopes
    bound = {} if key.certificate_name is None else {"certificate": key.certificate_name}
    return {
        **bound,
        "account": key.credential.account_id or "",
        "scopes": [{"role": it.role.word, "account": it.account_id or ""} for it in scopes],
        "description": key.description,
    }


def _select_version(connection: Connection) -> int:
    version: int = connection.execute(select(registry.c.version)).scalar_one()
    return version
