"""URLs of databases with one host and with several, down to what libpq is told."""

import pytest
from sqlalchemy import create_engine

from cli.setting_values import read_database_url
from meter.runtime.database_url import engine_url


def told(database_url: str) -> dict[str, object]:
    """Return what libpq is told, without what SQLAlchemy adds."""
    url = engine_url(database_url)
    _, words = create_engine(url).dialect.create_connect_args(url)
    return {name: value for name, value in words.items() if name != "context"}


def test_url__of_one_host() -> None:
    """A URL with one host says what is in it, and is for writing."""
    assert told("postgresql://u:p@one:5433/db?sslmode=require") == {
        "host": "one", "port": 5433, "user": "u", "password": "p", "dbname": "db",
        "sslmode": "require", "target_session_attrs": "read-write",
    }  # fmt: skip


def test_url__of_several_hosts() -> None:
    """Several hosts are asked in turn for the one that takes writes."""
    assert told("postgresql://u:p%40,x@one:5433,two,[::1]:5435/db?sslmode=require") == {
        "host": "one,two,::1", "port": "5433,,5435", "user": "u", "password": "p@,x",
        "dbname": "db", "sslmode": "require", "target_session_attrs": "read-write",
    }  # fmt: skip


def test_url__of_several_hosts_and_another_wish() -> None:
    """Who says which of the hosts is wanted is heard, of one host and of several."""
    for hosts in ("one", "one,two"):
        words = told(f"postgresql://u@{hosts}/db?target_session_attrs=any")
        assert words["target_session_attrs"] == "any"


@pytest.mark.parametrize("text", ["postgresql://u@one,two/db?no=1", "postgresql://u@one:5432x/db"])
def test_setting__that_libpq_cannot_read(text: str) -> None:
    """A URL that nobody can read is refused at the start, and its password not repeated."""
    with pytest.raises(ValueError, match="must be a URL like postgresql://") as caught:
        read_database_url(text.replace("u@", "u:secret@"))
    assert "secret" not in str(caught.value)
