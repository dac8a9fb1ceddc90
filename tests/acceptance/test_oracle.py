"""The oracle itself against sums that were worked out by hand."""

import ast
import sys
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance import oracle
from tests.acceptance.oracle_accounts import Account, Tree
from tests.acceptance.oracle_bills import (
    Event,
    Terms,
    bill,
    price_event,
    round_half_up,
)
from tests.acceptance.oracle_terms import (
    month_span_ms,
    read_books,
    read_contracts,
    to_ms,
    wall_time,
)
from tests.acceptance.worlds import zones

BOOK = """
book = "retail"
from = 2026-10-01T00:00:00
zone = "America/Los_Angeles"
currency = "USD"
same = { reasoning = "output", image_input = "input" }
tiers = { free = "0", standard = "1", priority = "1.5" }
modes = { batch = "0.5" }
[windows.off_peak]
days = ["mon", "tue", "wed", "thu", "fri"]
hours = ["20:00-06:00"]
tiers = ["standard"]
factor = "0.75"
[models."kimi-k2.6"]
input = "0.95"
output = "4.00"
tier.priority = { output = "5.50" }
[models."glm-5.1"]
names = ["glm-5.1-fp8", "lora/glm-5.1/*"]
input = "1.40"
cache_read = "0.26"
output = "4.40"
[[models."glm-5.1".above]]
prompt = 200_000
input = "2.80"
cache_read = "0.52"
"""
CONTRACT = """
contract = "acme-2026"
from = 2026-10-01T00:00:00
zone = "Europe/Berlin"
currency = "USD"
book = "retail"
covers = ["acme"]
[[overrides]]
models = ["glm-5.1"]
factor = "0.85"
[[overrides]]
models = ["kimi-k2.6"]
tiers = ["standard"]
prices = { output = "3.20" }
"""
KEYNOTE = """
book = "keynote"
from = 2026-10-01T00:00:00
zone = "UTC"
currency = "USD"
models."*".tier = { free = { all = "0" }, medium = { all = "3" }, ultra = { all = "150" } }
"""
KEYNOTE_CONTRACT = CONTRACT.split("[[", maxsplit=1)[0].replace("retail", "keynote")
NIGHT = """
[windows.night]
days = ["tue"]
hours = ["19:00-20:15"]
factor = "1"
"""
# Right before and as the team leaves acme.
MOVE = ("2026-10-21T11:59:59.999Z", "2026-10-21T12:00Z")
TREE: Tree = {
    "acme": Account("acme", ((0, None),)),
    "team": Account("team", ((0, "acme"), (1_792_584_000_000, None))),
}
OWN_MODULES = {
    *("oracle", "oracle_accounts", "oracle_bills", "oracle_terms"),
    *("reach", "world_files", "worlds"),
}
NOON = "2026-10-07T20:00Z"
# What is asked, in October 2026 (UTC): the price of the first class. Los Angeles is 7 hours behind.
UNITS = {
    "override's factor": ("glm-5.1 standard online 07T20:00 input=1", "1.19"),
    "below the band": ("glm-5.1 standard online 07T20:00 input=199999", "1.19"),
    "in the band": (
        "glm-5.1 standard online 07T20:00 input=1 cache_read=199999",
        "2.38 above 200000",
    ),
    "output is no prompt": ("glm-5.1 standard online 07T20:00 input=1 output=200000", "1.19"),
    "not in the band's prices": ("glm-5.1 standard online 07T20:00 output=1 input=200000", "3.74"),
    "same as output": ("glm-5.1 standard online 07T20:00 reasoning=1", "3.74"),
    "same, in the band": (
        "glm-5.1 standard online 07T20:00 image_input=200000",
        "2.38 above 200000",
    ),
    "class without a price": ("glm-5.1 standard online 07T20:00 audio_input=1", "no price"),
    "the page's example": (
        "lora/glm-5.1/acme standard batch 07T03:00 cache_read=200000 input=50000",
        "0.16575 above 200000 off_peak",
    ),
    "tier's factor": ("glm-5.1 priority online 07T20:00 input=1", "1.785"),
    "written for the tier": ("kimi-k2.6 priority online 07T20:00 output=1", "5.5"),
    "written for the tier, in batch": ("kimi-k2.6 priority batch 07T20:00 output=1", "2.75"),
    "not written for the tier": ("kimi-k2.6 priority online 07T20:00 input=1", "1.425"),
    "override's price": ("kimi-k2.6 standard batch 07T03:00 output=1", "3.2"),
    "override without the class": ("kimi-k2.6 standard online 07T20:00 input=1", "0.95"),
    "override of another tier": ("kimi-k2.6 free online 07T20:00 output=1", "0"),
    "tier that is not listed": ("kimi-k2.6 ultra online 07T20:00 input=1", "no price"),
    "model that is not listed": ("mystery standard online 07T20:00 input=1", "no price"),
    "before the first version": ("kimi-k2.6 standard online 01T06:59:59.999 input=1", "no price"),
    "first version begins": ("kimi-k2.6 standard online 01T07:00 input=1", "0.7125 off_peak"),
    "Friday, before 20:00": ("kimi-k2.6 standard online 10T02:59:59.999 input=1", "0.95"),
    "Friday, 20:00": ("kimi-k2.6 standard online 10T03:00 input=1", "0.7125 off_peak"),
    "Saturday, before 6:00": (
        "kimi-k2.6 standard online 10T12:59:59.999 input=1",
        "0.7125 off_peak",
    ),
    "Saturday, 6:00": ("kimi-k2.6 standard online 10T13:00 input=1", "0.95"),
    "Saturday, 20:00": ("kimi-k2.6 standard online 11T03:00 input=1", "0.95"),
    "Monday, 5:00": ("kimi-k2.6 standard online 12T12:00 input=1", "0.95"),
    "window of another tier": ("kimi-k2.6 priority online 10T03:00 input=1", "1.425"),
}
# Zone, month, when it begins, how many hours it has.
MONTHS = {
    "an hour more": ("Europe/Berlin", "2026-10", "2026-09-30T22:00Z", 745),
    "an hour less": ("Europe/Berlin", "2026-03", "2026-02-28T23:00Z", 743),
    "half an hour less": ("Australia/Lord_Howe", "2026-10", "2026-09-30T13:30Z", 743.5),
    "a day less": ("Pacific/Apia", "2011-12", "2011-12-01T10:00Z", 720),
    "no midnight": ("America/Asuncion", "2017-10", "2017-10-01T04:00Z", 743),
    "two midnights, an hour apart": ("America/Havana", "2026-11", "2026-11-01T04:00Z", 721),
    "two midnights, as clocks go back a minute later": (
        "America/St_Johns",
        "2009-11",
        "2009-11-01T02:30Z",
        721,
    ),
}
ROUNDED = [
    ("0.005", "USD", "0.01"),
    ("0.015", "USD", "0.02"),
    ("0.025", "USD", "0.03"),
    ("2.675", "EUR", "2.68"),
    ("0.004999999999", "USD", "0"),
    ("-0.005", "USD", "-0.01"),
    ("0.5", "JPY", "1"),
    ("2.5", "KRW", "3"),
    ("1.4999", "JPY", "1"),
    ("0.0005", "BHD", "0.001"),
    ("0.0015", "KWD", "0.002"),
]
# What must not be read one way or the other: why, and the texts.
REFUSED = {
    "price as a number": ("no decimal", BOOK.replace('"1.40"', "1.40"), CONTRACT),
    "price below zero": ("no decimal", BOOK.replace('"1.40"', '"-1.40"'), CONTRACT),
    "name of two models": ("two models", BOOK.replace("glm-5.1-fp8", "kimi-k2.6"), CONTRACT),
    "patterns of one length": (
        "all fit kimi-k2.7",
        BOOK.replace("glm-5.1-fp8", "kimi-*").replace("lora/glm-5.1/*", "kimi*7"),
        CONTRACT,
    ),
    "windows at once": ("hold at once", BOOK + NIGHT, CONTRACT),
    "begin in a gap": ("is no time", BOOK.replace("2026-10-01T00", "2026-03-08T02"), CONTRACT),
    "version twice": ("begin at once", BOOK, CONTRACT, CONTRACT),
    "factor and prices": (
        "either a factor or prices",
        BOOK,
        CONTRACT.replace("prices =", 'factor = "1"\nprices ='),
    ),
    "no such account": ("names 0 accounts", BOOK, CONTRACT.replace('"acme"', '"zenith"')),
    "two contracts": ("cover 'acme'", BOOK, CONTRACT, CONTRACT.replace("acme-2026", "acme-2027")),
}


