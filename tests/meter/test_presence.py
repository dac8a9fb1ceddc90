"""The roster of open streams: what each round writes and finds, over a store that tests hold."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from meter.domain.errors import Reason, Unavailable
from meter.domain.event import Origin
from meter.domain.limits import ACCOUNT_PRODUCERS_MAX
from meter.journal.protocol import ProducerState
from meter.journal.session import Mark, Seen
from meter.presence import Attendance, Roster
from meter.producers import Hearing, Opening, Presence, ProducerPort, Summary

OURS = b"o" * 16
NOBODY = Summary(counts={}, hearings={}, backlog_count=0, missing_count=0, seen={})


def state_of(origin: Origin) -> ProducerState:
    """Return the state of a producer that has recorded nothing."""
    return ProducerState(instance=origin.instance, sequence=0, digests=b"")


@dataclass
class HeldStore:
    """Keeps what is written; `is_away` is a database that does not answer."""

    is_away: bool = False
    written: list[Presence] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    silences: list[int | None] = field(default_factory=list)
    found: dict[str, Seen] = field(default_factory=dict)
    opened: list[Opening] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def open_producers(self, openings: Sequence[Opening]) -> Sequence[ProducerState | None]:
        """Keep what was asked for; who is held is left out."""
        self._answer()
        self.opened += openings
        return [None if it.origin.producer in self.held else state_of(it.origin) for it in openings]

    def open_producer(self, origin: Origin, **asked: Any) -> ProducerState:  # noqa: ANN401
        """Keep what was asked for alone."""
        self._answer()
        self.opened.append(Opening(origin=origin, **asked))
        return state_of(origin)

    def write_presences(
        self, presences: Sequence[Presence]
    ) -> Mapping[tuple[str, str, bytes], Seen]:
        """Keep them, and return what is on disk."""
        self._answer()
        self.written += presences
        return {
            (each.account_id, each.producer, each.instance): self.found[each.producer]
            for each in presences
            if each.producer in self.found
        }

    def end_producers(self, origins: Sequence[Origin]) -> Sequence[bool]:
        """Keep who ended."""
        self._answer()
        self.ended += [origin.producer for origin in origins]
        return [True] * len(origins)

    def summarize(self, *, silence_ms: int | None) -> Summary:
        """Keep how long one may be silent."""
        self._answer()
        self.silences.append(silence_ms)
        return NOBODY

    def _answer(self) -> None:
        if self.is_away:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "away")


class HeldStream:
    """A stream that says what the test says."""

    def __init__(self, producer: str, *, instance: bytes = OURS, heard: float = 0.0) -> None:
        self.now = Attendance(
            account_id="acme",
            producer=producer,
            instance=instance,
            announced_sequence=0,
            heard_time=heard,
            mark=Mark(recorded_sequence=7, rollback_count=0),
        )
        self.sights: list[Seen | None] = []

    def attendance(self) -> Attendance:
        """Return it."""
        return self.now

    def hear(self, time: float, *, announced: int = 0) -> None:
        """Let it hear a message."""
        self.now = replace(self.now, heard_time=time, announced_sequence=announced)

    def seen(self, mark: Mark, found: Seen | None) -> None:
        """Keep what was found."""
        assert mark == self.now.mark
        self.sights.append(found)


class Hall:
    """A roster with its store and a time that the test sets."""

    def __init__(self, *, silence_seconds: float | None = 60) -> None:
        self.store = HeldStore()
        self.time = 100.0
        self.roster = Roster(
            cast("ProducerPort", self.store),
            silence_seconds=silence_seconds,
            monotonic_seconds=lambda: self.time,
            on_summary=lambda _: None,
        )

    def at(self, time: float) -> list[Presence]:
        """Make a round at a time, and return what it wrote."""
        self.time = time
        self.store.written.clear()
        asyncio.run(self.roster.round())
        return list(self.store.written)


def test_round__writes_what_was_heard_since_the_last() -> None:
    """Each round has all streams in one write; only one that was heard anew has an age."""
    hall = Hall()
    talker, quiet = HeldStream("talker", heard=100), HeldStream("quiet", heard=100)
    hall.roster.join(talker)
    hall.roster.join(quiet)
    talker.hear(101, announced=9)
    ages = {each.producer: each.heard_seconds for each in hall.at(102)}
    assert ages == {"talker": 1.0, "quiet": None}
    ages = {each.producer: each.heard_seconds for each in hall.at(104)}
    assert ages == {"talker": None, "quiet": None}


def test_round__tells_each_stream_what_was_found() -> None:
    """A stream hears of its own instance's row, and of a row that is not there."""
    hall = Hall()
    known, gone = HeldStream("known"), HeldStream("gone")
    hall.store.found["known"] = Seen(instance=OURS, sequence=7, is_known=True)
    for stream in (known, gone):
        hall.roster.join(stream)
    hall.at(102)
    assert known.sights == [hall.store.found["known"]]
    assert gone.sights == [None]


