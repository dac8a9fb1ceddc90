"""The Postgres that `tokenworks up` runs in a folder, found from that folder or from below it."""

from pathlib import Path
from typing import Final

from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres

_PLACE: Final = Path(".tokenworks") / "postgres"


def find_nearest_url(*, pg_bin: Path | None) -> str | None:
    """The URL of the database of the nearest folder in which `up` runs; None without one.

    `pg_bin` is the folder of the Postgres programs, None for the embedded ones. Raises
    PostgresError when there are none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _PLACE).is_dir():
            postgres = Postgres(folder / _PLACE, programs=find_programs(pg_bin))
            if postgres.is_running():
                return postgres.url()
    return None
