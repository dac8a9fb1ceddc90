"""The periods of contracts: each instant in one, whatever versions and time zones do later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.calendar import lay_out
from billing.contracts import Contracts, ContractVersion
from billing.periods import Month, find_zone, month_start_ms
from billing.ports import PeriodState, StoredPeriod
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_ms
from tests.billing.invoices import VERSION
from tests.billing.test_periods import ZONES

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OLD, NEW = "2026a", "2026b"


def at(text: str) -> int:
    """The instant of a time in UTC."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def zone_of(name: str) -> ZoneInfo:
    """A zone that is there."""
    zone = find_zone(name)
    assert zone is not None
    return zone


def version_from(
    start_ms: int, *, zone: str = "Europe/Berlin", end_ms: int | None = None
) -> ContractVersion:
    """A version of the one contract."""
    return replace(VERSION, start_ms=start_ms, end_ms=end_ms, zone=zone_of(zone))


def ended(versions: Sequence[ContractVersion]) -> Sequence[ContractVersion]:
    """The versions, each until the next one's begin."""
    return Contracts(versions).versions(VERSION.contract)


def go_on(
    stored: Sequence[StoredPeriod],
    versions: Sequence[ContractVersion],
    now_ms: int,
    *,
    tzdata: str = OLD,
    newest_only: bool = False,
) -> list[StoredPeriod]:
    """The periods after a layout, in order."""
    layout = lay_out(
        ended(versions),
        stored[-1:] if newest_only else stored,
        now_ms=now_ms,
        tzdata=tzdata,
        newest_only=newest_only,
    )
    kept = {it.span.start_ms: it for it in stored}
    for period in layout.opened:
        assert period.span.start_ms not in kept
    for period in layout.changed:
        assert kept[period.span.start_ms].state is PeriodState.OPEN
    kept.update({it.span.start_ms: it for it in (*layout.opened, *layout.changed)})
    return [kept[it] for it in sorted(kept)]


def closed(period: StoredPeriod) -> StoredPeriod:
    """The period as it is once it is closed."""
    return replace(
        period, state=PeriodState.CLOSED, outcome="issued", close_ms=period.span.end_ms, cut_id=1
    )


def told(periods: Sequence[StoredPeriod]) -> list[tuple[str, int, int]]:
    """Months and times."""
    return [(str(it.month), it.span.start_ms, it.span.end_ms) for it in periods]


def test_lay_out__opens_what_has_begun() -> None:
    """From the first version's begin to the month that it is now, each month has a period."""
    versions = [version_from(at("2026-09-30T22:00"))]
    found = go_on([], versions, at("2026-12-05"))
    assert told(found) == [
        ("2026-10", at("2026-09-30T22:00"), at("2026-10-31T23:00")),
        ("2026-11", at("2026-10-31T23:00"), at("2026-11-30T23:00")),
        ("2026-12", at("2026-11-30T23:00"), at("2026-12-31T23:00")),
    ]
    assert {(it.zone, it.tzdata, it.state) for it in found} == {
        ("Europe/Berlin", OLD, PeriodState.OPEN)
    }


def test_lay_out__again_changes_nothing() -> None:
    """What is there is laid out once."""
    versions = [version_from(at("2026-09-30T22:00"))]
    found = go_on([], versions, at("2026-12-05"))
    layout = lay_out(ended(versions), found, now_ms=at("2026-12-06"), tzdata=OLD)
    assert (layout.opened, layout.changed) == ((), ())


def test_lay_out__a_version_that_is_to_come_opens_nothing() -> None:
    """Before a contract begins it has no period."""
    assert go_on([], [version_from(at("2026-12-01"))], at("2026-11-30T23:59")) == []
    assert len(go_on([], [version_from(at("2026-12-01"))], at("2026-12-01"))) == 1


def test_lay_out__the_newest_are_enough() -> None:
    """Where no version has changed, a layout that knows the newest period alone goes on from it."""
    versions = ended([version_from(at("2020-01-01"))])
    kept = go_on([], versions, at("2026-11-05"))
    short = lay_out(versions, kept[-1:], now_ms=at("2027-01-05"), tzdata=OLD, newest_only=True)
    whole = lay_out(versions, kept, now_ms=at("2027-01-05"), tzdata=OLD)
    assert short == whole
    assert [str(it.month) for it in short.opened] == ["2026-12", "2027-01"]


