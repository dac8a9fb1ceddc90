"""The folder of a Postgres server: what lies in it, how it is made and configured.

It holds `data` (PGDATA), `password` (the superuser's, mode 600), `log` and, where its path is short
enough for a Unix socket, `socket`.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cli.postgres.errors import PostgresError
from cli.postgres.launcher import Launcher
from cli.postgres.programs import Programs

USER = "tokenworks"
HOST = "127.0.0.1"
COMMAND_SECONDS_MAX = 120
# sun_path holds 104 bytes on macOS and 108 on Linux; Postgres adds "/.s.PGSQL.65535.lock".
SOCKET_DIRECTORY_BYTES_MAX = 80
SHARED_BUFFERS_MEGABYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """What `postmaster.pid` says; `status` is empty until the server has written it."""

    pid: int
    port: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder of one server. `durable=False`: a crash of the machine may lose all."""

    path: Path
    programs: Programs
    durable: bool

    @property
    def data(self) -> Path:
        """PGDATA; it exists only when it is complete."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.path / "log"

    @property
    def socket_directory(self) -> Path:
        """Where the Unix socket lies."""
        path = self.path / "socket"
        if len(os.fsencode(path)) <= SOCKET_DIRECTORY_BYTES_MAX:
            return path
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tokenworks-{name}"

    def read_password(self) -> str:
        """The superuser's password."""
        return (self.path / "password").read_text("ascii").strip()

    def find_postmaster(self) -> Postmaster | None:
        """The server of this folder, if one runs."""
        written = self._read_postmaster_file()
        return written if written is not None and self._is_postmaster(written.pid) else None

    def make(self, launcher: Launcher, *, password: str) -> None:
        """Make the data folder if there is none, and check that it fits the programs.

        Raises PostgresError.
        """
        if not self.data.exists():
            self._initialise(launcher, password=password)
        version_file = self.data / "PG_VERSION"
        if not version_file.exists():
            raise PostgresError(
                f"{self.data} is not a Postgres data folder: choose another folder with --dir"
            )
        found = version_file.read_text("ascii").strip()
        if found != str(self.programs.major):
            raise PostgresError(
                f"{self.data} was made by Postgres {found}, but {self.programs.directory} holds"
                f" Postgres {self.programs.major}: name the programs of Postgres {found} with"
                " --pg-bin, or choose another folder with --dir"
            )

    def configure(self, launcher: Launcher, *, port: int) -> None:
        """Write the server's settings for its next start on a TCP port of 127.0.0.1."""
        durable = "on" if self.durable else "off"
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": f'"{self._empty_socket_directory(launcher)}"',
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": f"{_shared_buffers_megabytes()}MB",
            "max_wal_size": "4GB",
            "wal_compression": self._find_wal_compression(launcher),
            "synchronous_commit": "on",
            "fsync": durable,
            "full_page_writes": durable,
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        lines = ["# Written at each start; what ALTER SYSTEM sets goes before it.\n"]
        for name, value in settings.items():
            quoted = value.replace("'", "''")
            lines.append(f"{name} = '{quoted}'\n")
        launcher.write(self.data / "tokenworks.conf", "".join(lines))

    def forget_recycled_pid(self) -> None:
        """Keep a pid file whose number has gone to another program from hindering the start.

        Postgres would take that program for a server. It disregards its own parent, which we are,
        and then still checks the shared memory that the file names, so the file must stay.
        """
        path = self.data / "postmaster.pid"
        if not path.exists() or self.find_postmaster() is not None:
            return
        _, *rest = path.read_text("ascii").splitlines(keepends=True)
        path.write_text("".join([f"{os.getpid()}\n", *rest]), "ascii")

    def remove_socket_directory(self) -> None:
        """Leave nothing of a stopped server outside the folder."""
        if self.socket_directory.parent != self.path and self.socket_directory.is_dir():
            shutil.rmtree(self.socket_directory)

    def _read_postmaster_file(self) -> Postmaster | None:
        try:
            lines = (self.data / "postmaster.pid").read_text("ascii").splitlines()
        except FileNotFoundError:
            return None
        lines += [""] * (8 - len(lines))
        if not lines[0].isdigit():
            return None
        port = int(lines[3]) if lines[3].isdigit() else 0
        return Postmaster(pid=int(lines[0]), port=port, status=lines[7].strip())

    def _is_postmaster(self, pid: int) -> bool:
        """Whether this process works in our data folder, as its postmaster does."""
        try:
            return Path(f"/proc/{pid}/cwd").samefile(self.data)
        except PermissionError:
            return False
        except FileNotFoundError:
            if Path("/proc/self").exists():
                return False
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True

    def _initialise(self, launcher: Launcher, *, password: str) -> None:
        """Make the data folder under another name first, so that a half-made one is never used."""
        unfinished = self.path / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        password_file = self.path / "password"
        launcher.write(password_file, password + "\n")
        made = launcher.run(
            [
                str(self.programs.directory / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                *([] if self.durable else ["--no-sync"]),
            ],
            seconds_max=COMMAND_SECONDS_MAX,
        )
        if made.returncode != 0:
            raise PostgresError(f"initdb failed in {self.path}:\n{made.stdout.strip()}")
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("\ninclude_if_exists = 'tokenworks.conf'\n")
        unfinished.rename(self.data)

    def _empty_socket_directory(self, launcher: Launcher) -> Path:
        path = self.socket_directory
        path.mkdir(mode=0o700, exist_ok=True)
        # In a folder that all may write to, somebody else may have made it first.
        owners = {os.geteuid(), launcher.owner[0]}
        if path.is_symlink() or path.lstat().st_uid not in owners:
            raise PostgresError(f"{path}, needed for Postgres' socket, belongs to somebody else")
        path.chmod(0o700)
        # Lock files of a killed server would hinder the next one if their pid is in use again.
        for left_over in path.iterdir():
            left_over.unlink()
        launcher.give(path)
        return path

    def _find_wal_compression(self, launcher: Launcher) -> str:
        """`lz4` where the programs were built with it; their next best costs too much time."""
        postgres = [str(self.programs.directory / "postgres"), "-D", str(self.data)]
        asked = launcher.run(
            [*postgres, "-C", "wal_compression", "-c", "wal_compression=lz4"],
            seconds_max=COMMAND_SECONDS_MAX,
        )
        return "lz4" if asked.returncode == 0 else "off"


def _shared_buffers_megabytes() -> int:
    """A quarter of the machine's memory, at most 256 MB."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(16, min(SHARED_BUFFERS_MEGABYTES_MAX, memory_bytes // 4 // 1_000_000))
