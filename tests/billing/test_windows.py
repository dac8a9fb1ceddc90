"""Windows: when and for what they hold, and that no two of them do at once."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from billing.book_file import read_book
from billing.limits import MODELS_LISTED_MAX, WINDOWS_MAX
from billing.price_book import DAY_NAMES, PriceKey
from meter.domain.times import to_ms
from meter.domain.tokens import Mode
from tests.billing.terms import (
    NIGHT_BOOK,
    TIERS,
    a_book,
    a_key,
    book_text,
    cases,
    check_book_faults,
)


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        # Monday the 5th: 20:00 in Los Angeles is 03:00 on the 6th in UTC.
        ("2026-10-06T02:45", False),
        ("2026-10-06T03:00", True),
        ("2026-10-06T06:45", True),
        # Past midnight the hours are still Monday's.
        ("2026-10-06T07:00", True),
        ("2026-10-06T12:45", True),
        ("2026-10-06T13:00", False),
        # Tuesday evening.
        ("2026-10-07T03:00", False),
        # Sunday's run into Monday, from the end of the week into its begin.
        ("2026-10-05T03:00", True),
        ("2026-10-05T12:45", True),
        ("2026-10-05T13:00", False),
        # Saturday night is not Sunday's.
        ("2026-10-04T07:00", False),
        # A quarter of an hour at noon, on its days only.
        ("2026-10-05T19:00", True),
        ("2026-10-05T19:15", False),
        ("2026-10-06T19:00", False),
        # The clocks went back on the 1st of November: both hours from 1 to 2 are before 6.
        ("2026-11-01T08:30", False),
        ("2026-11-02T03:45", False),
        ("2026-11-02T04:00", True),
        ("2026-11-02T13:45", True),
        ("2026-11-02T14:00", False),
    ],
)
def test_find_price__window_by_local_time(at: str, *, holds: bool) -> None:
    """A window holds by the clock in the book's zone, on the days on which its hours began."""
    found = a_book(NIGHT_BOOK).find_price(a_key(at=at))
    assert found is not None
    assert found.window == ("night" if holds else "")
    assert found.unit_price == (2 if holds else 4)


@pytest.mark.parametrize(
    ("zone", "day", "hours_of_window"),
    [
        # Saturday evening to Sunday morning: 10 hours, 9 or 11 where clocks are moved at night.
        ("Europe/Berlin", "2026-10-17", 10),
        ("Europe/Berlin", "2026-10-24", 11),
        ("Europe/Berlin", "2026-03-28", 9),
        ("UTC", "2026-10-24", 10),
    ],
)
def test_window__in_nights_that_clocks_are_moved(zone: str, day: str, hours_of_window: int) -> None:
    """A window that clocks are moved in is as long as its hours on the clock's face are then."""
    book = a_book(
        f'zone = "{zone}"\n[windows.w]\ndays = ["sat"]\nhours = ["20:00-06:00"]\nfactor = "0"\n'
        '[models.m]\nall = "1"'
    )
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    quarters = [to_ms(start + timedelta(minutes=15 * it)) for it in range(4 * 36)]
    held = [at_ms for at_ms in quarters if book.windows[0].holds_at(at_ms, ZoneInfo(zone))]
    assert len(held) == 4 * hours_of_window
    assert held[-1] - held[0] == (len(held) - 1) * 15 * 60_000


def test_window__whole_day() -> None:
    """Hours from 00:00 to 24:00 are all of their day and nothing of the next."""
    book = a_book(
        '[windows.w]\ndays = ["sat"]\nhours = ["00:00-24:00"]\nfactor = "0"\n[models.m]\nall = "1"'
    )
    starts = [
        datetime(2026, 10, 3, tzinfo=UTC) + timedelta(minutes=15 * it) for it in range(-1, 97)
    ]
    held = [book.windows[0].holds_at(to_ms(it), ZoneInfo("UTC")) for it in starts]
    assert held == [False, *[True] * 96, False]


