"""The version before, N, as its own code from git: its schema, its meter, its commands."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from tests.faults.plant import ACCOUNTS, BOOK, CONTRACT, PEPPER, ROOT_ACCOUNT, MeterProcess
from tests.faults.row import Skipped
from tests.faults.site import Site

COMMIT: Final = "f406ec4"
"""A commit whose schema ends with 0013: what ran before sources and engines."""
_ROOT: Final = Path(__file__).parents[2]
_SECONDS_MAX: Final = 120
_MAKE_KEY: Final = (
    "import sys, meter.app;"
    "print(meter.app.create_installation_key(sys.argv[1], key_pepper=bytes.fromhex(sys.argv[2]),"
    " description='for faults'))"
)


class Older:
    """The code of N in a folder of its own, run by this environment's Python."""

    def __init__(self, folder: Path) -> None:
        """Write the code into a new folder; raises Skipped where git does not have it."""
        self._folder = folder
        folder.mkdir(parents=True)
        packed = subprocess.run(
            ["git", "-C", _ROOT, "archive", COMMIT, "meter", "billing", "cli", "migrations", "sdk"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if packed.returncode:
            raise Skipped(f"git does not have {COMMIT} here")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a Python process take N's modules, and not this tree's."""
        return {"PYTHONPATH": f"{self._folder}:{self._folder / 'sdk'}", "PYTHONSAFEPATH": "1"}

    def run(self, *words: str, **settings: str) -> str:
        """Run a command of N; returns what it printed."""
        command = [sys.executable, "-c", "from cli.main import main; main()", *words]
        return self._run(command, settings)

    def settle(self, site: Site) -> None:
        """Give the site's Postgres a database of N, with accounts, prices and a contract."""
        parts = psycopg.conninfo.conninfo_to_dict(site.database.url)
        name = sql.Identifier(str(parts["dbname"]))
        elsewhere = psycopg.conninfo.make_conninfo(site.database.url, dbname="postgres")
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        url = site.database.url
        self.run("db", "upgrade", TOKENWORKS_DATABASE_URL=url)
        make_key = [sys.executable, "-c", _MAKE_KEY, url, PEPPER.hex()]
        site.api_key = self._run(make_key, {}).strip()

    def set_up(self, site: Site, meter: MeterProcess) -> None:
        """Make the accounts, prices and the contract of every row, at a running meter of N."""
        reach = {"TOKENWORKS_SERVER": meter.grpc, "TOKENWORKS_API_KEY": site.api_key}
        self.run("accounts", "create", ROOT_ACCOUNT, "--id", ROOT_ACCOUNT, **reach)
        for account in ACCOUNTS:
            self.run("accounts", "create", account, "--parent", ROOT_ACCOUNT, "--id", account,
                     **reach)  # fmt: skip
        self.run("prices", "import", str(BOOK), **reach)
        self.run("contracts", "set", str(CONTRACT), **reach)

    def _run(self, command: list[str], settings: dict[str, str]) -> str:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=self._folder,
            env=os.environ | self.environment | settings,
            text=True,
            check=True,
            timeout=_SECONDS_MAX,
        ).stdout