def test_import__nothing_of_the_product() -> None:
    """The oracle stands on the standard library and psycopg, and so do the worlds."""
    own = {path for path in Path(oracle.__file__).parent.glob("*.py") if path.stem in OWN_MODULES}
    assert len(own) == len(OWN_MODULES)
    imported = {name for path in own for name in _imports(path)}
    allowed = {f"tests.acceptance.{name}" for name in OWN_MODULES} | {"psycopg"}
    assert {it for it in imported if it.split(".")[0] not in sys.stdlib_module_names} <= allowed


@pytest.mark.parametrize(("question", "answer"), UNITS.values(), ids=UNITS.keys())
def test_price_event__by_hand(question: str, answer: str) -> None:
    """A unit price is what one works out with the book in hand."""
    model, tier, mode, time, *classes = question.split()
    event = _event(
        {name: int(count) for name, count in (it.split("=") for it in classes)},
        at=f"2026-10-{time}Z",
        model=model,
        tier=tier,
        mode=mode,
    )
    rated = price_event(event, terms=_terms(BOOK, CONTRACT))
    assert rated
    price = rated[0].price
    if price is None:
        assert answer == "no price"
        return
    above = f"above {price.above}" if price.above else ""
    assert Fraction(answer.split(maxsplit=1)[0]) == price.unit
    assert answer.split()[1:] == [*above.split(), *price.window.split()]


