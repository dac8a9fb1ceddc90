"""The real PgBouncer between a meter and its Postgres."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.ports import find_free_ports
from tests.wire.talk import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "postgres-ha.md"
STOP_SECONDS_MAX = 20


@contextmanager
def pooling(database_url: str, *, mode: str) -> Iterator[str]:
    """Run PgBouncer with the page's settings before a database; yields the URL through it.

    Skips where it is not installed, or cannot be run as another user than root.
    """
    program = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("pgbouncer is not installed, or this is not root")
    user = pwd.getpwnam("postgres")
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-pooler-"))
    place = urlsplit(database_url)
    (port,) = find_free_ports(1)
    settings = page_settings() | {
        "listen_port": str(port),
        "pool_mode": mode,
        "auth_file": str(folder / "users"),
        "unix_socket_dir": "",
    }
    target = f"host={place.hostname} port={place.port} dbname={place.path[1:]}"
    lines = ["[databases]", f"{place.path[1:]} = {target}", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (folder / "users").write_text(f'"{place.username}" "{place.password}"\n', "utf-8")
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n", "utf-8")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text("utf-8")
        through = f"{place.username}:{place.password}@127.0.0.1:{port}"
        yield urlunsplit(place._replace(netloc=through))
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)
        shutil.rmtree(folder)


def page_settings() -> dict[str, str]:
    """Return what the page sets in the section [pgbouncer]."""
    text = PAGE.read_text("utf-8").partition("```ini\n")[2].partition("```")[0]
    lines = text.partition("[pgbouncer]\n")[2].splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
