"""Months in every zone: local, without holes, on the grid; and local times as instants."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import (
    Month,
    OffGrid,
    Span,
    check_edge,
    find_zone,
    month_of,
    month_span,
    month_start_ms,
    read_local,
    read_month,
)
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_ms, to_time

ZONES = sorted(available_timezones() - {"Factory", "localtime"})


def at(text: str) -> int:
    """The instant of a time in UTC."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def zone_of(name: str) -> ZoneInfo:
    """A zone that is there."""
    zone = find_zone(name)
    assert zone is not None
    return zone


def shown_at(at_ms: int, zone: ZoneInfo) -> tuple[int, int, int]:
    """The date that a clock in the zone shows."""
    local = to_time(at_ms).astimezone(zone)
    return local.year, local.month, local.day


def test_month_start__every_zone_every_month() -> None:
    """From 1980 to 2040 months begin with the first instant of day 1, on the grid, and in order."""
    months = [Month(year, number) for year in range(1980, 2041) for number in range(1, 13)]
    for name in ZONES:
        zone = zone_of(name)
        starts = [month_start_ms(month, zone) for month in months]
        for month, start_ms in zip(months, starts, strict=True):
            assert start_ms % INTERVAL_MS == 0
            assert shown_at(start_ms, zone) == (month.year, month.number, 1), (name, month)
            before = shown_at(start_ms - 1, zone)
            assert before[:2] == (month.previous().year, month.previous().number), (name, month)
        days = {(after - before) // (24 * 3600 * 1000) for before, after in pairwise(starts)}
        assert days <= {27, 28, 29, 30, 31}, name


@pytest.mark.parametrize(
    ("zone", "month", "start", "end"),
    [
        ("UTC", "2026-10", "2026-10-01T00:00", "2026-11-01T00:00"),
        # The clocks go back within it: an hour more; and forward: an hour less.
        ("Europe/Berlin", "2026-10", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("Europe/Berlin", "2026-03", "2026-02-28T23:00", "2026-03-31T22:00"),
        ("America/Los_Angeles", "2026-11", "2026-11-01T07:00", "2026-12-01T08:00"),
        ("America/Sao_Paulo", "2018-11", "2018-11-01T03:00", "2018-12-01T02:00"),
        # Midnight is missing: the clocks went over it when it came.
        ("Africa/Cairo", "2014-08", "2014-07-31T22:00", "2014-08-31T21:00"),
        ("America/Asuncion", "2023-10", "2023-10-01T04:00", "2023-11-01T03:00"),
        ("Asia/Amman", "2016-04", "2016-03-31T22:00", "2016-04-30T21:00"),
        ("Asia/Kathmandu", "1986-01", "1985-12-31T18:30", "1986-01-31T18:15"),
        # A whole day is missing, and no month begins elsewhere for it.
        ("Pacific/Apia", "2011-12", "2011-12-01T10:00", "2011-12-31T10:00"),
        ("Pacific/Apia", "2012-01", "2011-12-31T10:00", "2012-01-31T10:00"),
        # Midnight comes twice: the first one begins the month.
        ("America/Havana", "2026-11", "2026-11-01T04:00", "2026-12-01T05:00"),
        ("Atlantic/Azores", "2026-10", "2026-10-01T00:00", "2026-11-01T01:00"),
        # A minute past midnight the clocks went back into the month before.
        ("America/Goose_Bay", "2009-11", "2009-11-01T03:00", "2009-12-01T04:00"),
        ("Asia/Beirut", "2023-03", "2023-02-28T22:00", "2023-03-31T21:00"),
        ("Asia/Kathmandu", "2026-10", "2026-09-30T18:15", "2026-10-31T18:15"),
    ],
)
def test_month_span__named_months(zone: str, month: str, start: str, end: str) -> None:
    """Months that clocks were moved in, or at the very edge of, begin and end where they must."""
    span = month_span(read_month(month), zone_of(zone))
    assert (span.start_ms, span.end_ms) == (at(start), at(end))


@given(
    st.sampled_from([*ZONES, "America/Goose_Bay", "Canada/Newfoundland", "America/Havana"]),
    st.integers(1980, 2040),
    st.integers(1, 12),
)
def test_month_of__agrees_with_spans(name: str, year: int, number: int) -> None:
    """The first and the last instant of a month are in it, and those around it are not."""
    zone, month = zone_of(name), Month(year, number)
    span = month_span(month, zone)
    near = [span.start_ms + hours * 3600_000 for hours in range(3)]
    assert {month_of(at_ms, zone) for at_ms in [*near, span.end_ms - 1]} == {month}
    assert month_of(span.start_ms - 1, zone) == month.previous()
    assert month_of(span.end_ms, zone) == month.next()


def test_month_of__clocks_went_back_over_the_begin() -> None:
    """What a clock shows as last month once more is this month's already."""
    zone = zone_of("America/Goose_Bay")
    again = at("2009-11-01T03:15")
    assert shown_at(again, zone) == (2009, 10, 31)
    assert month_of(again, zone) == Month(2009, 11)


def test_month_start__zone_off_the_grid() -> None:
    """A month that began between two edges, as some did before 1973, is refused, not moved."""
    with pytest.raises(OffGrid, match=r"nearest are 1971-01-01T00:30.* and 1971-01-01T00:45"):
        month_start_ms(Month(1971, 1), zone_of("Africa/Monrovia"))


def test_month__follows_and_precedes() -> None:
    """Months follow each other over the end of a year, in both directions, and compare."""
    assert Month(2026, 12).next() == Month(2027, 1)
    assert Month(2027, 1).previous() == Month(2026, 12)
    assert Month(2026, 3).next().previous() == Month(2026, 3)
    assert Month(2026, 12) < Month(2027, 1)
    assert str(Month(2026, 3)) == "2026-03"


def test_read_month__a_month() -> None:
    """A month is read as it is written, of the first and of the last year too."""
    assert read_month("2026-10") == Month(2026, 10)
    assert read_month("1980-01") == Month(1980, 1)
    assert read_month("2200-12") == Month(2200, 12)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-", "2026-0", "2026-00", "2026-13", "26-10", "2026-1", "2026-10-01"),
        *(
            "2026/10",
            " 2026-10",
            "2026-10\n",
            "\u0662\u0660\u0662\u0666-\u0661\u0660",
            "+026-10",
            "02026-10",
            "2026-+1",
            "2026- 1",
            "1979-12",
            "2201-01",
            "20²6-10",
        ),
    ],
)
def test_read_month__no_month(text: str) -> None:
    """What is no month is refused, digits of other scripts and other ages too."""
    with pytest.raises(ValueError, match=r"month"):
        read_month(text)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "Mars/Olympus",
            "../../etc/passwd",
            "/etc/localtime",
            "Europe",
            "a\0b",
            "EUROPE/BERLIN ",
        ),
        *(
            "localtime",
            "posixrules",
            "Factory",
            "right/UTC",
            "posix/Europe/Berlin",
            "é",
            "a" * 5000,
        ),
    ],
)
def test_find_zone__none(name: str) -> None:
    """Nothing is a zone but an IANA name of a place: no path, no leap seconds, no machine's own."""
    assert find_zone(name) is None


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        ("America/Los_Angeles", "2026-10-01T00:00", "2026-10-01T07:00"),
        ("America/Los_Angeles", "2026-12-01T00:00", "2026-12-01T08:00"),
        # It comes twice: the first.
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("America/Havana", "2026-11-01T00:00", "2026-11-01T04:00"),
        ("Asia/Kathmandu", "2026-10-01T00:15", "2026-09-30T18:30"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00"),
        ("UTC", "1980-01-01T00:00", "1980-01-01T00:00"),
        ("UTC", "2200-12-31T23:45", "2200-12-31T23:45"),
    ],
)
def test_read_local__instant(zone: str, local: str, instant: str) -> None:
    """A local time means an instant; one that comes twice, its first time."""
    assert read_local(datetime.fromisoformat(local), zone_of(zone)) == at(instant)


