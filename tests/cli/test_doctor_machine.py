"""What doctor thinks of this machine: settings, certificates, disks and spools."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.doctor.check import Mark
from cli.doctor.machine import check_certificates, check_settings
from cli.doctor.room import (
    Disk,
    check_connections,
    check_space,
    check_spool,
    find_disk,
    format_size,
)
from cli.settings import Settings, find_sources
from meter.health import Connections
from tests.authority import Authority, needs_openssl
from tests.client.spool.test_folder import open_spool, spool_number

GIBIBYTE = 1024**3
DAY_MS = 86_400_000


def test_check_settings__says_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting that is set has its value and its place, and secrets have a place alone."""
    config = tmp_path / "tokenworks.toml"
    config.write_text('tiers = ["free", "high"]\nsilence_seconds = 30\n', "utf-8")
    monkeypatch.setenv("TOKENWORKS_SILENCE_SECONDS", "90")
    monkeypatch.setenv("TOKENWORKS_API_KEY", "tw_secret")
    settings = Settings(tiers=("free", "high"), silence_seconds=90, api_key="tw_secret")
    found = check_settings(settings, sources=find_sources(config))
    assert found.mark is Mark.OK
    assert found.says == (
        f"1 in {config}: tiers free,high; 2 in the environment: api_key hidden, silence_seconds 90"
    )
    assert found.facts["tiers"] == {"value": "free,high", "from": str(config)}
    assert "secret" not in str(found)


def test_check_settings__in_the_clear() -> None:
    """Listening to other machines without TLS is something to look at; on loopback it is not."""
    open_settings = Settings(grpc_address="0.0.0.0:7411", insecure=True)
    found = check_settings(open_settings, sources={})
    assert found.mark is Mark.WARN
    assert found.do.startswith("set TOKENWORKS_TLS_CERTIFICATE")
    assert "0.0.0.0:7411 can be reached in the clear" in found.says
    assert check_settings(Settings(insecure=True), sources={}).mark is Mark.OK


@needs_openssl
def test_check_certificates__by_their_time(tmp_path: Path) -> None:
    """A certificate is well, nearly over, over, or not yet begun, by when it is looked at."""
    end = datetime(2027, 3, 1, tzinfo=UTC)
    authority = Authority(tmp_path)
    certificate, key = authority.sign_until("meter", "DNS:localhost", end=end)
    settings = Settings(tls_certificate=certificate, tls_key=key)
    end_ms = int(end.timestamp() * 1000)
    cases = [
        (end_ms - 15 * DAY_MS, Mark.OK, "its chain is valid for 15 days, until 2027-03-01"),
        (end_ms - 13 * DAY_MS, Mark.WARN, "its chain is valid for 13 days"),
        (end_ms + 3_600_000, Mark.FAIL, "its chain expired 60 min ago"),
        (0, Mark.FAIL, "it begins to be valid at 2020-01-01"),
    ]
    for now_ms, mark, says in cases:
        (found,) = check_certificates(settings, now_ms=now_ms)
        assert (found.name, found.mark) == ("certificate", mark)
        assert says in found.says
        assert found.do


@needs_openssl
def test_check_certificates__that_do_not_fit(tmp_path: Path) -> None:
    """A key of another certificate is a failure that names the files; without any, no line."""
    authority = Authority(tmp_path)
    certificate, _ = authority.sign("meter", "DNS:localhost")
    _, other = authority.sign("other", "DNS:localhost")
    settings = Settings(client_certificate=certificate, client_key=other)
    (found,) = check_certificates(settings, now_ms=0)
    assert (found.name, found.mark) == ("client certificate", Mark.FAIL)
    assert str(certificate) in found.says
    assert not list(check_certificates(Settings(), now_ms=0))


@pytest.mark.parametrize(
    ("total", "free", "mark"),
    [
        (1000 * GIBIBYTE, 99 * GIBIBYTE, Mark.OK),
        (1000 * GIBIBYTE, 19 * GIBIBYTE, Mark.WARN),
        (100 * GIBIBYTE, 10 * GIBIBYTE, Mark.OK),
        (100 * GIBIBYTE, GIBIBYTE // 4 - 1, Mark.FAIL),
    ],
)
def test_check_space__by_what_is_free(total: int, free: int, mark: Mark) -> None:
    """A disk is nearly full when little is left, both in bytes and as a part of it."""
    disk = Disk(total_bytes=total, free_bytes=free)
    found = check_space(database_bytes=3 * GIBIBYTE, folder="/data", disk=disk)
    assert found.mark is mark
    assert f"the database has 3.0 GiB; {format_size(free)} of" in found.says


def test_check_space__of_another_machine(tmp_path: Path) -> None:
    """The disk of another machine is not guessed at, nor one that is not there."""
    assert find_disk(tmp_path) is not None
    assert find_disk(tmp_path / "nothing") is None
    found = check_space(database_bytes=512, folder=None, disk=None)
    assert (found.mark, found.says) == (
        Mark.OK,
        "the database has 512 bytes; its disk cannot be seen from here",
    )


@pytest.mark.parametrize(
    ("count", "idle_seconds", "mark", "says"),
    [
        (77, 59.0, Mark.OK, "77 of 97 in use"),
        (78, None, Mark.WARN, "78 of 97 in use; 19 are left"),
        (77, 60.0, Mark.WARN, "77 of 97 in use; one is idle in a transaction for 60 s"),
    ],
)
def test_check_connections__by_what_is_left(
    count: int, idle_seconds: float | None, mark: Mark, says: str
) -> None:
    """A meter more must have room, and nobody may sit on locks for a minute."""
    connections = Connections(count_max=97, count=count, idle_seconds=idle_seconds)
    found = check_connections(connections)
    assert (found.mark, found.says) == (mark, says)
    assert bool(found.do) == (mark is not Mark.OK)


def test_check_spool__says_what_waits(tmp_path: Path) -> None:
    """What waits in a spool is told with its size; a damaged one is a failure, and so is none."""
    folder = tmp_path / "gpu-1"
    spool = open_spool(folder)
    for number in (1, 2, 3):
        spool_number(spool, number)
    spool.close()
    found = check_spool(folder)
    assert (found.name, found.mark) == ("spool gpu-1", Mark.OK)
    assert found.says.startswith("9 events in 3 batches wait, ")
    assert found.facts["held_event_count"] == 9
    (segment,) = folder.glob("*.spool")
    data = bytearray(segment.read_bytes())
    data[data.index(b"00000002")] ^= 1
    segment.write_bytes(data)
    damaged = check_spool(folder)
    assert (damaged.mark, "1 batches or reports are damaged" in damaged.says) == (Mark.FAIL, True)
    missing = check_spool(tmp_path / "gpu-2")
    assert (missing.name, missing.mark) == ("spool gpu-2", Mark.FAIL)