def test_lay_out__a_new_version_cuts_the_open_period() -> None:
    """The period ends where a version begins, and the rest of the month is the version's."""
    first = version_from(at("2026-09-30T22:00"))
    kept = go_on([], [first], at("2026-10-20"))
    found = go_on(kept, [first, version_from(at("2026-10-14T22:00"))], at("2026-10-20"))
    assert told(found) == [
        ("2026-10", at("2026-09-30T22:00"), at("2026-10-14T22:00")),
        ("2026-10", at("2026-10-14T22:00"), at("2026-10-31T23:00")),
    ]
    assert [it.version_start_ms for it in found] == [first.start_ms, at("2026-10-14T22:00")]


def test_lay_out__a_late_version_cuts_what_has_ended_and_is_open() -> None:
    """A version of the past cuts a month that is not closed: its usage is billed by both parts."""
    first = version_from(at("2026-09-30T22:00"))
    kept = go_on([], [first], at("2026-11-05"))
    found = go_on(kept, [first, version_from(at("2026-10-14T22:00"))], at("2026-11-05"))
    assert [str(it.month) for it in found] == ["2026-10", "2026-10", "2026-11"]
    assert found[-1].version_start_ms == at("2026-10-14T22:00")


def test_lay_out__a_late_version_leaves_closed_ones() -> None:
    """A closed period keeps its times and its version, whatever begins within it."""
    first = version_from(at("2026-09-30T22:00"))
    kept = go_on([], [first], at("2026-11-05"))
    kept[0] = closed(kept[0])
    found = go_on(kept, [first, version_from(at("2026-10-14T22:00"))], at("2026-11-05"))
    assert found[0] == kept[0]
    assert told(found) == told(kept)
    assert found[1].version_start_ms == at("2026-10-14T22:00")


def test_lay_out__a_customer_changes_its_zone() -> None:
    """From Berlin to Los Angeles: the hours between both midnights are a part of October."""
    versions = [
        version_from(at("2026-09-30T22:00")),
        version_from(at("2026-10-31T23:00"), zone="America/Los_Angeles"),
    ]
    assert told(go_on([], versions, at("2026-11-20"))) == [
        ("2026-10", at("2026-09-30T22:00"), at("2026-10-31T23:00")),
        ("2026-10", at("2026-10-31T23:00"), at("2026-11-01T07:00")),
        ("2026-11", at("2026-11-01T07:00"), at("2026-12-01T08:00")),
    ]


def test_lay_out__a_contract_that_has_ended() -> None:
    """Its last period ends with it; what is between two versions is in none."""
    versions = [
        version_from(at("2026-09-30T22:00"), end_ms=at("2026-10-10")),
        version_from(at("2026-11-05"), end_ms=at("2026-11-06")),
    ]
    assert told(go_on([], versions, at("2027-02-01"))) == [
        ("2026-10", at("2026-09-30T22:00"), at("2026-10-10")),
        ("2026-11", at("2026-11-05"), at("2026-11-06")),
    ]


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_lay_out__other_tzdata_later(hours: int) -> None:
    """A midnight that a new edition moves moves no period that has ended: the next begins there."""
    versions = ended([version_from(at("2026-10-01"), zone="UTC")])
    kept = go_on([], versions, at("2026-11-05"))
    moved = at("2026-11-01") - hours * HOUR_MS
    # As if an edition of before had had October's end there.
    kept[0] = replace(kept[0], span=replace(kept[0].span, end_ms=moved))
    kept[1] = replace(kept[1], span=replace(kept[1].span, start_ms=moved))
    found = go_on(kept, versions, at("2026-11-05"), tzdata=NEW)
    assert told(found)[0] == told(kept)[0]
    assert told(found)[1] == ("2026-11", moved, at("2026-12-01"))
    assert [it.tzdata for it in found] == [OLD, NEW]
    assert told(go_on(kept[:1], versions, at("2026-11-05"), tzdata=NEW)) == told(found)


