"""`tokenworks db`: the schema of a real database."""

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from alembic import command

import migrations
from cli.postgres.nearest import find_nearest_url
from meter.store.folding import SUMMED
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
        assert (checked.returncode, json.loads(checked.stdout)) == (0, {"missing": [], "newer": []})


def test_grant_reader__says_what_is_read(database_url: str) -> None:
    """A login that is there reads everything, or an account that is there; others are refused."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts VALUES ('acme', 'acme', now())")
        connection.execute("INSERT INTO account_parents VALUES ('acme', now(), NULL)")
        connection.execute("CREATE ROLE reads_acme")
        try:
            made = _run(
                "grant-reader", "reads_acme", "--account", "acme", "--json", url=database_url
            )
            assert json.loads(made.stdout) == {"login": "reads_acme", "account": "acme"}
            assert _run("grant-reader", "reads_acme", url=database_url).stdout == (
                "reads_acme reads everything\n"
            )
            refused = _run("grant-reader", "nobody_at_all", url=database_url)
            assert (refused.returncode, "There is no login" in refused.stderr) == (3, True)
        finally:
            connection.execute("DROP OWNED BY reads_acme; DROP ROLE reads_acme")


def test_upgrade__for_people(cluster: Cluster) -> None:
    """Each migration is a line; when there is none, that is said."""
    with cluster.database(template="template0") as url:
        assert "missing 0001_pre_meter\n" in _run("check", url=url).stdout
        assert _run("upgrade", url=url).stdout.startswith("applied 0001_pre_meter\n")
        assert _run("upgrade", url=url).stdout == "nothing to do\n"
        assert _run("check", url=url).stdout == "the schema is up to date\n"


def test_upgrade__in_two_stages(cluster: Cluster, with_post: str) -> None:
    """`pre` is what servers need before they start, `post` what waits for the last older one."""
    with cluster.database(template="template0") as url:
        names = json.loads(_run("check", "--json", url=url).stdout)["missing"]
        first = json.loads(_run("upgrade", "--stage", "pre", "--json", url=url).stdout)["applied"]
        left = names[len(first) :]
        assert first
        assert "_pre_" in first[-1]
        assert left[-1] == with_post
        assert all("_post_" in it for it in left)
        assert _run("check", "--stage", "pre", url=url).returncode == 0
        whole = _run("check", url=url)
        assert (whole.returncode, "when no server of an older" in whole.stdout) == (1, True)
        rest = json.loads(_run("upgrade", "--stage", "post", "--json", url=url).stdout)
        assert rest == {"applied": left}
        assert _run("check", url=url).returncode == 0


def test_check__of_a_newer_version(cluster: Cluster) -> None:
    """What a newer version has added is told and let be, until it has taken something away."""
    with cluster.database() as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_history VALUES ('9998_pre_later')")
        connection.execute("UPDATE alembic_version SET version_num = '9998_pre_later'")
        assert _run("check", url=url).stdout.startswith("a newer version's")
        assert json.loads(_run("upgrade", "--json", url=url).stdout) == {"applied": []}
        connection.execute("INSERT INTO schema_history VALUES ('9997_post_gone')")
        refused = _run("check", url=url)
        assert (refused.returncode, "9997_post_gone" in refused.stderr) == (1, True)


def test_upgrade__while_somebody_holds_a_lock(cluster: Cluster) -> None:
    """A lock that is not there is asked for again; whoever queues behind is let through between."""
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0010_pre_roles")  # noqa: SLF001  half the way
        with psycopg.connect(url) as holding, psycopg.connect(url, autocommit=True) as behind:
            holding.execute("SELECT count(*) FROM journal")
            upgrading = subprocess.Popen(
                [TOKENWORKS, "db", "upgrade"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | {"TOKENWORKS_DATABASE_URL": url},
                text=True,
            )
            assert upgrading.stderr is not None
            told = upgrading.stderr.readline()
            behind.execute("SET statement_timeout = '5s'")
            behind.execute("SELECT count(*) FROM journal")
        assert upgrading.wait(timeout=60) == 0
        upgrading.stderr.close()
        assert "waits for a lock" in told
        assert _run("check", url=url).returncode == 0


def test_nearest__where_up_runs(
    cluster: Cluster, pg_bin: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From below a folder in which Postgres runs it is found; one that was stopped is passed."""
    below = tmp_path / "below"
    (below / ".tokenworks/postgres").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_nearest_url(pg_bin=pg_bin) is None
    with psycopg.connect(cluster.url()) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    (tmp_path / ".tokenworks").mkdir()
    (tmp_path / ".tokenworks/postgres").symlink_to(Path(data).parent)
    assert find_nearest_url(pg_bin=pg_bin) == cluster.url("tokenworks")


def test_recount__adds_usage_up_anew(cluster: Cluster) -> None:
    """Totals that were changed by hand are usage's again, and the audit log has who did it."""
    with cluster.database() as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts VALUES ('acme', 'Acme', now())")
        connection.execute(
            "INSERT INTO skus (sku_id, model, served_model, tier, mode, region)"
            " OVERRIDING SYSTEM VALUE VALUES (1, 'm', '', 'high', 1, '')"
        )
        connection.execute(
            "INSERT INTO usage (account_id, interval_start, sku_id, band, finish_class, cut_id,"
            f" {', '.join(SUMMED)}, delivered_output_count, estimated_count)"
            f" VALUES ('acme', '2026-10-07T12:00Z', 1, 0, 1, 3, {'5, ' * len(SUMMED)} 0, 0)"
        )
        connection.execute(
            "INSERT INTO period_totals (account_id, cell_start, sku_id, band, request_count,"
            " unfinished_count, delivered_output_count, estimated_count, last_cut_id)"
            " VALUES ('acme', '2026-09-01T12:00Z', 1, 0, 1, 0, 0, 0, 1)"
        )
        recounted = _run("recount", "--json", url=url)
        assert recounted.returncode == 0, recounted.stderr
        folded = connection.execute("SELECT folded_until FROM totals_fold").fetchone()
        assert folded == (datetime.fromisoformat(json.loads(recounted.stdout)["until"]),)
        kept = connection.execute(
            "SELECT cell_start, input, request_count, last_cut_id FROM period_totals"
        ).fetchall()
        assert kept == [(datetime.fromisoformat("2026-10-01T12:00Z"), 5, 5, 3)]
        told = connection.execute("SELECT key_id, action FROM audit_entries").fetchall()
        assert told == [("job", "usage.recount")]
        assert _run("recount", url=url).stdout.startswith("usage is added up until 20")


@pytest.mark.parametrize("verb", ["check", "upgrade"])
def test_db__newer_schema(cluster: Cluster, verb: str) -> None:
    """A database that a newer version migrated is left alone, with that as the reason."""
    with cluster.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999_post_later'")
        refused = _run(verb, url=url)
        assert (refused.returncode, "newer version" in refused.stderr) == (1, True)


@pytest.mark.parametrize("verb", ["check", "recount"])
def test_db__no_server(verb: str) -> None:
    """A database that does not answer is an error, not a traceback."""
    refused = _run(verb, url="postgresql://nobody@127.0.0.1:1/nothing")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")
    assert "database" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("verb", ["check", "recount"])
def test_db__none_named(verb: str) -> None:
    """Without a database the setting to set is named."""
    refused = _run(verb, url=None)
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
