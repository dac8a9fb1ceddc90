"""The dashboards with the answers of a life of the made-up factory, as pages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType

from tests.stacks.chart import Engine
from tests.stacks.grafana import Choices
from tests.stacks.pictures.answers import Answer, Sources
from tests.stacks.pictures.life import Calendar, lived_life
from tests.stacks.pictures.page import draw, height_of
from tests.stacks.pictures.past import remembering_prometheus
from tests.stacks.queries import DASHBOARDS, panels, rule_groups

# Rates of the first minutes are of few samples.
_RISING = timedelta(minutes=7)
_SCRAPE_FOUR_TIMES = "4m"
_CHOSEN: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {
    "factory": {"window": "5m", "boundary": "board", "usd_per_kwh": "0.08"},
    "customers": {"window": "5m"},
    "health": {"span": "1h"},
}
_LOOKS_BACK = {"customers": timedelta(days=90)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """A dashboard with its answers, by the ids of its panels."""

    name: str
    answers: Mapping[int, Answer]
    page: str
    height: int


@contextmanager
def opened_gallery(
    helm: ModuleType, *, database_url: str, calendar: Calendar, folder: Path
) -> Iterator[list[Hung]]:
    """All dashboards, after the whole life was lived."""
    with (
        lived_life(database_url, calendar=calendar, folder=folder) as life,
        remembering_prometheus(
            life.scraped,
            groups=rule_groups(Engine(helm)),
            folder=folder,
            begin=calendar.watched,
            end=calendar.end,
        ) as prometheus,
    ):
        sources = Sources(prometheus=prometheus, database_url=database_url)
        yield [_hang(name, sources=sources, calendar=calendar) for name in DASHBOARDS]


def _hang(name: str, *, sources: Sources, calendar: Calendar) -> Hung:
    dashboard = DASHBOARDS[name]
    values = dict(_CHOSEN[name])
    span = Choices(begin=calendar.begin, end=calendar.end)
    for each in dashboard["templating"]["list"]:
        if each["type"] == "query":
            found = [
                str(it) for row in sources.ask(each["query"], choices=span) for it in row.values()
            ]
            values[each["name"]] = tuple(found) if each["multi"] else found[0]
    choices = Choices(
        begin=calendar.end - _LOOKS_BACK[name]
        if name in _LOOKS_BACK
        else calendar.watched + _RISING,
        end=calendar.end,
        values=values,
        rate_interval=_SCRAPE_FOUR_TIMES,
    )
    answers = {
        panel["id"]: sources.answer(panel, choices=choices.of(panel)) for panel in panels(dashboard)
    }
    shown = {
        each["label"]: _write(values[each["name"]])
        for each in dashboard["templating"]["list"]
        if each["name"] in values
    }
    shown["Time"] = f"{choices.begin:%Y-%m-%d %H:%M} to {choices.end:%Y-%m-%d %H:%M} UTC"
    page = draw(dashboard, answers=answers, choices=choices, shown=shown)
    return Hung(name=name, answers=answers, page=page, height=height_of(dashboard))


def _write(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else "All"