def test_lay_out__a_version_that_ends_later_than_was_said() -> None:
    """The rest of a month that was cut by an end is of the same month, once there is no end."""
    first = version_from(at("2026-09-30T22:00"), end_ms=at("2026-10-10"))
    kept = go_on([], [first], at("2026-10-12"))
    found = go_on(kept, [replace(first, end_ms=None)], at("2026-10-12"))
    assert [it[0] for it in told(found)] == ["2026-10", "2026-10"]
    assert found[1].span.end_ms == at("2026-10-31T23:00")


def test_lay_out__a_version_begins_in_a_month_that_no_version_is_in_force_in() -> None:
    """A month that was open when its contract was set to end before is cut by the next version."""
    first = version_from(at("2026-01-01"), zone="UTC")
    kept = go_on([], [first], at("2026-02-01"))
    first = replace(first, end_ms=at("2026-01-01T00:15"))
    kept = go_on(kept, [first], at("2026-02-01T00:15"))
    later = version_from(at("2026-02-01T00:15"), zone="UTC")
    assert told(go_on(kept, [first, later], at("2026-02-01T00:30"))) == [
        ("2026-01", at("2026-01-01"), at("2026-01-01T00:15")),
        ("2026-02", at("2026-02-01"), at("2026-02-01T00:15")),
        ("2026-02", at("2026-02-01T00:15"), at("2026-03-01")),
    ]


def test_lay_out__a_version_that_is_to_come_cuts_such_a_month_at_once() -> None:
    """Whoever opens the version's period later knows the newest period alone, and cuts nothing."""
    first = version_from(at("2026-01-01"), zone="UTC")
    kept = go_on([], [first], at("2026-02-05"))
    versions = [replace(first, end_ms=at("2026-01-10")), version_from(at("2026-02-20"), zone="UTC")]
    kept = go_on(kept, versions, at("2026-02-05"))
    assert kept[-1].span.end_ms == at("2026-02-20")
    again = go_on(kept, versions, at("2026-02-20"), newest_only=True)
    assert told(again)[-2:] == [
        ("2026-02", at("2026-02-01"), at("2026-02-20")),
        ("2026-02", at("2026-02-20"), at("2026-03-01")),
    ]


