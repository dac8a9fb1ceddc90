"""Starts, attaches to and stops the Postgres server of a folder.

The server outlives a killed supervisor; the next one attaches to it. The caller sees to it that one
supervisor at a time works on a folder.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from cli.postgres.errors import PortTakenError, PostgresError
from cli.postgres.folder import HOST, USER, Folder, Postmaster
from cli.postgres.launcher import Launcher, find_launcher, hand_over
from cli.postgres.programs import Programs

DATABASE = "tokenworks"
# Recovery after a power cut reads at most max_wal_size of log back; five minutes is ample for 4 GB.
START_SECONDS_MAX = 300
STOP_SECONDS_MAX = 120
CONNECT_SECONDS_MAX = 10
POLL_SECONDS = 0.02
# Backends of a killed postmaster hold its shared memory until they notice, which takes moments.
ORPHANS_SECONDS_MAX = 30
# Between our choosing a free port and Postgres' binding it, another program may take it.
PORT_ATTEMPTS_MAX = 5


class Postgres:
    """The Postgres server of one folder.

    `port` is the TCP port on 127.0.0.1, or None for any free one. `durable=False` is for tests: a
    crash of the machine, though not of the server, may lose everything.
    """

    def __init__(
        self, path: Path, *, programs: Programs, port: int | None = None, durable: bool = True
    ) -> None:
        self._folder = Folder(path=path.absolute(), programs=programs, durable=durable)
        self._port_wanted = port
        self._port_before: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *, password: str | None) -> bool:
        """Bring the server up and see that it answers; returns whether it ran already.

        A server that this object started before gets the same port again if that is still free.
        `password` becomes the superuser's when the folder is new; otherwise the folder's own holds.
        None means that there must be data already.
        Raises PostgresError. Whatever happens, `stop` afterwards leaves nothing running.
        """
        path = self._folder.path
        if password is None and not self._folder.data.exists():
            raise PostgresError(f"the data of {path} are gone")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        launcher = find_launcher(self._folder.programs.directory, folder=path)
        hand_over(path, launcher=launcher)
        path.chmod(0o700)
        self._folder.make(launcher, password=password or "")
        attached = self._attach()
        if not attached:
            self._start_new(launcher)
        self._port_before = self.port
        self._create_database()
        return attached

    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._folder.find_postmaster() is not None

    @property
    def port(self) -> int:
        """The TCP port of the running server. Raises PostgresError when none runs."""
        running = self._folder.find_postmaster()
        if running is None:
            raise PostgresError(f"no Postgres runs in {self._folder.path}")
        return running.port

    def url(self, database: str = DATABASE) -> str:
        """The URL of a database of the running server, with the password in it."""
        password = quote(self._folder.read_password())
        return f"postgresql://{USER}:{password}@{HOST}:{self.port}/{quote(database)}"

    def stop(self) -> None:
        """Stop the server in fast mode: open transactions are rolled back, nothing else is lost.

        Harmless when none runs. Raises PostgresError when it has not ended in time.
        """
        running = self._folder.find_postmaster()
        if running is not None:
            os.kill(running.pid, signal.SIGINT)
            self._wait_until_gone(running)
        elif self._child is not None and self._child.poll() is None:
            # It was interrupted before it had written its pid file.
            self._child.terminate()
        if self._child is not None:
            self._child.wait(timeout=STOP_SECONDS_MAX)
            self._child = None
        self._folder.remove_socket_directory()

    def _attach(self) -> bool:
        running = self._folder.find_postmaster()
        if running is None:
            return False
        if running.status == "stopping":
            self._wait_until_gone(running)
            return False
        return self._wait_until_ready()

    def _start_new(self, launcher: Launcher) -> None:
        wanted = self._port_wanted
        if wanted is not None and not _is_free(wanted):
            raise PortTakenError(f"port {wanted} is taken: choose another with --pg-port")
        give_up_time = time.monotonic() + ORPHANS_SECONDS_MAX
        ports_tried = 0
        while True:
            refusal = self._try_start(launcher, port=wanted or self._choose_port())
            if refusal is None:
                return
            if "could not bind" in refusal and wanted is None and ports_tried < PORT_ATTEMPTS_MAX:
                ports_tried += 1
            elif "is still in use" in refusal and time.monotonic() < give_up_time:
                time.sleep(POLL_SECONDS)
            else:
                raise PostgresError(f"Postgres does not start in {self._folder.path}:\n{refusal}")

    def _try_start(self, launcher: Launcher, *, port: int) -> str | None:
        """Start the server once; None when it is ready, otherwise what it said."""
        if self._child is not None:
            # The one before: it was killed, or it refused to start.
            self._child.wait(timeout=STOP_SECONDS_MAX)
        self._folder.configure(launcher, port=port)
        self._folder.forget_recycled_pid()
        with self._folder.log.open("ab") as log:
            log_begin = log.tell()
            postgres = self._folder.programs.directory / "postgres"
            command = [str(postgres), "-D", str(self._folder.data)]
            self._child = launcher.start(command, output=log.fileno())
        if self._wait_until_ready():
            return None
        with self._folder.log.open("rb") as log:
            log.seek(log_begin)
            return log.read().decode("utf-8", "replace").strip()

    def _choose_port(self) -> int:
        before = self._port_before
        return before if before is not None and _is_free(before) else _find_free_port()

    def _wait_until_ready(self) -> bool:
        """Wait until the server takes connections; False when it has ended instead."""
        give_up_time = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < give_up_time:
            ended = self._child is not None and self._child.poll() is not None
            running = self._folder.find_postmaster()
            if running is not None and running.status == "ready":
                return True
            if ended or (self._child is None and running is None):
                return False
            time.sleep(POLL_SECONDS)
        raise PostgresError(
            f"Postgres is not ready after {START_SECONDS_MAX} seconds: see {self._folder.log}"
        )

    def _wait_until_gone(self, running: Postmaster) -> None:
        give_up_time = time.monotonic() + STOP_SECONDS_MAX
        while time.monotonic() < give_up_time:
            now = self._folder.find_postmaster()
            if now is None or now.pid != running.pid:
                return
            time.sleep(POLL_SECONDS)
        raise PostgresError(
            f"Postgres (process {running.pid}) has not ended after {STOP_SECONDS_MAX} seconds:"
            f" see {self._folder.log}"
        )

    def _create_database(self) -> None:
        """See that the server answers, that it is the one of this folder, and has our database."""
        query = "SELECT FROM pg_database WHERE datname = %s"
        url = self.url("postgres")
        try:
            with psycopg.connect(
                url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX
            ) as connection:
                shown = connection.execute("SHOW data_directory").fetchone()
                if shown is None or not self._folder.data.samefile(shown[0]):
                    raise PostgresError(f"port {self.port} is answered by another Postgres")
                if connection.execute(query, [DATABASE]).fetchone() is None:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE))
                    )
        except psycopg.Error as error:
            raise PostgresError(f"Postgres does not answer on port {self.port}: {error}") from error


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