@pytest.mark.parametrize(
    ("key", "window"),
    [
        (a_key(at="2026-10-06T03:00"), "night"),
        (a_key(tier="free", at="2026-10-06T03:00"), ""),
        (a_key(mode=Mode.BATCH, at="2026-10-06T03:00"), ""),
        # By the key of its prices, by its own name, and by neither.
        (a_key("adapter/m", at="2026-10-06T03:00"), "night"),
        (a_key("lora/n", at="2026-10-06T03:00"), "night"),
        (a_key("n", at="2026-10-06T03:00"), ""),
    ],
)
def test_find_price__window_by_key(key: PriceKey, window: str) -> None:
    """A window is for the models, tiers and modes that it lists, for all where it lists none."""
    found = a_book(NIGHT_BOOK).find_price(key)
    assert found is not None
    assert found.window == window


@pytest.mark.parametrize(
    ("lists", "key", "window"),
    [
        ("", a_key("x", tier="ultra", mode=Mode.BATCH), "w"),
        ('tiers = ["free", "ultra"]', a_key("x", tier="ultra"), "w"),
        ('tiers = ["free"]', a_key("x", tier="ultra"), ""),
        ('modes = ["batch"]', a_key("x", mode=Mode.BATCH), "w"),
        ('models = ["x"]', a_key("x"), "w"),
    ],
)
def test_find_price__window_by_one_list(lists: str, key: PriceKey, window: str) -> None:
    """Each list of a window limits it by itself, and what is not listed does not."""
    days = ", ".join(f'"{it}"' for it in DAY_NAMES)
    found = a_book(
        f'[windows.w]\ndays = [{days}]\nhours = ["00:00-24:00"]\nfactor = "2"\n{lists}\n'
        '[models.x]\nall = "1"'
    ).find_price(key)
    assert found is not None
    assert found.window == window


MODELS = """
[models.m]
names = ["lora/m/*"]
all = "1"
[models.n]
names = ["lora/*", "ze1", "zxd"]
all = "1"
"""


def a_window(rows: str) -> str:
    """A book with a window of these rows, what each has, unless they have it."""
    needed = {"days": '["mon"]', "hours": '["00:00-24:00"]', "factor": '"1"'}
    written = {row.partition("=")[0].strip() for row in rows.splitlines()}
    lines = [f"{key} = {value}" for key, value in needed.items() if key not in written]
    return book_text("[windows.w]\n" + rows + "\n" + "\n".join(lines) + MODELS)


WINDOW_FAULTS = r"""
names = ["m"]  #! windows.w.names: no such key; here are days, hours
---
days = []  #! windows.w.days: is empty
---
days = "mon"  #! windows.w.days: must be a list
---
days = ["Mon"]  #! windows.w.days[0]: "Mon" is no day; there are mon, tue, wed
---
days = ["mon", "mon"]  #! windows.w.days[1]: "mon" is here twice
---
days = [0]  #! windows.w.days[0]: must be a text
---
days = [{}, []]  #! windows.w.days[0]: must be a text #! windows.w.days[1]: must be a text
---
hours = []  #! windows.w.hours: is empty
---
hours = "20:00-06:00"  #! windows.w.hours: must be a list
---
hours = [20]  #! windows.w.hours[0]: must be a text
---
hours = ["20:00-20:59"]  #! windows.w.hours[0]: on a quarter of an hour
---
hours = ["20:05-06:00"]  #! windows.w.hours[0]: on a quarter of an hour
---
hours = ["20:00-06:01"]  #! windows.w.hours[0]: on a quarter of an hour
---
hours = ["20:00-20:00"]  #! windows.w.hours[0]: is empty; the whole day is "00:00-24:00"
---
hours = ["00:00-00:00"]  #! windows.w.hours[0]: is empty
---
factor = 0.75  #! windows.w.factor: to be exact: "0.75"
---
factor = "-0.75"  #! windows.w.factor: is negative
---
tiers = ["gold"]  #! windows.w.tiers[0]: "gold" is no tier that is sold here
---
tiers = []  #! windows.w.tiers: is empty; leave it out
---
tiers = ["high", "high"]  #! windows.w.tiers[1]: is here twice
---
modes = ["live"]  #! windows.w.modes[0]: "live" is no mode; there are online, batch
---
modes = ["batch", "batch"]  #! windows.w.modes[1]: is here twice
---
modes = []  #! windows.w.modes: is empty
---
models = []  #! windows.w.models: is empty
---
models = ["m", "m"]  #! windows.w.models[1]: is here twice
---
models = ["**"]  #! windows.w.models[0]: write one `*`
---
models = ["mm"]  #! windows.w.models[0]: "mm" is no model of this book
---
models = ["x*"]  #! windows.w.models[0]: "x*" is no model of this book
---
hours = ["08:00-10:00", "09:45-12:00"]  #! windows.w.hours[1]: meets other hours of this
---
days = ["mon", "tue"]
hours = ["20:00-06:00", "05:45-08:00"]  #! windows.w.hours[1]: of this window on tue 05:45
---
days = ["sun", "mon"]
hours = ["05:45-08:00", "20:00-06:00"]  #! windows.w.hours[1]: of this window on mon 05:45
"""


