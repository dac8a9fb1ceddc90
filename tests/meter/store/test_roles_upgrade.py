"""API keys of before, while an upgrade is on its way and after it."""

import os

import psycopg
import pytest
from alembic import command

import migrations
from meter.domain.credential import MintedKey, Role, Scope, mint_key
from meter.domain.errors import InvalidArgument
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from tests.clock import FakeClock
from tests.postgres import Cluster

PEPPER = b"p" * 32
_OF_ACME = {Role.ADMIN, Role.OPERATOR}
_OF_ALL = {*_OF_ACME, Role.BILLER, Role.PRICE_EDITOR}


def scopes_of(store: AccountStore) -> dict[str, set[tuple[Role, str | None]]]:
    """Return what each key may do, by its id."""
    return {
        it.key_id: {(scope.role, scope.account_id) for scope in it.scopes}
        for it in store.load().credentials.values()
    }


def test_upgrade__takes_nothing_from_a_key(cluster: Cluster) -> None:
    """Who administered can do the same before the last migration and after it."""
    # Until then nothing is written that servers of before would stop at; from then on an admin is
    # an admin.
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0011_pre_parts")  # noqa: SLF001
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO accounts VALUES ('acme', 'acme', now())")
            connection.execute("INSERT INTO account_parents VALUES ('acme', now(), NULL)")
            for key_id, account in (("all", None), ("acme", "acme")):
                connection.execute(
                    "INSERT INTO api_keys VALUES (%s, %s, 'tw', %s, now())",
                    (key_id, account, key_id.encode()),
                )
                connection.execute(
                    "INSERT INTO api_key_scopes VALUES (%s, 3, %s)", (key_id, account)
                )
        wanted = {
            "all": {(role, None) for role in _OF_ALL},
            "acme": {(role, "acme") for role in _OF_ACME},
        }
        engine = make_engine(url, pool_size=2)
        store = AccountStore(engine, FakeClock(2_000_000_000_000))
        assert scopes_of(store) == wanted
        store.create_installation_key(os.urandom, pepper=PEPPER, description="")

        biller = (Scope(role=Role.BILLER, account_id=None),)
        with pytest.raises(InvalidArgument, match="until the upgrade is done"):
            store.create_key(_mint(), account_id=None, scopes=biller, description="", by="job")
        with psycopg.connect(url) as connection:
            written = connection.execute("SELECT max(permission) FROM api_key_scopes").fetchone()
        assert written == (3,)
        migrations.upgrade(url)
        after = scopes_of(AccountStore(engine, FakeClock(2_000_000_000_000)))
        assert {key: after[key] for key in wanted} == wanted
        admin = (Scope(role=Role.ADMIN, account_id=None),)
        for scopes in (admin, biller):
            key = store.create_key(
                _mint(), account_id=None, scopes=scopes, description="", by="job"
            )
            assert scopes_of(store)[key.key_id] == {(scopes[0].role, None)}
        engine.dispose()


def _mint() -> MintedKey:
    return mint_key(os.urandom, pepper=PEPPER)
