"""Three nodes of Patroni, etcd and Postgres, set up as docs/operating/postgres-ha.md says."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final

import psycopg

from tests.faults.row import Skipped
from tests.faults.waiting import wait_until
from tests.ports import find_free_ports

PAGE: Final = Path(__file__).parents[2] / "docs" / "operating" / "postgres-ha.md"
DATABASE: Final = "tokenworks"
_NODES: Final = 3
_USER: Final = "postgres"
_PROGRAMS: Final = Path("/usr/lib/postgresql/15/bin")
_PASSWORD: Final = "only-for-faults"
_START_SECONDS_MAX: Final = 90
_LEADER_SECONDS_MAX: Final = 90
_ASK_SECONDS_MAX: Final = 5
_YAML: Final = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
# Two cores carry three of each, and the load: what is said late is no reason for an election.
_ETCD_PATIENCE: Final = ("--heartbeat-interval", "250", "--election-timeout", "2500")


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """One of the three: its ports, its folder and what runs of it."""

    name: str
    folder: Path
    postgres_port: int
    rest_port: int
    etcd_port: int
    peer_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Where its Postgres keeps its data."""
        return self.folder / "data"


class Cluster:
    """The three nodes; stands in for the database of a row."""

    def __init__(self, *, logs: Path) -> None:
        """Prepare folders; nothing runs yet. Raises Skipped where Patroni cannot run."""
        _need_programs()
        self._logs = logs
        self._user = pwd.getpwnam(_USER)
        self._folder = Path(tempfile.mkdtemp(prefix="tokenworks-patroni-"))
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        ports = iter(find_free_ports(4 * _NODES))
        self.nodes = [
            Node(
                name=f"node{number + 1}",
                folder=self._make_folder(f"node{number + 1}"),
                postgres_port=next(ports),
                rest_port=next(ports),
                etcd_port=next(ports),
                peer_port=next(ports),
            )
            for number in range(_NODES)
        ]

    @property
    def hosts_url(self) -> str:
        """The URL that names all nodes and wishes nothing, as the meter is given it."""
        hosts = ",".join(f"127.0.0.1:{node.postgres_port}" for node in self.nodes)
        return f"postgresql://postgres:{_PASSWORD}@{hosts}/{DATABASE}"

    @property
    def url(self) -> str:
        """The same for whoever speaks libpq: the node that takes writes."""
        return f"{self.hosts_url}?target_session_attrs=read-write&connect_timeout=3"

    def start(self) -> None:
        """Bring all up, with a leader, a synchronous standby and an empty database."""
        for node in self.nodes:
            self._start_etcd(node, state="new")
        for node in self.nodes:
            self._start_patroni(node)
        self.wait_for_members(_NODES, seconds_max=_START_SECONDS_MAX)
        url = self.url.replace(f"/{DATABASE}?", "/postgres?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())

    def question(self, statement: str) -> int:
        """Ask whoever takes writes for one number."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def leader(self) -> Node:
        """Return the node that leads, by what Patroni says. Raises TookTooLong when none does."""
        found: list[Node] = []

        def leads() -> bool:
            found[:] = [node for node in self.nodes if self._state(node).get("role") == "master"]
            return len(found) == 1

        wait_until(leads, seconds_max=_LEADER_SECONDS_MAX, what="a node leads")
        return found[0]

    def wait_for_members(self, count: int, *, seconds_max: float) -> None:
        """Wait until so many nodes stand: one leads, and one of the others is synchronous."""

        def stand() -> bool:
            states = [self._state(node) for node in self.nodes]
            running = [state for state in states if state.get("state") == "running"]
            synchronous = [state for state in running if state.get("sync_standby")]
            return len(running) >= count and bool(synchronous) and self._takes_writes()

        wait_until(stand, seconds_max=seconds_max, what=f"{count} nodes stand")

    def kill(self, node: Node) -> int:
        """Lose a machine: every process of the node ends at once; returns how many."""
        pids = [process.pid for process in node.processes.values()] + _postgres_pids(node.data)
        # Whoever restarts the others goes first.
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in node.processes.values():
            process.wait()
        node.processes.clear()
        wait_until(lambda: not _postgres_pids(node.data), seconds_max=20, what="the node is dead")
        return len(pids)

    def hold_standbys(self, leader: Node) -> list[int]:
        """Let no standby receive anything more; returns the processes that are held."""
        held = [
            pid
            for node in self.nodes
            if node is not leader
            for pid in _postgres_pids(node.data)
            if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        return held

    def release(self, held: list[int]) -> None:
        """End what is held before it takes what is under way: that is lost, as with a network."""
        for pid in held:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)

    def revive(self, node: Node) -> None:
        """Bring a lost machine back, with the data that it had."""
        self._start_etcd(node, state="existing")
        self._start_patroni(node)

    def switch_over(self) -> Node:
        """Ask Patroni for another leader, as before maintenance; returns the one that was."""
        before = self.leader()
        self._ask(before, "/switchover", {"leader": before.name}, seconds_max=60)
        return before

    def close(self) -> None:
        """Leave nothing running, and nothing on the disk."""
        for node in self.nodes:
            self.kill(node)
        shutil.rmtree(self._folder)

    def _takes_writes(self) -> bool:
        try:
            url = self.url.replace(f"/{DATABASE}?", "/postgres?")
            with psycopg.connect(url) as connection:
                return connection.execute("SELECT 1").fetchone() is not None
        except psycopg.OperationalError:
            return False

    def _state(self, node: Node) -> dict[str, Any]:
        try:
            return self._ask(node, "/patroni", None, seconds_max=_ASK_SECONDS_MAX)
        except (OSError, ValueError):
            return {}

    def _ask(
        self, node: Node, path: str, body: dict[str, str] | None, *, seconds_max: float
    ) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{node.rest_port}{path}",
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds_max) as answer:  # noqa: S310 - http
                text = answer.read()
        except urllib.error.HTTPError as error:
            # Of a node that does not run it says so with 503.
            text = error.read()
        told: dict[str, Any] = {"said": text.decode()} if body is not None else json.loads(text)
        return told

    def _start_etcd(self, node: Node, *, state: str) -> None:
        peers = ",".join(f"{it.name}=http://127.0.0.1:{it.peer_port}" for it in self.nodes)
        client, peer = (f"http://127.0.0.1:{port}" for port in (node.etcd_port, node.peer_port))
        words = [
            *("--name", node.name, "--data-dir", str(node.folder / "etcd")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", peers, "--initial-cluster-state", state),
            *_ETCD_PATIENCE,
        ]
        self._run(node, "etcd", words)

    def _start_patroni(self, node: Node) -> None:
        """Give it the page's settings, with what is of this node."""
        found = _YAML.search(PAGE.read_text("utf-8"))
        assert found is not None
        text = Template(found[1]).substitute(
            NAME=node.name,
            ADDRESS="127.0.0.1",
            REST_PORT=node.rest_port,
            POSTGRES_PORT=node.postgres_port,
            ETCD_HOSTS=",".join(f"127.0.0.1:{it.etcd_port}" for it in self.nodes),
            DATA=node.data,
            PROGRAMS=_PROGRAMS,
            PASSWORD=_PASSWORD,
        )
        path = node.folder / "patroni.yml"
        path.write_text(text, "utf-8")
        os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._run(node, "patroni", [str(path)])

    def _run(self, node: Node, program: str, words: list[str]) -> None:
        with (self._logs / f"{node.name}-{program}.log").open("ab") as log:
            node.processes[program] = subprocess.Popen(
                [shutil.which(program) or program, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.folder,
                env={"PATH": os.defpath, "HOME": str(node.folder), "LC_ALL": "C.UTF-8"},
                user=self._user.pw_uid,
                group=self._user.pw_gid,
                extra_groups=[],
                start_new_session=True,
            )

    def _make_folder(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(mode=0o700)
        os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path


def outage_seconds(cluster: Cluster, *, seconds_max: float) -> float:
    """Wait until the journal grows again; returns how long that took from now."""
    before: list[int] = []

    def grows() -> bool:
        try:
            position = cluster.question("SELECT coalesce(sum(position), 0) FROM shards")
        except psycopg.Error:
            return False
        before.append(position)
        return position > before[0]

    return wait_until(grows, seconds_max=seconds_max, what="the journal grows on another node")


def _need_programs() -> None:
    missing = [name for name in ("patroni", "etcd") if shutil.which(name) is None]
    if not (_PROGRAMS / "postgres").exists():
        missing.append("postgresql-15")
    if missing:
        raise Skipped(f"{' and '.join(missing)} not here: `make stacks` installs them, as root")
    if os.geteuid() != 0:
        raise Skipped("three nodes of Patroni run as another user, which only root can start")


def _postgres_pids(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").samefile(data):
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)