def test_round__database_away_loses_nothing() -> None:
    """A round that fails is made up for by the next: no stream is told, what was heard is kept."""
    hall = Hall()
    stream, parting = HeldStream("p", heard=100), HeldStream("parting", heard=100)
    hall.roster.join(stream)
    hall.roster.join(parting)
    stream.hear(101, announced=5)
    parting.hear(101, announced=8)
    hall.roster.leave(parting)
    hall.store.is_away = True
    assert hall.at(102) == []
    assert stream.sights == []
    hall.store.is_away = False
    told = {each.producer: (each.announced_sequence, each.heard_seconds) for each in hall.at(110)}
    assert told == {"p": (5, 9.0), "parting": (8, 9.0)}
    assert [each.producer for each in hall.at(112)] == ["p"]


def test_round__what_is_not_told_is_told_again() -> None:
    """What a commit has kept from being written is written later, of a stream that has gone too."""
    hall = Hall()
    stream, parting = HeldStream("p", heard=100), HeldStream("parting", heard=100)
    sight = Seen(instance=OURS, sequence=7, is_known=True, is_told=False)
    hall.store.found |= {"p": sight, "parting": sight}
    for each in (stream, parting):
        hall.roster.join(each)
        each.hear(101, announced=9)
    hall.roster.leave(parting)
    for time in (102, 104):
        told = {it.producer: (it.announced_sequence, it.heard_seconds) for it in hall.at(time)}
        assert told == {"p": (9, time - 101), "parting": (9, time - 101)}
    hall.store.found |= {"p": replace(sight, is_told=True), "parting": replace(sight, is_told=True)}
    hall.at(106)
    assert [(it.producer, it.heard_seconds) for it in hall.at(108)] == [("p", None)]


def test_leave__keeps_what_an_earlier_connection_announced() -> None:
    """A process that comes back and is cut off again has still announced what it said first."""
    hall = Hall()
    for announced in (9, 7):
        stream = HeldStream("p", heard=100)
        hall.roster.join(stream)
        stream.hear(101, announced=announced)
        hall.roster.leave(stream)
    assert [it.announced_sequence for it in hall.at(102)] == [9]


@pytest.mark.parametrize(("announced", "written"), [(7, []), (9, [9])])
def test_end__is_not_undone_by_an_earlier_connection(announced: int, written: list[int]) -> None:
    """After a goodbye nothing is written of a connection before it, unless batches are missing."""
    hall = Hall()
    cut, back = HeldStream("p", heard=100), HeldStream("p", heard=101)
    for each in (cut, back):
        hall.roster.join(each)
    cut.hear(101, announced=announced)
    hall.roster.leave(cut)
    origin = Origin(account_id="acme", key_id="", received_ms=0, producer="p")
    asyncio.run(hall.roster.end(back, origin))
    assert [it.announced_sequence for it in hall.at(102)] == written


def test_round__two_streams_of_one_instance() -> None:
    """A producer that was cut off and came back is written once: the later sign of life."""
    hall = Hall()
    cut, back = HeldStream("p", heard=90), HeldStream("p", heard=100)
    hall.roster.join(cut)
    hall.roster.join(back)
    cut.hear(91, announced=3)
    back.hear(101, announced=5)
    assert [(it.announced_sequence, it.heard_seconds) for it in hall.at(102)] == [(5, 1.0)]
    assert len(cut.sights) == len(back.sights) == 1