@pytest.mark.parametrize(
    "rows",
    [
        *cases(WINDOW_FAULTS),
        *(
            f'hours = ["{text}"]  #! windows.w.hours[0]: must be hours such as'
            for text in ("20-06", "8:00-9:00", "20:00–06:00", "20:00", "2000-0600", "aa:00-bb:00")
        ),
        *(
            f'hours = ["{text}"]  #! windows.w.hours[0]: must begin at 00:00 to 23:45 and end'
            for text in ("24:00-06:00", "20:00-30:00", "20:00-24:15", "99:00-99:00", "20:60-21:00")
        ),
        'hours = ["\u0662\u0660:00-06:00"]  #! windows.w.hours[0]: must be hours',
    ],
)
def test_read_book__fault_of_a_window(rows: str) -> None:
    """What is wrong with a window is told with its line, its place and the way out."""
    check_book_faults(a_window(rows))


@pytest.mark.parametrize("key", ["days", "hours", "factor"])
def test_read_book__window_without(key: str) -> None:
    """A window has days, hours and a factor."""
    rows = [row for row in a_window("").splitlines() if not row.startswith(f"{key} =")]
    text = "\n".join(rows).replace("[windows.w]", f"[windows.w]  #! windows.w.{key}: is missing")
    check_book_faults(text)


def test_read_book__windows_are_a_table() -> None:
    """Windows are a table of tables."""
    check_book_faults(book_text("windows = 1  #! windows: must be a table"))
    check_book_faults(book_text("windows = { w = 1 }  #! windows.w: must be a table"))


def test_read_book__faulty_window_meets_nothing() -> None:
    """What is wrong with a window is told alone: what it would be for is not known."""
    check_book_faults(
        book_text(
            """
[windows.one]
days = ["mon"]
hours = ["00:00-24:00"]
tiers = ["gold"]  #! windows.one.tiers[0]: no tier that is sold here
factor = "1"
[windows.two]
days = ["mon"]
hours = ["00:00-24:00"]
factor = "1"
"""
            + MODELS
        )
    )


def test_read_book__name_of_a_window() -> None:
    """A window's name stands on invoices, and is an id."""
    check_book_faults(
        a_window("").replace("windows.w]", f'windows.{"w" * 65}]  #! windows."{"w" * 64}…": 64')
    )
    check_book_faults(
        a_window("").replace(
            "[windows.w]", '[windows."Off peak"]  #! windows."Off peak": must match'
        )
    )