def test_bill__keynote() -> None:
    """Fifty million tokens a day at $150 per million are $7,500 a day, in however many requests."""
    requests = [_event({"output": 49_999, "input": 1}, tier="ultra") for _ in range(1_000)]
    bills = bill(requests, terms=_terms(KEYNOTE, KEYNOTE_CONTRACT), month="2026-10")
    (invoice,) = bills.invoices.values()
    assert invoice.total == 7_500
    assert {key.token_class: line.billed for key, line in invoice.lines.items()} == {
        "input": Fraction("0.15"),
        "output": Fraction("7499.85"),
    }
    assert not bills.unpriced
    assert not bills.uncovered


def test_bill__rounds_a_line_once() -> None:
    """Five times a tenth of a cent are half a cent, and a whole one on the invoice."""
    terms = _terms(KEYNOTE.replace('"3"', '"5"'), KEYNOTE_CONTRACT)
    events = [_event({"input": 200}, tier="medium") for _ in range(5)]
    (invoice,) = bill(events, terms=terms, month="2026-10").invoices.values()
    (line,) = invoice.lines.values()
    assert (line.quantity, line.exact, line.billed) == (1_000, Fraction("0.005"), Fraction("0.01"))
    assert invoice.residue == line.residue == Fraction("-0.005")


@pytest.mark.parametrize(("amount", "currency", "rounded"), ROUNDED)
def test_round_half_up__tie(amount: str, currency: str, rounded: str) -> None:
    """Half a coin goes away from zero, whatever the coin is."""
    assert round_half_up(Fraction(amount), currency=currency) == Fraction(rounded)


@pytest.mark.parametrize(("zone", "month", "start", "hours"), MONTHS.values(), ids=MONTHS.keys())
def test_month_span__by_the_calendar(zone: str, month: str, start: str, hours: float) -> None:
    """A month is as long as its clocks say, and begins with its first instant."""
    start_ms, end_ms = month_span_ms(month, zone=ZoneInfo(zone))
    assert start_ms == _ms(start)
    assert end_ms - start_ms == hours * 3_600_000


def test_month_span__every_zone() -> None:
    """In every zone a month begins with its first day, on the edge of an interval."""
    for index, name in enumerate(zones()):
        zone = ZoneInfo(name)
        for month in range(1, 13):
            first = datetime(1980 + index % 61, month, 1, tzinfo=zone)
            start_ms, _ = month_span_ms(f"{first:%Y-%m}", zone=zone)
            before, begun = (wall_time(it, zone=zone) for it in (start_ms - 1, start_ms))
            assert before < first.replace(tzinfo=None) <= begun, (name, first)
            assert start_ms % 900_000 == 0, (name, first)


def test_bill__month_of_the_contracts_zone() -> None:
    """October ends with its last millisecond in Berlin, an hour later than it used to."""
    times = ("2026-09-30T21:59:59.999Z", "2026-09-30T22:00Z", "2026-10-31T22:59:59.999Z")
    events = [_event({"input": 1}, at=time) for time in (*times, "2026-10-31T23:00Z")]
    contract = CONTRACT.replace("2026-10-01", "2026-01-01")
    bills = bill(
        events, terms=_terms(BOOK.replace("2026-10", "2026-01"), contract), month="2026-10"
    )
    assert bills.sent == {("acme", "standard", "input"): 2}
    assert [it.start_ms for it in bills.invoices] == [_ms("2026-09-30T22:00Z")]


