"""What a refresh looks like: in each width, and whatever the labels hold."""

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.top.counters import parse_page, to_report
from cli.top.screen import Place, render
from cli.top.watch import Frame, Silence
from tests.cli.top.fake_metrics import FACTORY, Flow, write_page

SILENT = Silence(since_ms=1_790_000_000_000, reason="connection refused")
DRIFT = 'tokenworks_engine_drift_ppm{pool="%s",model="%s",kind="output",window="1d"} %d'
HEARD = 'tokenworks_source_heard_timestamp_seconds{source="%s"} %d'
SOURCES = ("proxy", "litellm", "envoy", "cloud_events", "asgi", "span", "log")
OTHER_MONEY = 'tokenworks_revenue_total{tier="%s",pool="rubin",currency="%s"} %f'


def _frame(
    *,
    flows: Mapping[tuple[str, str], Flow] = FACTORY,
    invalid: tuple[str, ...] = (),
    further: tuple[str, ...] = (),
    silence: Silence | None = None,
    count: int = 31,
) -> Frame:
    """Return a frame of so many answers, two seconds apart; `further` lines grow from nothing."""
    pages = [
        write_page(place * 2 + 100, flows=flows, invalid=invalid, further=further if place else ())
        for place in range(count)
    ]
    samples = tuple(parse_page(page, read_seconds=at * 2.0) for at, page in enumerate(pages))
    return Frame(
        time_ms=1_790_000_060_000, samples=samples, report=to_report(samples), silence=silence
    )


def _lines(frame: Frame, *, columns: int = 80, lines: int | None = 24) -> list[str]:
    """Return what stands on a terminal of that size, without the blanks at the ends of lines."""
    console = Console(width=columns, height=lines or 24, file=io.StringIO(), legacy_windows=False)
    place = Place(
        address="127.0.0.1:7412",
        is_terminal=True,
        columns=columns,
        lines=lines,
        curve_seconds=60.0,
    )
    with console.capture() as captured:
        console.print(render(frame, place=place, console=console))
    return [line.rstrip() for line in captured.get().splitlines()]


def _cells(frame: Frame, name: str, *, columns: int = 80) -> list[str]:
    """Return the words of the row of a tier or pool."""
    rows = (line.split() for line in _lines(frame, columns=columns))
    (row,) = (row for row in rows if row[:1] == [name])
    return row


FRAMES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "sandbox": {"further": ("tokenworks_sandbox 1.0",)},
    "silent": {"silence": SILENT},
    "other money": {
        "further": (OTHER_MONEY % ("high", "EUR", 0.25), OTHER_MONEY % ("premium", "JPY", 9e9))
    },
    "invalid": {"invalid": ("b200",)},
    "unpriced": {"further": ('tokenworks_unpriced_tokens_total{tier="free"} 900',)},
    "sources": {"further": (*(HEARD % (name, 1) for name in SOURCES), DRIFT % ("a", "m", -9))},
    "measuring": {"count": 1},
    "no power": {"flows": {("high", ""): (10, 20, 0.0, 0.0)}, "invalid": ("",)},
    "many": {"flows": {(f"tier-{n:03}", f"pool-{n:03}"): (n, n, n, n) for n in range(90)}},
    "long names": {"flows": {("t" * 300, "p" * 300): (4, 5, 6.0, 7.0)}},
    "huge": {"flows": {("high", "a"): (10**15, 10**15, 1e15, 1e15)}},
    "tiny": {"flows": {("high", "a"): (1, 1, 0.001, 1e-12)}},
}


@cache
def frame(name: str) -> Frame:
    """Return one of the frames; to make all takes seconds."""
    return _frame(**FRAMES[name])


@pytest.mark.parametrize("columns", [72, 80, 90, 100, 110, 140, 220])
@pytest.mark.parametrize("name", FRAMES)
def test_screen__fits(name: str, columns: int) -> None:
    """No line is wider and no screen is higher than the terminal, whatever there is to show."""
    shown = _lines(frame(name), columns=columns)
    assert max(map(cell_len, shown)) <= columns
    assert len(shown) <= 24