def test_announced__is_known_before_it_is_written() -> None:
    """Whoever opens anew hears of what an earlier instance announced here, even if it has gone."""
    hall = Hall()
    stream = HeldStream("p", heard=100)
    hall.roster.join(stream)
    stream.hear(101, announced=9)
    assert hall.roster.announced_sequence("acme", "p") == 9
    assert hall.roster.announced_sequence("", "p") == 0
    hall.roster.leave(stream)
    assert hall.roster.announced_sequence("acme", "p") == 9
    assert not hall.roster.has_open("acme", "p")


@pytest.mark.parametrize("is_held", [False, True])
def test_open__says_what_is_known_by_then(*, is_held: bool) -> None:
    """An opening that has waited for its turn says what was announced here in the meantime."""
    hall = Hall()
    stream = HeldStream("p", heard=100)
    hall.store.held = {"p"} if is_held else set()
    newer = Origin(account_id="acme", key_id="", received_ms=0, producer="p", instance=b"n" * 16)

    async def live() -> ProducerState:
        hall.roster.join(stream)
        opening = asyncio.create_task(hall.roster.open(newer, first_sequence=3, missing_from=2))
        stream.hear(101, announced=9)
        return await opening

    assert asyncio.run(live()).instance == newer.instance
    asked = Opening(origin=newer, first_sequence=3, missing_from=2, announced_sequence=9)
    assert hall.store.opened == [asked] * (1 + is_held)


def test_open__of_an_account_without_room() -> None:
    """An account that has as many producers as it may have gets no new one."""
    hall = Hall()
    full = Hearing(silent_count=0, heard_until_ms=None, expected_count=ACCOUNT_PRODUCERS_MAX)
    hall.roster.summary = replace(NOBODY, hearings={"acme": full})
    for account in ("acme", "team"):
        origin = Origin(account_id=account, key_id="", received_ms=0, producer="p")
        asyncio.run(hall.roster.open(origin, first_sequence=0, missing_from=0))
    assert [it.may_be_new for it in hall.store.opened] == [False, True]


def test_end__is_not_undone_by_a_round_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A goodbye waits for a round that has seen the stream open, and is the last word."""
    hall = Hall()
    stream = HeldStream("p", heard=100)
    order: list[str] = []
    write, end = hall.store.write_presences, hall.store.end_producers

    is_writing, may_end = threading.Event(), threading.Event()

    async def live() -> None:
        hall.roster.join(stream)
        stream.hear(101)
        round_under_way = asyncio.create_task(hall.roster.round())
        await asyncio.to_thread(is_writing.wait)
        origin = Origin(account_id="acme", key_id="", received_ms=0, producer="p")
        goodbye = asyncio.create_task(hall.roster.end(stream, origin))
        # It begins, and would end before the round if it did not wait.
        await asyncio.wait([goodbye], timeout=0.05)
        may_end.set()
        await asyncio.gather(round_under_way, goodbye)

    def noted_write(each: Sequence[Presence]) -> Mapping[tuple[str, str, bytes], Seen]:
        is_writing.set()
        may_end.wait()
        order.append("write")
        return write(each)

    def noted_end(origins: Sequence[Origin]) -> Sequence[bool]:
        order.append("end")
        return end(origins)

    monkeypatch.setattr(hall.store, "write_presences", noted_write)
    monkeypatch.setattr(hall.store, "end_producers", noted_end)
    asyncio.run(live())
    assert order == ["write", "end"]
    assert hall.at(104) == []


@pytest.mark.parametrize("silence_seconds", [60, None])
def test_silence__not_before_the_server_was_attentive_itself(
    silence_seconds: float | None,
) -> None:
    """After a start, and after the database was away, nobody is called silent for one bound."""
    hall = Hall(silence_seconds=silence_seconds)
    assert hall.roster.silence_ms() is None
    for time in (100, 130, 160):
        hall.at(time)
    assert hall.store.silences == [None, None, None]
    hall.at(161)
    bound = None if silence_seconds is None else 60_000
    assert hall.store.silences[-1] == bound
    hall.store.is_away = True
    hall.at(170)
    assert hall.roster.silence_ms() is None
    hall.store.is_away = False
    for time in (180, 240, 241):
        hall.at(time)
    assert hall.store.silences[-3:] == [None, None, bound]
