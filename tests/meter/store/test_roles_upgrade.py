"""API keys of before, after an upgrade."""

import psycopg
from alembic import command

import migrations
from meter.domain.credential import Role
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from tests.clock import FakeClock
from tests.postgres import Cluster

_OF_ACME = {Role.ADMIN, Role.OPERATOR}
_OF_ALL = {*_OF_ACME, Role.BILLER, Role.PRICE_EDITOR}


def scopes_of(store: AccountStore) -> dict[str, set[tuple[Role, str | None]]]:
    """Return what each key may do, by its id."""
    return {
        it.key_id: {(scope.role, scope.account_id) for scope in it.scopes}
        for it in store.load().credentials.values()
    }


def test_upgrade__takes_nothing_from_a_key(cluster: Cluster) -> None:
    """Who administered before roles were apart can do the same after the upgrade."""
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
        # A server of this version is refused before: newer migrations come after that of roles.
        assert "0012_post_roles" in migrations.look(url).missing_pre
        migrations.upgrade(url)
        engine = make_engine(url, pool_size=2)
        assert scopes_of(AccountStore(engine, FakeClock(2_000_000_000_000))) == {
            "all": {(role, None) for role in _OF_ALL},
            "acme": {(role, "acme") for role in _OF_ACME},
        }
        engine.dispose()