def test_bill__versions() -> None:
    """A price that changes makes another line, a contract that changes another invoice."""
    later_book = BOOK.replace("2026-10-01", "2026-10-11").replace('"0.95"', '"0.90"')
    later_contract = CONTRACT.replace("2026-10-01", "2026-10-21")
    terms = _terms(BOOK, CONTRACT, later_contract, books=[later_book])
    times = ("10T20:00", "11T06:59:59.999", "11T07:00", "20T21:59:59.999", "20T22:00")
    events = [_event({"input": 1}, model="kimi-k2.6", at=f"2026-10-{it}Z") for it in times]
    bills = bill(events, terms=terms, month="2026-10")
    lines = {
        period.start_ms: [(key.unit_price, line.quantity) for key, line in invoice.lines.items()]
        for period, invoice in bills.invoices.items()
    }
    assert lines == {
        _ms("2026-09-30T22:00Z"): [(Fraction("0.95"), 2), (Fraction("0.90"), 2)],
        _ms("2026-10-20T22:00Z"): [(Fraction("0.90"), 1)],
    }


def test_bill__nearest_contract() -> None:
    """Who is covered twice is billed by the nearest, and by the other one before and after it."""
    own = (
        CONTRACT.replace("acme-2026", "team")
        .replace('"acme"', '"acme/team"')
        .replace("-10-01", "-10-05")
    )
    terms = _terms(BOOK, CONTRACT, own.replace("zone", "until = 2026-10-09T00:00:00\nzone"))
    times = ("04T21:59:59.999", "04T22:00", "08T21:59:59.999", "08T22:00")
    events = [_event({"input": 1}, account="team", at=f"2026-10-{it}Z") for it in times]
    payers = [rated[0].period.contract for it in events if (rated := price_event(it, terms=terms))]
    assert payers == ["acme-2026", "team", "team", "acme-2026"]


def test_bill__moved_account() -> None:
    """Who moved out from under a contract is not covered any more, from the edge on."""
    events = [_event({"input": it}, account="team", at=at) for it, at in enumerate(MOVE, 1)]
    bills = bill(events, terms=_terms(BOOK, CONTRACT), month="2026-10")
    assert bills.sent == {("team", "standard", "input"): 1}
    assert [event.classes for event in bills.uncovered] == [{"input": 2}]


def test_bill__served_model() -> None:
    """A contract may sell the model that served; where none is told, it is the one asked for."""
    terms = _terms(BOOK, CONTRACT.replace("covers", 'price_by = "served"\ncovers'))
    served = [_event({"input": 1}, served_model=it) for it in ("kimi-k2.6", "")]
    bills = bill(served, terms=terms, month="2026-10")
    assert [key.model for it in bills.invoices.values() for key in it.lines] == [
        "glm-5.1",
        "kimi-k2.6",
    ]


def test_bill__unpriced() -> None:
    """What has no price is named, and the rest of the invoice waits for it; nothing needs none."""
    used = {"input": 1, "audio_input": 7, "video_input": 0}
    bills = bill([_event(used)], terms=_terms(BOOK, CONTRACT), month="2026-10")
    ((unpriced, tokens),) = bills.unpriced.items()
    assert (unpriced.model, unpriced.token_class, tokens) == ("glm-5.1", "audio_input", 7)
    assert bills.held == bills.invoices.keys()


@pytest.mark.parametrize(
    ("reason", "texts"), [(it[0], it[1:]) for it in REFUSED.values()], ids=REFUSED.keys()
)
def test_bill__ambiguous(reason: str, texts: tuple[str, ...]) -> None:
    """What could be read in two ways is refused, not read in one of them."""
    events = [
        _event({"input": 1}, model=it, at="2026-10-07T03:00Z") for it in ("kimi-k2.6", "kimi-k2.7")
    ]
    with pytest.raises(ValueError, match=reason):
        bill(events, terms=_terms(*texts), month="2026-10")


def _terms(book: str, *contracts: str, books: list[str] | None = None) -> Terms:
    read = read_books([book, *(books or [])])
    return Terms(TREE, books=read, contracts=read_contracts(contracts))


def _event(
    classes: dict[str, int],
    *,
    at: str = NOON,
    account: str = "acme",
    model: str = "glm-5.1",
    served_model: str = "",
    tier: str = "standard",
    mode: str = "online",
) -> Event:
    return Event(account, model, served_model, tier, mode, classes, _ms(at), "")


def _ms(time: str) -> int:
    return to_ms(datetime.fromisoformat(time))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."