_EDGES = st.integers(0, 400 * 96)
_BASE = at("2026-01-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """At an instant a version is set, or (None) what has ended is closed; first some open again.

    `reopened` says which, by their places among those that are closed, modulo how many there are.
    """

    now_ms: int
    version: ContractVersion | None
    reopened: tuple[int, ...]


@st.composite
def _histories(draw: st.DrawFn) -> list[Step]:
    """Versions that are set, and set again with another end or zone, and closes in between.

    Few instants are drawn, and all happens at one of them: so that one often meets another.
    """
    edges = sorted(draw(st.sets(_EDGES, min_size=3, max_size=8)))
    zones = draw(st.lists(st.sampled_from(ZONES), min_size=1, max_size=2))
    starts = draw(st.permutations(edges[:-1]))[:3]
    steps = []
    for place in range(draw(st.integers(1, 12))):
        version = None
        if place == 0 or draw(st.sampled_from(["set", "set", "close"])) == "set":
            start = draw(st.sampled_from(starts))
            until = draw(st.none() | st.sampled_from([it for it in edges if it > start]))
            version = version_from(
                _BASE + start * INTERVAL_MS,
                zone=draw(st.sampled_from(zones)),
                end_ms=None if until is None else _BASE + until * INTERVAL_MS,
            )
        now_ms = _BASE + draw(st.sampled_from(edges)) * INTERVAL_MS
        reopened = tuple(draw(st.lists(st.integers(0, 20), max_size=2)))
        steps.append(Step(now_ms=now_ms, version=version, reopened=reopened))
    return sorted(steps, key=lambda it: it.now_ms)


def _live(steps: Sequence[Step]) -> None:
    """Live through a history: after each step, all that has begun is in one period."""
    stored: list[StoredPeriod] = []
    known: dict[int, ContractVersion] = {}
    for step in steps:
        stored = _reopen(stored, step.reopened)
        before = {it.span.start_ms: it for it in stored}
        if step.version is not None:
            known[step.version.start_ms] = step.version
        versions = ended(list(known.values()))
        stored = go_on(stored, list(known.values()), step.now_ms, newest_only=step.version is None)
        _check(stored, versions, now_ms=step.now_ms)
        for period in stored:
            if period.state is PeriodState.CLOSED:
                assert before[period.span.start_ms] == period
            elif step.version is not None:
                _check_one_version(period, versions)
        if step.version is None:
            stored = [
                closed(it) if it.state is PeriodState.OPEN and it.span.end_ms <= step.now_ms else it
                for it in stored
            ]


def _reopen(stored: Sequence[StoredPeriod], places: Sequence[int]) -> list[StoredPeriod]:
    """Return periods, some of the closed ones open again, as after a void."""
    starts = [it.span.start_ms for it in stored if it.state is PeriodState.CLOSED]
    chosen = {starts[it % len(starts)] for it in places if starts}
    return [
        replace(it, state=PeriodState.OPEN, outcome="", close_ms=None, cut_id=None)
        if it.span.start_ms in chosen
        else it
        for it in stored
    ]


def _check(
    stored: Sequence[StoredPeriod], versions: Sequence[ContractVersion], *, now_ms: int
) -> None:
    """See that no two periods meet, and that there is one wherever a version is in force by now."""
    for first, second in pairwise(stored):
        assert first.span.end_ms <= second.span.start_ms
    for period in stored:
        assert period.span.start_ms <= now_ms
    for it in versions:
        for at_ms in (it.start_ms, (it.end_ms or now_ms) - 1, (it.start_ms + now_ms) // 2):
            if it.holds_at(at_ms) and at_ms <= now_ms:
                assert sum(period.span.holds(at_ms) for period in stored) == 1


def _check_one_version(period: StoredPeriod, versions: Sequence[ContractVersion]) -> None:
    """See that one version is in force all through an open period, or none at all."""
    span = period.span
    meeting = [it for it in versions if span.meet(it.start_ms, it.end_ms) is not None]
    if meeting:
        (version,) = meeting
        assert span.meet(version.start_ms, version.end_ms) == span
        assert period.version_start_ms == version.start_ms


@given(_histories())
@settings(max_examples=300)
def test_lay_out__every_instant_in_one_period(
    history: list[Step],
) -> None:
    """Through any order of terms, closes and voids, no instant is in two periods or in none."""
    _live(history)


@pytest.mark.stacks
@given(_histories())
@settings(max_examples=1_500, deadline=None)
def test_lay_out__every_instant_in_one_period_far(
    history: list[Step],
) -> None:
    """The same for many more histories."""
    _live(history)


def _check_zone(name: str, *, years: range) -> None:
    zone = zone_of(name)
    start_ms = month_start_ms(Month(years.start, 1), zone)
    end_ms = month_start_ms(Month(years.stop, 1), zone)
    found = go_on([], [version_from(start_ms, zone=name)], end_ms - 1)
    assert found[0].span.start_ms == start_ms
    assert found[-1].span.end_ms == end_ms
    months = [Month(year, number) for year in years for number in range(1, 13)]
    assert [it.month for it in found] == months
    for before, after in pairwise(found):
        assert before.span.end_ms == after.span.start_ms


@pytest.mark.parametrize(
    "name",
    ["UTC", "America/Goose_Bay", "America/Havana", "Pacific/Apia", "Africa/Cairo", "Asia/Amman"],
)
def test_lay_out__zones_with_odd_midnights(name: str) -> None:
    """From 1980 to 2040, twelve periods a year, without a hole, where midnights are missing too."""
    _check_zone(name, years=range(1980, 2041))


@pytest.mark.stacks
def test_lay_out__every_zone() -> None:
    """The same in every zone that there is."""
    for name in ZONES:
        _check_zone(name, years=range(1980, 2041))