@pytest.mark.parametrize("lines", [15, 16, 18, 20, 24, 30, 60])
@pytest.mark.parametrize("name", FRAMES)
def test_screen__is_no_higher(name: str, lines: int) -> None:
    """In few lines there are fewer rows, and first of all fewer pools, but always a tier."""
    shown = _lines(frame(name), columns=100, lines=lines)
    assert len(shown) <= lines
    if name in {"plain", "silent", "sandbox", "invalid", "many"}:
        tiers = [line for line in shown if line.startswith((" medium", " tier-089"))]
        assert len(tiers) == 1


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_screen__no_number_is_cut(columns: int) -> None:
    """Every number of every tier and pool is there, whole, and so is every heading."""
    for name in ("plain", "sandbox", "invalid", "other money"):
        assert not [line for line in _lines(frame(name), columns=columns) if "…" in line]
    words = " ".join(_lines(frame("plain"), columns=columns)).split()
    # Tokens/s, output tokens/s, watts, tokens/J, $/h and $/MWh of the tier medium.
    medium = {"28.3k", "7.30k", "2.80k", "2.61", "102", "36.4k", "72%"}
    # Of all: tokens/s, output, watts with what is idle, tokens/J, $/h and $/MWh.
    total = {"39.3k", "10.5k", "7.45k", "1.41", "$391/h", "52.5k"}
    assert medium | total | {"free", "high", "premium", "b200", "rubin"} <= set(words)


def test_screen__columns_stand_below_each_other() -> None:
    """The numbers of pools end where those of tiers do."""
    shown = _lines(frame("plain"))
    heads = [line for line in shown if "tok/J" in line]
    assert len(heads) == 2
    for title in ("tok/s", "out/s", "watts", "tok/J", "$/h", "$/MWh"):
        assert heads[0].index(title) == heads[1].index(title)


def test_screen__busiest_first() -> None:
    """Tiers stand in the order of their tokens, pools in that of their names."""
    names = [line.split()[0] for line in _lines(frame("plain")) if line.strip()]
    order = ("medium", "free", "high", "premium", "b200", "rubin")
    assert [name for name in names if name in order] == list(order)


def test_screen__more_than_there_are_lines_for() -> None:
    """What there is no room for is counted, and both tables keep a part of the screen."""
    shown = _lines(frame("many"))
    assert [line.split()[1] for line in shown if line.split()[1:] == ["more"]] == ["more", "more"]
    assert any("tier-089" in line for line in shown)
    assert any("pool-000" in line for line in shown)


def test_screen__more_than_anybody_reads() -> None:
    """A table has at most fifty rows, and the number of those that it leaves out."""
    shown = _lines(frame("many"), lines=None)
    assert sum("tier-" in line for line in shown) == sum("pool-" in line for line in shown) == 50
    assert [line.strip() for line in shown if line.endswith("more")] == ["40 more", "40 more"]


@pytest.mark.parametrize("columns", [72, 80, 140])
def test_screen__long_names(columns: int) -> None:
    """A name that is too long is cut, not the numbers beside it."""
    shown = _lines(frame("long names"), columns=columns)
    rows = [line.split() for line in shown if line.lstrip().startswith(("ttt", "ppp"))]
    assert [row[0][-1] for row in rows] == ["…", "…"]
    assert [[cell for cell in row if "…" in cell] for row in rows] == [[row[0]] for row in rows]


def test_screen__power_missing() -> None:
    """Without valid power there is a dash, and the power's state says why."""
    assert _cells(frame("invalid"), "b200")[1:] == [
        "17.6k",
        "4.60k",
        "–",
        "–",
        "–",
        "43.6",
        "–",
        "●",
        "invalid",
    ]
    assert _cells(frame("invalid"), "free")[4:-1] == ["14%", "–", "–", "0", "–"]
    assert "power valid in 1 of 2 pools" in "\n".join(_lines(frame("invalid")))
    assert _cells(frame("no power"), "(none)")[-2:] == ["●", "invalid"]
    empty = _frame(flows={}, further=('tokenworks_tokens_total{tier="a",pool="p"} 5',))
    assert _cells(empty, "p")[-2:] == ["○", "none"]
    assert "no pool reports power" in "\n".join(_lines(empty))


