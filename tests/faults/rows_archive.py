"""Old months that leave the database for files, while producers report."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.faults.plant import TOKENWORKS
from tests.faults.row import Seen, Skipped, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_KILLS: Final = 4
_AUDIT_SECONDS_MAX: Final = 60
_SETTINGS: Final = {
    "TOKENWORKS_JOURNAL_RETENTION_DAYS": "35",
    "TOKENWORKS_ARCHIVE_FOLDER": "",
}
# What was recorded until now becomes a month of long ago, and its months count as closed.
_AGE: Final = """
ALTER TABLE journal DETACH PARTITION journal_first;
UPDATE journal_first SET commit_time = commit_time - interval '200 days';
ALTER TABLE journal ATTACH PARTITION journal_first FOR VALUES FROM (MINVALUE) TO ('{until}');
UPDATE journal_parts SET end_time = '{until}' WHERE part = 'journal_first';
SELECT make_journal_parts();
DELETE FROM billing_periods;
INSERT INTO billing_periods (contract, period_start, period_end, month, version_start, zone,
                             tzdata, open_time, state)
SELECT 'next', d + interval '2 days', d + interval '40 days', date_trunc('month', d)::date, d,
       'UTC', '', d, 'open'
FROM (SELECT date_trunc('day', now())) AS today (d);
"""
_UNTIL: Final = "SELECT (date_trunc('month', now() - interval '100 days') AT TIME ZONE 'UTC')::text"
_IN_FILES: Final = "SELECT count(*) FROM archived_segments"
_LEFT: Final = "SELECT count(*) FROM journal_archives WHERE drop_time IS NOT NULL"
_BACK: Final = """
DELETE FROM archived_segments;
DELETE FROM journal_archives;
INSERT INTO journal_parts VALUES ('journal_first', NULL, '{until}');
CREATE TABLE journal_first PARTITION OF journal FOR VALUES FROM (MINVALUE) TO ('{until}');
"""


@row(
    "archive-killed",
    fault="kill -9 of the meter, four times, while an old month is archived and dropped",
    how="what was recorded is dated back; each kill comes as soon as something of a file is there",
    expected="dropped only once its files stand; audited from them, and put back byte by byte",
    starts_itself=True,
)
def archive_killed(site: Site) -> Seen:
    """Kill it while the journal goes into files."""
    parquet = _import_parquet()
    folder = site.folder / "archive"
    folder.mkdir()
    settings = {**_SETTINGS, "TOKENWORKS_ARCHIVE_FOLDER": str(folder)}
    site.start()
    site.start_fleet()
    site.load()
    site.meter.stop()
    until = _age(site)
    site.meter.settings |= settings
    kills = 0
    for _ in range(_KILLS):
        site.meter.start()
        wait_until(lambda: any(folder.rglob("*.p*")), seconds_max=30, what="a file is begun")
        kills += site.meter.kill() == -signal.SIGKILL
        for left in folder.rglob("*.parquet"):
            if not site.database.question(_IN_FILES):
                left.unlink()
    site.meter.start()
    wait_until(lambda: site.database.question(_LEFT) > 0, seconds_max=90, what="the month is gone")
    count = site.database.question(_IN_FILES)
    wrong = _audit(site, folder)
    site.load()
    site.wait_for_progress()
    _put_back(site, folder, until=until, parquet=parquet)
    wrong = wrong or ("" if kills == _KILLS else f"{kills} kills")
    return Seen(count=count, what="segments that left for files, and came back", wrong=wrong)


def _age(site: Site) -> str:
    """Date back what is there; returns when its part ends."""
    wait_until(
        lambda: (
            site.database.question(
                "SELECT count(*) FROM shards s LEFT JOIN counting c USING (shard)"
                " WHERE s.position > coalesce(c.position, 0)"
            )
            == 0
        ),
        seconds_max=30,
        what="all is counted",
    )
    with psycopg.connect(site.database.url) as connection:
        found = connection.execute(_UNTIL).fetchone()
        assert found is not None
        until = f"{found[0]}+00"
        connection.execute(_AGE.format(until=until).encode())
    return until


def _audit(site: Site, folder: Path) -> str:
    """Have the product audit what it has, files included; returns what it finds wrong."""
    done = subprocess.run(
        [TOKENWORKS, "doctor", "--audit"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ
        | {
            "TOKENWORKS_DATABASE_URL": site.database.url,
            "TOKENWORKS_ARCHIVE_FOLDER": str(folder),
        },
        text=True,
        check=False,
        timeout=_AUDIT_SECONDS_MAX,
    )
    return "" if done.returncode == 0 else f"audit with the files: {done.stdout[-500:]}"


def _put_back(site: Site, folder: Path, *, until: str, parquet: Any) -> None:  # noqa: ANN401
    """Bring the month back by nothing but its files, as anybody could who has them."""
    with psycopg.connect(site.database.url) as connection:
        connection.execute(_BACK.format(until=until).encode())
        columns = ("shard", "position", "epoch", "event_count", "first_end_time", "last_end_time",
                   "commit_time", "body")  # fmt: skip
        copy = f"COPY journal ({', '.join(columns)}) FROM STDIN"
        with connection.cursor().copy(copy.encode()) as target:
            for path in sorted(folder.rglob("*.parquet")):
                for each in parquet.read_table(path).to_pylist():
                    target.write_row([each[name] for name in columns])


def _import_parquet() -> Any:  # noqa: ANN401
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Skipped("pyarrow is not installed") from error
    return parquet
