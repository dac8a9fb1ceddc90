"""How to start Postgres, which refuses to run as root, from whatever user we are.

Nothing here creates users or loosens the mode of a folder that is not ours.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.postgres.errors import PostgresError

PROBE_SECONDS_MAX = 20
# A small fixed environment: PGDATA, PGPORT and their like would steer Postgres past our back, and
# LC_ALL keeps its messages in the language that we look for words in.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# Tried in this order when root cannot have a user namespace.
USERS_WITHOUT_PRIVILEGES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts a program as somebody whom Postgres accepts.

    `prefix` goes before the command. `owner` is the user and group id, in the outer numbering, that
    the data folder must belong to; `switches_user` says whether the child must change to it.
    """

    prefix: tuple[str, ...]
    owner: tuple[int, int]
    switches_user: bool

    def run(
        self, command: Sequence[str], *, seconds_max: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end with its output captured; a non-zero exit does not raise.

        Raises subprocess.TimeoutExpired after `seconds_max`.
        """
        child = self.start(command, output=subprocess.PIPE)
        try:
            output, _ = child.communicate(timeout=seconds_max)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return subprocess.CompletedProcess(child.args, child.returncode, output.decode("utf-8"))

    def start(self, command: Sequence[str], *, output: int) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, so that Ctrl-C in a terminal does not reach it.

        `output` is the file descriptor that takes both of its outputs.
        """
        user, group = self.owner if self.switches_user else (None, None)
        return subprocess.Popen(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            user=user,
            group=group,
            extra_groups=[] if self.switches_user else None,
            umask=0o077,
            start_new_session=True,
        )

    def give(self, path: Path) -> None:
        """Make the child's user the owner of a file or folder of ours."""
        if self.switches_user:
            os.chown(path, *self.owner)

    def write(self, path: Path, text: str) -> None:
        """Write a file that only the child's user and we can read."""
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text, "utf-8")
        self.give(path)


def find_launcher(bin_directory: Path, *, folder: Path) -> Launcher:
    """Find a way to run the programs of `bin_directory` on `folder`, which must exist.

    A folder that belongs to somebody already is run by that user. Raises PostgresError.
    """
    status = folder.stat()
    owner = status.st_uid
    if os.geteuid() != 0:
        if owner != os.geteuid():
            raise PostgresError(
                f"{folder} belongs to user {_user_name(owner)}: run this as that user, or choose"
                " another folder with --dir"
            )
        return Launcher(prefix=(), owner=(os.geteuid(), os.getegid()), switches_user=False)
    if owner != 0:
        candidates = [_launcher_of_user(owner, status.st_gid)]
    else:
        candidates = [*_launchers_of_namespace(), *_launchers_of_existing_users()]
    for launcher in candidates:
        if _works(launcher, bin_directory=bin_directory, folder=folder):
            return launcher
    raise PostgresError(
        "Postgres does not run as root, and neither a user namespace (unshare --user) nor one of"
        f" the users {', '.join(USERS_WITHOUT_PRIVILEGES)} could run it on {folder}: run this as"
        " another user than root, or choose with --dir a folder that such a user can reach, for"
        " instance /var/lib/tokenworks, or point TOKENWORKS_DATABASE_URL to a Postgres"
    )


def hand_over(folder: Path, *, launcher: Launcher) -> None:
    """Give a folder and all in it to the launcher's user, and let that user pass its parent.

    Both are Tokenworks' own folders; the parent's listing stays closed to others.
    """
    if not launcher.switches_user:
        return
    folder.parent.chmod(folder.parent.stat().st_mode & 0o777 | 0o001)
    if folder.stat().st_uid == launcher.owner[0]:
        return
    for path in (*folder.rglob("*"), folder):
        os.chown(path, *launcher.owner, follow_symlinks=False)


def _launchers_of_namespace() -> list[Launcher]:
    """Root outside is an ordinary user inside; files stay root's, folders keep their modes."""
    unshare = shutil.which("unshare", path=os.defpath)
    # initdb looks its user's name up, so the user inside must be one that exists.
    inside = [user for user in pwd.getpwall() if user.pw_uid not in {0, 65534}]
    if unshare is None or not inside:
        return []
    mapping = (f"--map-user={inside[0].pw_uid}", f"--map-group={inside[0].pw_gid}")
    return [Launcher(prefix=(unshare, "--user", *mapping), owner=(0, 0), switches_user=False)]


def _launchers_of_existing_users() -> list[Launcher]:
    known = {user.pw_name: user for user in pwd.getpwall()}
    found = [known[name] for name in USERS_WITHOUT_PRIVILEGES if name in known]
    return [_launcher_of_user(user.pw_uid, user.pw_gid) for user in found]


def _launcher_of_user(user_id: int, group_id: int) -> Launcher:
    return Launcher(prefix=(), owner=(user_id, group_id), switches_user=True)


def _works(launcher: Launcher, *, bin_directory: Path, folder: Path) -> bool:
    """Whether the launcher can execute Postgres and reach the folder."""
    probe = ["/bin/sh", "-c", 'test -x "$1" && exec "$2" --version', "sh"]
    # The folder and its parent are ours and opened for the launcher's user later, see `hand_over`.
    command = [*probe, str(folder.parent.parent), str(bin_directory / "postgres")]
    try:
        return launcher.run(command, seconds_max=PROBE_SECONDS_MAX).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