@pytest.mark.parametrize(
    ("first", "second", "time"),
    [
        ({}, {}, "mon 00:00"),
        ({"hours": "08:00-10:00"}, {"hours": "09:45-12:00"}, "mon 09:45"),
        ({"hours": "08:00-10:00"}, {"hours": "10:00-12:00"}, None),
        ({"days": "mon"}, {"days": "tue"}, None),
        # Past midnight, and from the end of the week into its begin.
        ({"hours": "20:00-06:00"}, {"days": "tue", "hours": "05:45-06:00"}, "tue 05:45"),
        ({"hours": "20:00-06:00"}, {"days": "tue", "hours": "06:00-06:15"}, None),
        ({"days": "sun", "hours": "20:00-06:00"}, {"hours": "00:00-00:15"}, "mon 00:00"),
        ({"days": "sun", "hours": "20:00-24:00"}, {"hours": "00:00-00:15"}, None),
        # For one key: by tier, mode and model, where no list is all.
        ({"tiers": "high"}, {"tiers": "free"}, None),
        ({"tiers": "high"}, {}, "mon 00:00"),
        ({}, {"tiers": "high"}, "mon 00:00"),
        ({"tiers": "high"}, {"tiers": "high"}, "mon 00:00"),
        ({"modes": "batch"}, {"modes": "online"}, None),
        ({"modes": "batch"}, {}, "mon 00:00"),
        ({"models": "m"}, {}, "mon 00:00"),
        ({"models": "m"}, {"models": "n"}, None),
        ({"models": "m"}, {"models": "*"}, "mon 00:00"),
        ({"models": "m"}, {"models": "m*"}, "mon 00:00"),
        # An adapter is meant by its own name and by the key of its prices.
        ({"models": "m"}, {"models": "lora/m/x"}, "mon 00:00"),
        ({"models": "m"}, {"models": "lora/m/x*"}, "mon 00:00"),
        ({"models": "m"}, {"models": "lora/*"}, "mon 00:00"),
        ({"models": "n"}, {"models": "lora/m/x"}, None),
        ({"models": "n"}, {"models": "lora/m/*"}, None),
        ({"models": "n"}, {"models": "lora/x/*"}, "mon 00:00"),
        ({"models": "lora/m/a*"}, {"models": "lora/m/b*"}, None),
        ({"models": "lora/m/a*"}, {"models": "lora/m/*b"}, "mon 00:00"),
        ({"models": "lora/m/a"}, {"models": "lora/m/b"}, None),
        ({"models": "lora/m/a"}, {"models": "lora/m/a"}, "mon 00:00"),
        ({"models": "lora/a*"}, {"models": "lora/*a"}, "mon 00:00"),
        # Some names fit both, but none that the book has.
        ({"models": "ze*"}, {"models": "z*d"}, None),
    ],
)
def test_read_book__windows_that_meet(
    first: dict[str, str], second: dict[str, str], time: str | None
) -> None:
    """Two windows that could hold at once for one key are refused, and no others."""
    text = ""
    for name, rows in (("one", first), ("two", second)):
        lists = {"days": "mon", "hours": "00:00-24:00"} | rows
        expected = f'  #! windows.two: meets window "one" of line 6 on {time}' if time else ""
        text += f"[windows.{name}]{expected if name == 'two' else ''}\n"
        text += "".join(f'{key} = ["{it}"]\n' for key, it in lists.items()) + 'factor = "1"\n'
    if time is None:
        assert len(a_book(text + MODELS).windows) == 2
    else:
        check_book_faults(book_text(text + MODELS))


def test_read_book__limits_of_windows() -> None:
    """More windows, or more models that they list, than are compared in seconds are refused."""

    def some_windows(count: int) -> str:
        """So many windows, one quarter of an hour each."""
        quarters = [f"{it // 4:02}:{it % 4 * 15:02}" for it in range(count + 1)]
        return "".join(
            f'[windows.w{begin[:2]}{begin[3:]}]\ndays = ["mon"]\nhours = ["{begin}-{end}"]\n'
            'factor = "1"\n'
            for begin, end in pairwise(quarters)
        )

    assert len(a_book(some_windows(WINDOWS_MAX) + MODELS).windows) == WINDOWS_MAX
    too_many = book_text(some_windows(WINDOWS_MAX + 1) + MODELS)
    check_book_faults(too_many.replace("w0000]", "w0000]  #! windows: more than 50"))
    listed = ", ".join(f'"lora/{it}"' for it in range(MODELS_LISTED_MAX))
    assert len(read_book(a_window(f"models = [{listed}]"), tiers=TIERS).windows) == 1
    too_many = a_window(f'models = ["m", {listed}]')
    check_book_faults(too_many.replace("[windows.w]", "[windows.w]  #! windows: in all"))
