"""`Meter` with a spool, over a real connection and a real folder."""

import asyncio
import errno
import shutil
from pathlib import Path
from threading import Thread
from typing import Any, Final

import grpc
import pytest

from tests.client.conftest import MakeClient, wait_for_exit, wait_for_state
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter, Refusal
from tokenworks.client import Meter, SpoolUnusable, State
from tokenworks.client.spool import Folder

AWAY: Final = Refusal(code=grpc.StatusCode.UNAVAILABLE)


def _inputs(fake_meter: FakeMeter) -> list[int]:
    return [event["tokens"][1] for event in fake_meter.events]  # type: ignore[index]


def test_close__leaves_in_the_spool_what_the_next_start_sends(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the meter did not take is not lost: it is sent by the next start, without an event."""
    fake_meter.set(refusal=AWAY)
    client = make_client(spool=tmp_path)
    for i in range(3):
        client.record(input=i + 1)
    assert client.sync(WAIT_SECONDS)
    assert client.statistics.is_spooling
    assert client.close(0.05)
    assert "events_left_in_spool count=3 producer=p" in caplog.text
    assert (client.statistics.held, client.statistics.dropped) == (3, 0)
    fake_meter.set(refusal=None)
    again = make_client(spool=tmp_path)
    assert fake_meter.wait_for_events(3)
    assert again.flush(WAIT_SECONDS)
    assert _inputs(fake_meter) == [1, 2, 3]
    assert (again.statistics.restored, again.statistics.acknowledged) == (3, 3)


def test_restart__sends_the_same_bytes_under_the_same_numbers(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """What was sent and never acknowledged comes again, and the meter sees that it is the same."""
    client = make_client(spool=tmp_path)
    client.record(input=1)
    assert client.flush(WAIT_SECONDS)
    fake_meter.set(acks_held=True)
    client.record(input=2)
    assert fake_meter.wait_for_events(2)
    assert client.close(0)
    fake_meter.set(acks_held=False)
    again = make_client(spool=tmp_path)
    again.record(input=3)
    assert again.flush(WAIT_SECONDS)
    assert _inputs(fake_meter) == [1, 2, 3]
    assert again.statistics.resent == 1, "for the fake meter fails where bytes differ"


def test_restart__deleted_spool_begins_behind(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """Whose spool is gone goes on with the number that the meter names."""
    client = make_client(spool=tmp_path)
    for i in range(2):
        client.record(input=i + 1)
        assert client.flush(WAIT_SECONDS)
    assert client.close(WAIT_SECONDS)
    shutil.rmtree(tmp_path / "p")
    again = make_client(spool=tmp_path)
    again.record(input=3)
    assert again.flush(WAIT_SECONDS)
    assert sorted(fake_meter.producers["p"].batches) == [1, 2, 3]


def test_clone__counts_nothing_twice(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """A copy of a spool takes over; what both gave the same number is once counted, once kept."""
    fake_meter.set(knows_clones=True)
    older = make_client(spool=tmp_path / "a")
    older.record(input=1)
    assert older.flush(WAIT_SECONDS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    newer = make_client(spool=tmp_path / "b")
    newer.record(input=2)
    assert newer.flush(WAIT_SECONDS)
    older.record(input=3)
    assert not older.flush(WAIT_SECONDS)
    assert older.statistics.state is State.TAKEN_OVER
    assert older.close(0), "it is in the spool"
    assert newer.close(WAIT_SECONDS)
    again = make_client(spool=tmp_path / "a")
    again.record(input=4)
    assert again.flush(WAIT_SECONDS)
    assert _inputs(fake_meter) == [1, 2, 4]
    assert len(fake_meter.producers["p"].quarantine) == 1
    assert again.statistics.set_aside == 1


def test_clone__too_old_to_compare_stops(
    fake_meter: FakeMeter,
    make_client: MakeClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where nobody knows whose numbers are whose the client stops, and says what to do."""
    fake_meter.set(acks_held=True)
    client = make_client(spool=tmp_path)
    for i in range(2):
        client.record(input=i + 1)
        assert fake_meter.wait_for_events(1)
        assert client.sync(WAIT_SECONDS)
    assert client.close(0)
    wait_for_exit()
    fake_meter.set(acks_held=False, knows_clones=True)
    with fake_meter.changed:
        producer = fake_meter.producers["p"]
        producer.batches = {2: producer.batches[1]}
        producer.next_sequence = 34
    again = make_client(spool=tmp_path)
    again.record(input=3)
    reached = again.flush(WAIT_SECONDS)
    assert set(fake_meter.producers) == {"p"}, "it has the spool, not a slot beside it"
    assert not reached
    assert again.statistics.state is State.TAKEN_OVER
    assert "spool_forked producer=p detail=a copy of this spool" in caplog.text
    assert _inputs(fake_meter) == [1]


def test_rollback__meter_is_refilled(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """A meter that was restored to an older state gets all that it had acknowledged."""
    client = make_client(spool=tmp_path)
    for i in range(4):
        client.record(input=i + 1)
        assert client.flush(WAIT_SECONDS)
    fake_meter.set(refusal=AWAY)
    client.record(input=5)
    wait_for_state(client, State.WAITING)
    with fake_meter.changed:
        fake_meter.producers["p"].roll_back(2)
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    assert _inputs(fake_meter) == [1, 2, 3, 4, 5]
    assert client.statistics.gaps == 0
    assert client.statistics.acknowledged == 5


@pytest.mark.parametrize(
    ("when_full", "kept_first"), [("drop_newest", True), ("drop_oldest", False)]
)
def test_record__full_spool_drops_as_was_chosen(
    fake_meter: FakeMeter,
    make_client: MakeClient,
    tmp_path: Path,
    when_full: str,
    kept_first: bool,  # noqa: FBT001
) -> None:
    """A full spool drops what the policy says, counts it, and blocks nobody."""
    fake_meter.set(refusal=AWAY)
    client = make_client(
        spool=tmp_path, spool_bytes_max=16 * 1024**2, when_full=when_full, fsync="never"
    )
    count, text = 20_000, "x" * 500
    for number in range(5):
        for _ in range(count // 5):
            client.record(input=number + 1, request_id=text, account=text)
        client.sync(WAIT_SECONDS)
    for _ in range(20_000):
        client.record(input=9, request_id=text)
    client.sync(WAIT_SECONDS)
    statistics = client.statistics
    lost = statistics.dropped if kept_first else statistics.spool_lost
    assert lost > 0
    assert statistics.held + lost == 2 * count
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    inputs = _inputs(fake_meter)
    assert len(inputs) == 2 * count - lost
    assert (1 in inputs) is kept_first
    assert client.record(input=10), "there is room again"


def test_record__failing_disk_goes_on_in_memory(
    fake_meter: FakeMeter,
    make_client: MakeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the disk fails events go on from memory, and the log and the statistics say so."""
    client = make_client(spool=tmp_path)
    client.record(input=1)
    assert client.flush(WAIT_SECONDS)
    fake_meter.set(refusal=AWAY)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "append", _fail)
        client.record(input=2)
        assert not client.sync(0.3), "neither on disk nor at the meter"
        failing = client.statistics
        assert not failing.is_spooling
    client.record(input=3)
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    assert client.statistics.is_spooling
    assert client.close(WAIT_SECONDS)
    assert "spool_failing producer=p" in caplog.text
    assert "spool_working producer=p" in caplog.text
    assert _inputs(fake_meter) == [1, 2, 3]
    again = make_client(spool=tmp_path)
    again.record(input=4)
    assert again.flush(WAIT_SECONDS)
    assert _inputs(fake_meter) == [1, 2, 3, 4]


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, "as the test wants it")


def test_leftovers__are_drained_under_their_own_names(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a process of the same program has left that never comes back is delivered too."""
    caplog.set_level("INFO")
    fake_meter.set(refusal=AWAY)
    first, second = (make_client(spool=tmp_path) for _ in range(2))
    second.record(input=2)
    assert second.sync(WAIT_SECONDS)
    assert second.close(0)
    assert first.close(0)
    fake_meter.set(refusal=None)
    again = make_client(spool=tmp_path)
    again.record(input=1)
    assert fake_meter.wait_for_events(2)
    assert sorted(fake_meter.producers) == ["p", "p.1"]
    assert "spool_adopted producer=p.1 events=1" in caplog.text


def test_record__returns_when_its_event_is_on_disk(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """With `fsync="event"` what `record` took is on disk, whoever calls it from wherever."""
    fake_meter.set(refusal=AWAY)
    client = make_client(spool=tmp_path / "a", fsync="event", flush_interval_seconds=60)

    def report() -> None:
        for i in range(20):
            assert client.record(input=i + 1)

    threads = [Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert client.begin(input=21).finish()
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    client.close(0)
    copies = [make_client(spool=tmp_path / name) for name in ("b", "c")]
    for copy in copies:
        copy.record()
        assert copy.sync(WAIT_SECONDS)
    assert [copy.statistics.restored for copy in copies] == [80, 81]


def test_record__waits_for_no_sender_that_has_ended(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """Callers that wait for the disk are let go when the client closes."""
    client = make_client(spool=tmp_path, fsync="event")
    client.record()
    taken = list[bool]()

    def report() -> None:
        while client.record():
            taken.append(True)

    threads = [Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert fake_meter.wait_for_events(20)
    assert client.close(WAIT_SECONDS)
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    statistics = client.statistics
    assert statistics.acknowledged + statistics.held == statistics.recorded


def test_async__leaves_the_loop_free(fake_meter: FakeMeter, tmp_path: Path) -> None:
    """In a coroutine a client is a context, and waiting for it holds up nothing else."""

    async def serve() -> None:
        async with Meter(fake_meter.target, api_key=API_KEY, producer="p", spool=tmp_path) as meter:
            ticks = asyncio.create_task(_tick())
            meter.record(input=1)
            assert await meter.async_sync(WAIT_SECONDS)
            assert await meter.async_flush(WAIT_SECONDS)
            meter.record(input=2)
            await ticks

    asyncio.run(serve())
    assert _inputs(fake_meter) == [1, 2]


async def _tick() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"fsync": "sometimes"},
        {"when_full": "block"},
        {"spool_bytes_max": 1},
        {"spool_retain_bytes": -1},
        {"producer": ".."},
    ],
)
def test_meter__refuses_bad_arguments_of_a_spool(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """What is wrong with a spool's arguments is said at once, and nothing is made."""
    with pytest.raises(ValueError, match=r".+"):
        Meter(api_key="k", spool=tmp_path / "s", **arguments)
    assert not (tmp_path / "s").exists()


def test_meter__refuses_a_spool_that_cannot_be_used(tmp_path: Path) -> None:
    """A path that is no folder is an error that says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnusable, match="name a"):
        Meter(api_key="k", spool=tmp_path / "file")