def test_screen__neither_power_nor_price() -> None:
    """Where nothing is measured or priced, the headline says so, with dashes for numbers."""
    text = "tokenworks_tokens_total 7"
    samples = tuple(
        parse_page(page, read_seconds=at) for at, page in enumerate(("tokenworks_sandbox 0", text))
    )
    frame = Frame(time_ms=0, samples=samples, report=to_report(samples), silence=None)
    shown = [line.replace("│", "").split() for line in _lines(frame)[3:5]]
    assert shown[0] == ["7.00", "–", "–", "–"]
    assert " ".join(shown[1]) == "0 output no power known no price known"


def test_screen__power_not_yet() -> None:
    """A pool whose power is valid, and whose counter has not moved, has no watts of 0."""
    idle = _frame(flows={("high", "a"): (4, 5, 0.0, 0.0)})
    assert _cells(idle, "a")[3:] == ["–", "–", "–", "0", "–", "○", "not", "yet"]


def test_screen__sandbox() -> None:
    """A driven clock is said loudly, and what its rates are of."""
    assert any("SANDBOX" in line and "real seconds" in line for line in _lines(frame("sandbox")))
    assert not any("SANDBOX" in line for line in _lines(frame("plain")))


def test_screen__silence() -> None:
    """A server that is away is said with since when; the last rates stay."""
    shown = _lines(frame("silent"))
    assert (
        " no answer from 127.0.0.1:7412 since 14:13:20Z, trying again: connection refused" in shown
    )
    assert _cells(frame("silent"), "medium") == _cells(frame("plain"), "medium")


def test_screen__other_currencies() -> None:
    """What is not in dollars stands beside them, by tier and in all, and is in no sum."""
    shown = _lines(frame("other money"))
    assert " beside dollars: EUR 15.0/h, 2.01k/MWh · JPY 540G/h, 72.5T/MWh" in shown
    assert [*_cells(frame("other money"), "high")][-3:-1] == ["EUR", "15.0"]
    (dollars,) = {line for line in shown if "$391/h" in line}
    assert dollars in _lines(frame("plain"))
    wide = _lines(frame("other money"), columns=140)
    assert any("other/MWh" in line for line in wide)


def test_screen__quality() -> None:
    """How far it can be trusted stands at the end."""
    fine = "power valid in 2 of 2 pools · counting 0 s behind · 0 held in quarantine"
    assert fine in "\n".join(_lines(frame("plain")))
    late = ("tokenworks_quarantine_held 1200", "tokenworks_counting_behind_seconds 4200")
    shown = "\n".join(_lines(_frame(further=late), columns=100))
    assert "counting 4,200 s behind · 1,200 held in quarantine" in shown
    assert "15.0 tokens/s without a price" in "\n".join(_lines(frame("unpriced"), columns=140))


def test_screen__engines_and_sources() -> None:
    """The drift that is furthest from 0, and when each source was heard, stand below it."""
    now = frame("plain").time_ms // 1000
    further = (
        DRIFT % ("h100", "m", 900),
        DRIFT % ("h200", "", -20_400),
        HEARD % ("envoy", now - 3),
        HEARD % ("span", now - 1_234),
    )
    shown = _lines(_frame(further=further), columns=140)
    said = "engines -2.04 % yesterday, output of all in h200 · span heard 1,234 s ago"
    assert f"{said} · envoy heard 3 s ago" in "\n".join(shown)
    assert "engines" not in "\n".join(_lines(frame("plain")))
    sandbox = _lines(_frame(further=(*further[2:], "tokenworks_sandbox 1")), columns=140)
    assert "heard" not in "\n".join(sandbox)


@pytest.mark.parametrize(
    "label", ["\x1b[2J", "\x9b31m", "[red]", "a\\nb", "\u202eevil", "\x07", "日本", "\x00"]
)
def test_screen__label_that_steers(label: str) -> None:
    """A label is text: no sequence in it reaches the terminal, and no markup is obeyed."""
    frame = _frame(flows={(label, label): (1, 2, 3.0, 4.0)})
    for columns in (80, 140):
        shown = _lines(frame, columns=columns)
        assert all(line.isprintable() for line in shown)
        assert max(map(cell_len, shown)) <= columns
    assert "[red]" in "".join(_lines(frame)) or label != "[red]"
