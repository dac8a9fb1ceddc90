"""The schema: what the migrations make is what the code believes."""

import re
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine

import billing.store.tables
import migrations
from meter.domain.tokens import TokenClass
from meter.store.archive_tables import metadata as archive_metadata
from meter.store.energy_tables import metadata as energy_metadata
from meter.store.tables import metadata as meter_metadata
from tests.postgres import Cluster

METADATA = sqlalchemy.MetaData()
for each in (meter_metadata, energy_metadata, archive_metadata, billing.store.tables.metadata):
    for described in each.tables.values():
        described.to_metadata(METADATA)
VERSIONS = Path(migrations.__file__).parent / "versions"
# Where the schema of the version before ends; the fault rows of upgrades run that one's code.
BEFORE = "0013_post_migrator"


@pytest.fixture
def administrator(database_url: str) -> Engine:
    """Connections of the superuser, who sees everything."""
    return create_engine(database_url, poolclass=sqlalchemy.NullPool)


def is_described(name: str | None, kind: str, *_: object) -> bool:
    """Indexes are the migrations' alone, as their own list and parts; all else is said twice."""
    is_own = name == "schema_history" or re.fullmatch(
        r"journal_(first|rest|\d{4}_\d\d)", name or ""
    )
    if kind == "table" and is_own:
        return False
    return kind not in {"index", "unique_constraint", "foreign_key_constraint"}


def test_tables__equal_the_migrated_database(administrator: Engine) -> None:
    """No table or column is in the code alone or in the database alone, nor of another type."""
    with administrator.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": is_described}
        )
        differences = [
            it
            for it in compare_metadata(context, METADATA)
            if it[0] not in {"remove_index", "remove_constraint", "add_index", "remove_fk"}
        ]
    assert differences == []


def test_tables__primary_keys_equal_the_migrated_database(administrator: Engine) -> None:
    """Each table's key in the code is the database's, where the code names one."""
    inspector = sqlalchemy.inspect(administrator)
    for table in METADATA.tables.values():
        described = [column.name for column in table.primary_key]
        if described:
            found = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert described == found, table.name


def test_usage__has_a_column_for_every_class(administrator: Engine) -> None:
    """Every token class has its sum, in the table and in the view that others read."""
    names = {token_class.name.lower() for token_class in TokenClass}
    inspector = sqlalchemy.inspect(administrator)
    for relation in ("usage", "usage_daily"):
        assert names <= {column["name"] for column in inspector.get_columns(relation)}


def test_usage__interval_is_on_an_edge(administrator: Engine) -> None:
    """The database itself refuses a row that is not on the 15-minute grid."""
    insert = sqlalchemy.text(
        "INSERT INTO usage SELECT 'a', to_timestamp(901), 1, 0, 1, 1, "
        + ", ".join("0" for _ in range(len(TokenClass) + 3))
    )
    with (
        administrator.connect() as connection,
        pytest.raises(sqlalchemy.exc.IntegrityError, match="interval_start"),
    ):
        connection.execute(insert)


def test_migrations__are_named_for_number_and_phase() -> None:
    """Each file is named NNNN_{pre|post}_what, without hole, and knows its name."""
    names = sorted(path.stem for path in VERSIONS.glob("[0-9]*.py"))
    assert names
    for number, name in enumerate(names, start=1):
        assert re.fullmatch(rf"{number:04}_(pre|post)_[a-z0-9_]+", name)
        text = (VERSIONS / f"{name}.py").read_text("utf-8")
        assert f'revision = "{name}"\n' in text


def test_migrations__of_a_version_add_before_they_take_away() -> None:
    """No `pre` of this version lies behind a `post` of it, which would come along with it."""
    names = sorted(path.stem for path in VERSIONS.glob("[0-9]*.py"))
    stages = [migrations.stage_of(name).value for name in names[names.index(BEFORE) + 1 :]]
    assert stages == sorted(stages, key=["pre", "post"].index)
    assert "pre" in stages


def test_migrations__pending_until_upgraded(cluster: Cluster) -> None:
    """An empty database lacks all migrations, in order; after the upgrade it lacks none."""
    names = sorted(path.stem for path in VERSIONS.glob("[0-9]*.py"))
    with cluster.database(template="template0") as url:
        assert migrations.pending(url) == names
        migrations.upgrade(url)
        assert migrations.pending(url) == []
        migrations.upgrade(url)
        assert migrations.pending(url) == []
