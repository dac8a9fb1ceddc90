"""The wording that documents share."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing.documents.format import (
    facts,
    group_count,
    group_money,
    group_price,
    notes,
    period_dates,
    printable,
    read_time,
    word_counted,
    word_due,
    word_held,
    word_period,
    word_rounding,
    word_source,
    word_start,
    write_time,
)
from billing.money import Currency
from billing.periods import Month
from meter.domain.times import to_ms
from tests.billing.documents.gallery import SAMPLES
from tests.billing.invoices import BHD, JPY, START_MS, USD, VERSION, make_draft, make_invoice

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.mark.parametrize(
    ("price", "currency", "expected"),
    [
        ("1.4", USD, "1.40"),
        ("3", USD, "3.00"),
        ("0.2625", USD, "0.2625"),
        ("1234567.5", USD, "1,234,567.50"),
        ("0", USD, "0.00"),
        ("210", JPY, "210"),
        ("660.5", JPY, "660.5"),
        ("0.52", BHD, "0.520"),
        ("0.0000001", USD, "0.0000001"),
    ],
)
def test_group_price__has_the_currencys_decimals(
    price: str, currency: Currency, expected: str
) -> None:
    """A price has at least the decimals of its currency, and else all that it has."""
    assert group_price(Decimal(price), currency) == expected


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("1234.5", USD, "1,234.50"),
        ("-1234.5", USD, "-1,234.50"),
        ("-0.00", USD, "0.00"),
        ("999", USD, "999.00"),
        ("1265267", JPY, "1,265,267"),
        ("3165.105", BHD, "3,165.105"),
        (
            "12345678901234567890123456789012.34",
            USD,
            "12,345,678,901,234,567,890,123,456,789,012.34",
        ),
    ],
)
def test_group_money__has_the_currencys_decimals(
    amount: str, currency: Currency, expected: str
) -> None:
    """An amount has exactly the decimals of its currency, in groups of three, never -0."""
    assert group_money(Decimal(amount), currency) == expected


def test_group_count__in_threes() -> None:
    """Tokens are grouped by three digits."""
    assert (group_count(0), group_count(-1_234_567)) == ("0", "-1,234,567")


@pytest.mark.parametrize(
    ("at_ms", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (START_MS, "2026-09-30T22:00:00Z"),
        (START_MS + 1, "2026-09-30T22:00:00.001Z"),
    ],
)
def test_write_time__and_back(at_ms: int, expected: str) -> None:
    """An instant is UTC, with milliseconds where there are any, and is read back as it was."""
    assert write_time(at_ms) == expected
    assert read_time(expected) == at_ms


@pytest.mark.parametrize(
    ("zone", "start", "end", "expected"),
    [
        ("Europe/Berlin", "2026-10-01", None, "October 2026"),
        ("Europe/Berlin", "2026-10-15", None, "15 October 2026 – 31 October 2026"),
        ("Europe/Berlin", "2026-10-01", "2026-10-15", "1 October 2026 – 14 October 2026"),
        (
            *("Europe/Berlin", "2026-10-02T12:15", "2026-10-15T06:30"),
            "2 October 2026, 12:15 – 15 October 2026, 06:30",
        ),
        # Midnight is missing, so the month begins at one o'clock.
        ("America/Asuncion", "2017-10-01T01:00", None, "October 2017"),
        ("Asia/Kathmandu", "2026-10-01", None, "October 2026"),
    ],
)
def test_word_period__where_the_contract_is(
    zone: str, start: str, end: str | None, expected: str
) -> None:
    """A whole month has its name, a part its first and last day, with times off midnight."""
    version = replace(
        VERSION,
        zone=ZoneInfo(zone),
        start_ms=_instant(start, zone),
        end_ms=None if end is None else _instant(end, zone),
    )
    month = Month(int(start[:4]), 10)
    invoice = make_draft([], version=version, month=month)
    assert word_period(invoice) == expected


def test_period_dates__are_both_included() -> None:
    """The first and the last day are those of the zone and not of UTC."""
    first, last = period_dates(make_draft([]))
    assert (first.isoformat(), last.isoformat()) == ("2026-10-01", "2026-10-31")


def test_word_start__drops_midnight() -> None:
    """What begins with a day has its date alone; what begins later has its minute."""
    assert word_start(START_MS, VERSION.zone) == "1 October 2026"
    assert word_start(START_MS + HOUR_MS, VERSION.zone) == "1 October 2026, 01:00"


@pytest.mark.parametrize(
    ("terms_days", "expected"),
    [
        (0, "1 November 2026 (on receipt)"),
        (1, "2 November 2026 (1 day)"),
        (30, "1 December 2026 (30 days)"),
    ],
)
def test_facts__have_the_terms(terms_days: int, expected: str) -> None:
    """An invoice says when it is due and why; without an order number there is no row for one."""
    invoice = make_invoice([], version=replace(VERSION, terms_days=terms_days, po=""))
    assert facts(invoice) == [
        ("Invoice", "NG-2026-000042"),
        ("Period", "October 2026, Europe/Berlin"),
        ("Issued", "1 November 2026"),
        ("Due", expected),
    ]


def test_notes__tell_lines_apart() -> None:
    """A line's prompt, window and contract's terms are noted, and a date where a price changed."""
    by_line = notes(SAMPLES["month"]())
    assert {line: note for line, note in by_line.items() if note} == {
        1: "contract factor 0.85",
        2: "contract factor 0.85",
        3: "contract factor 0.85",
        9: "window off_peak",
        10: "prompts from 200,000 tokens",
        14: "price from 1 October 2026",
        15: "price from 15 October 2026",
        17: "contract price",
    }


@pytest.mark.parametrize(
    ("residue", "expected"),
    [
        ("0.0012", "left 0.0012 USD over."),
        ("-0.015", "added 0.015 USD."),
        ("0.000", "left nothing over."),
    ],
)
def test_word_rounding__in_both_directions(residue: str, expected: str) -> None:
    """What rounding left over or added is told exactly."""
    invoice = replace(make_draft([]), residue=Decimal(residue))
    assert word_rounding(invoice) == f"Each line is rounded once, half up; rounding {expected}"


def test_word_held__counts_keys() -> None:
    """One key has, more keys have no price."""
    preview = SAMPLES["preview"]()
    one = replace(preview, unpriced=preview.unpriced[:1])
    assert word_held(one) == (
        "1 key has no price: this account’s invoice is held until it has one."
    )
    assert word_held(preview).startswith("3 keys have no price")


def test_word_source__has_the_cut_of_an_invoice() -> None:
    """What was billed can be found again: contract, account, book, cut, engine."""
    assert word_source(make_invoice([])) == (
        "Contract acme-2026, version of 1 October 2026 · account acme",
        "Price book retail · cut 31 · engine 2",
    )
    assert word_source(make_draft([]))[1] == "Price book retail · engine 2"


def test_word_counted__has_minute_and_zone() -> None:
    """A preview says until when it counted, also where that is midnight."""
    invoice = replace(make_draft([]), counted_until_ms=START_MS + DAY_MS)
    assert word_counted(invoice) == (
        "Counted until 2 October 2026, 00:00 (Europe/Berlin). What is counted later will change it."
    )


def test_word_due__of_a_preview() -> None:
    """A preview asks for nothing."""
    assert word_due(make_draft([])) == "Total so far"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Söhne & Co. 株式会社", "Söhne & Co. 株式会社"),
        ("a\nb\tc\x1b[31m", "a�b�c�[31m"),
        ("a\u202eb\u2066c\u2028d", "a�b�c�d"),
        ("क\u094dष\u200dx", "क\u094dष\u200dx"),
    ],
)
def test_printable__moves_no_pen(name: str, expected: str) -> None:
    """Controls and turns of direction are shown; marks and joiners of a script stay."""
    assert printable(name) == expected


def _instant(local: str, zone: str) -> int:
    return to_ms(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))
