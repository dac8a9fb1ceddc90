"""Faults of Postgres' processes."""

import signal
import time

from tests.faults.row import Seen, row
from tests.faults.site import Site

_STOPPED_SECONDS = 30.0


@row(
    "postgres-killed",
    fault="kill -9 of every process of Postgres",
    how="twice under load, each time with recovery from the log",
    expected="what was acknowledged survives; the rest is sent again",
)
def postgres_killed(site: Site) -> Seen:
    """Kill the whole cluster."""
    site.start_fleet()
    killed = 0
    for _ in range(2):
        site.load()
        killed += site.database.kill()
        site.database.start()
        site.wait_for_progress(seconds_max=60)
    return Seen(count=killed, what="processes of Postgres killed")


@row(
    "postgres-backend-killed",
    fault="kill -9 of one backend, on which Postgres restarts itself",
    how="the backend of the meter that wrote last is killed; three times",
    expected="all sessions end and come back; counted once",
)
def postgres_backend_killed(site: Site) -> Seen:
    """Kill single backends."""
    site.start_fleet()
    site.load(2)
    for _ in range(3):
        pid = site.database.question(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() ORDER BY state_change DESC LIMIT 1"
        )
        site.database.send_to(pid, signal.SIGKILL)
        site.wait_for_progress_after_restart()
    crashes = site.database.log_text.count("terminating any other active server processes")
    return Seen(count=crashes, what="restarts of Postgres by itself")


@row(
    "postgres-stopped-30s",
    fault="SIGSTOP of every process of Postgres for 30 s, then SIGCONT",
    how="connections stay open and carry nothing",
    expected="nothing is acknowledged meanwhile; counted once",
)
def postgres_stopped(site: Site) -> Seen:
    """Stop and continue it."""
    site.start_fleet()
    site.load()
    count = site.database.send(signal.SIGSTOP)
    time.sleep(site.scaled(_STOPPED_SECONDS))
    site.database.send(signal.SIGCONT)
    site.load()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=count, what="processes of Postgres stopped")


@row(
    "postgres-restarted-in-order",
    fault="Postgres is stopped in good order and started again after a while",
    how="fast stop, some seconds of nothing, start",
    expected="UNAVAILABLE, never an ack; counted once",
)
def postgres_restarted(site: Site) -> Seen:
    """Restart it as an operator does."""
    site.start_fleet()
    site.load()
    site.database.stop()
    site.load(3)
    site.database.start()
    site.load()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=1, what="restart")
