"""`tokenworks db`: the schema of a real database."""

import json
import os
import subprocess

import psycopg
import pytest

from tests.postgres import Cluster
from tests.running_meter import TOKENWORKS


def test_upgrade__empty_database(cluster: Cluster) -> None:
    """An empty database is upgraded once; check tells before and after."""
    with cluster.database(template="template0") as url:
        missing = _run("check", "--json", url=url)
        assert missing.returncode == 1
        names = json.loads(missing.stdout)["missing"]
        assert names[0] == "0001_pre_meter"
        assert json.loads(_run("upgrade", "--json", url=url).stdout) == {"applied": names}
        assert json.loads(_run("upgrade", "--json", url=url).stdout) == {"applied": []}
        checked = _run("check", "--json", url=url)
        assert (checked.returncode, json.loads(checked.stdout)) == (0, {"missing": []})


def test_upgrade__for_people(cluster: Cluster) -> None:
    """Each migration is a line; when there is none, that is said."""
    with cluster.database(template="template0") as url:
        assert "missing 0001_pre_meter\n" in _run("check", url=url).stdout
        assert _run("upgrade", url=url).stdout.startswith("applied 0001_pre_meter\n")
        assert _run("upgrade", url=url).stdout == "nothing to do\n"
        assert _run("check", url=url).stdout == "the schema is up to date\n"


@pytest.mark.parametrize("verb", ["check", "upgrade"])
def test_db__newer_schema(cluster: Cluster, verb: str) -> None:
    """A database that a newer version migrated is left alone, with that as the reason."""
    with cluster.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999_post_later'")
        refused = _run(verb, url=url)
        assert (refused.returncode, "newer version" in refused.stderr) == (1, True)


def test_db__no_server() -> None:
    """A database that does not answer is an error, not a traceback."""
    refused = _run("check", url="postgresql://nobody@127.0.0.1:1/nothing")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the database does not answer: ")


def test_db__none_named() -> None:
    """Without a database the setting to set is named."""
    refused = _run("check", url=None)
    assert refused.returncode == 2
    assert "TOKENWORKS_DATABASE_URL" in refused.stderr


def _run(verb: str, *arguments: str, url: str | None) -> subprocess.CompletedProcess[str]:
    named = {} if url is None else {"TOKENWORKS_DATABASE_URL": url}
    return subprocess.run(
        [TOKENWORKS, "db", verb, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | named,
        text=True,
        timeout=60,
        check=False,
    )
