"""The judge of the rows: fed with what is wrong, it says so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults import verdict
from tests.faults.events import Source, Truth

END_MS = 1_790_000_000_000


def made(count: int = 4) -> dict[str, Mapping[str, Any]]:
    """Return events by request id."""
    source = Source("east")
    events = [source.draw(end_ms=END_MS + number) for number in range(count)]
    return {event["request_id"]: event for event in events}


def judged(
    events: Mapping[str, Mapping[str, Any]],
    *journal: str,
    kept: frozenset[str] = frozenset(),
    unpromised: frozenset[str] = frozenset(),
) -> verdict.Verdict:
    """Judge a truth against a journal of these request ids, which usage repeats."""
    ledger = verdict.add_up([])
    for name in journal:
        single = verdict.add_up([events.get(name, next(iter(events.values())))])
        for place, counts in single.sums.items():
            ledger.add(place, counts=dict(counts))
        ledger.request_ids[name] += 1
    found = verdict.Found(journal=ledger, usage=ledger, kept=kept)
    return verdict.judge(verdict.Truth(events=events, unpromised=unpromised), found=found)


def test_judge__all_is_well() -> None:
    """Each event once in the journal, and the sums as they should be: nothing to say."""
    events = made()
    found = judged(events, *events)
    assert (found.sent, found.counted, found.lost, found.doubled) == (4, 4, 0, 0)
    assert found.difference is None


def test_judge__lost_event() -> None:
    """An event that is nowhere is lost."""
    events = made()
    assert judged(events, "east-1", "east-2", "east-4").lost == 1


def test_judge__doubled_event() -> None:
    """An event that is in the journal twice is doubled, and the sums say so as well."""
    events = made()
    found = judged(events, *events, "east-3")
    assert (found.lost, found.doubled) == (0, 1)
    assert found.difference is not None


def test_judge__lost_and_doubled_do_not_cancel() -> None:
    """One lost and another doubled are two faults, though the number of events is right."""
    events = made()
    found = judged(events, "east-1", "east-2", "east-4", "east-4")
    assert (found.counted, found.lost, found.doubled) == (3, 1, 1)


def test_judge__event_that_nobody_sent() -> None:
    """An event that is in no truth counts as doubled: somebody was billed for nothing."""
    events = made()
    assert judged(events, *events, "ghost-1").doubled == 1


def test_judge__kept_is_not_lost() -> None:
    """An event in quarantine is set aside; one that is in the journal too is not."""
    events = made()
    found = judged(events, "east-1", "east-2", "east-4", kept=frozenset({"east-3", "east-4"}))
    assert (found.set_aside, found.lost, found.doubled) == (1, 0, 0)


def test_judge__what_a_killed_sender_had_not_promised() -> None:
    """What was recorded after the last promise is told apart from what is lost."""
    events = made()
    unpromised = frozenset({"east-3", "east-4"})
    found = judged(events, "east-1", "east-3", unpromised=unpromised)
    assert (found.lost, found.at_risk_lost) == (1, 1)


def test_judge__taken_back_once_and_twice() -> None:
    """A voided event is in the journal 0 times; if it was taken back twice, somebody notices."""
    events = made()
    ledger = verdict.add_up(events.values())
    ledger.request_ids["void"] = 0
    truth = verdict.Truth(events=events)
    once = verdict.judge(truth, found=verdict.Found(journal=ledger, usage=ledger))
    ledger.request_ids["void"] = -1
    twice = verdict.judge(truth, found=verdict.Found(journal=ledger, usage=ledger))
    assert (once.doubled, once.lost) == (0, 0)
    assert twice.doubled > 0


def test_judge__usage_differs() -> None:
    """A journal that is right does not excuse sums that are not."""
    events = made()
    journal = verdict.add_up(events.values())
    usage = verdict.add_up([*events.values(), events["east-1"]])
    found = verdict.judge(
        verdict.Truth(events=events), found=verdict.Found(journal=journal, usage=usage)
    )
    assert found.difference is not None
    assert "usage" in found.difference


def test_truth__outlives_its_writer(tmp_path: Path) -> None:
    """Events and promises are read back as they were written, without any closing."""
    truth = Truth(tmp_path / "east.jsonl")
    events = made()
    truth.append([dict(event) for event in events.values()])
    truth.promise(3)
    read = verdict.read_truth([tmp_path / "east.jsonl"], killed=["east"])
    assert json.dumps(read.events) == json.dumps(events)
    assert read.unpromised == {"east-4"}
    assert not verdict.read_truth([tmp_path / "east.jsonl"]).unpromised


def test_truth__without_what_was_refused(tmp_path: Path) -> None:
    """What the client did not take is no truth: if it were counted, nobody would have sent it."""
    truth = Truth(tmp_path / "east.jsonl")
    truth.append([dict(event) for event in made().values()])
    truth.refuse(["east-2"])
    read = verdict.read_truth([tmp_path / "east.jsonl"])
    assert (sorted(read.events), read.refused_count) == (["east-1", "east-3", "east-4"], 1)