@pytest.mark.parametrize(
    ("zone", "local", "error", "told"),
    [
        ("Europe/Berlin", "2026-03-29T02:00", ValueError, "went over it, to 2026-03-29T03:00:00"),
        ("Europe/Berlin", "2026-03-29T02:07", ValueError, "went over it, to 2026-03-29T03:00:00"),
        ("Africa/Cairo", "2014-08-01T00:45", ValueError, "went over it, to 2014-08-01T01:00:00"),
        ("Pacific/Apia", "2011-12-30T00:00", ValueError, "went over it, to 2011-12-31T00:00:00"),
        ("UTC", "1979-12-31T23:45", ValueError, "1980 to 2200"),
        ("UTC", "2201-01-01T00:00", ValueError, "1980 to 2200"),
        ("Asia/Tokyo", "0001-01-01T00:00", ValueError, "1980 to 2200"),
        ("UTC", "2026-10-01T00:07", OffGrid, "2026-10-01T00:00:00 and 2026-10-01T00:15:00"),
        ("UTC", "2026-10-01T00:00:01", OffGrid, "2026-10-01T00:00:00 and 2026-10-01T00:15:00"),
        ("UTC", "2026-10-01T00:00:00.000001", OffGrid, "00:00:00 and 2026-10-01T00:15:00"),
        (
            "Europe/Berlin",
            "2026-03-29T01:50",
            OffGrid,
            "2026-03-29T01:45:00 and 2026-03-29T03:00:00",
        ),
    ],
)
def test_read_local__refused(zone: str, local: str, error: type[ValueError], told: str) -> None:
    """A time in a gap, off the grid by a microsecond, or of another age is refused."""
    with pytest.raises(error, match=told) as caught:
        read_local(datetime.fromisoformat(local), zone_of(zone))
    assert type(caught.value) is error


def test_check_edge__offers_the_nearest() -> None:
    """An instant between two edges is refused with both."""
    assert check_edge(INTERVAL_MS) == INTERVAL_MS
    with pytest.raises(OffGrid, match=r"1970-01-01T00:00:00\+00:00 and 1970-01-01T00:15:00"):
        check_edge(1)


def test_span__holds_and_meets() -> None:
    """A span is half-open; what two share is a span or nothing."""
    hour = 4 * INTERVAL_MS
    span = Span(start_ms=hour, end_ms=3 * hour)
    assert [span.holds(it) for it in (hour - 1, hour, 3 * hour - 1, 3 * hour)] == [
        *(False, True, True, False)
    ]
    assert span.meet(0, None) == span
    assert span.meet(2 * hour, None) == Span(start_ms=2 * hour, end_ms=3 * hour)
    assert span.meet(0, 2 * hour) == Span(start_ms=hour, end_ms=2 * hour)
    assert span.meet(0, hour) is None
    assert span.meet(3 * hour, None) is None
    for start_ms, end_ms in [(hour, hour), (2 * hour, hour), (1, hour), (0, hour + 1)]:
        with pytest.raises(AssertionError):
            Span(start_ms=start_ms, end_ms=end_ms)


def test_zone__local_days_have_no_hole() -> None:
    """Quarter by quarter through a day that clocks are moved in, each instant has one month."""
    zone = zone_of("America/Havana")
    start = datetime(2026, 10, 31, tzinfo=UTC)
    months = [month_of(to_ms(start + timedelta(minutes=15 * it)), zone) for it in range(200)]
    assert months == sorted(months)
