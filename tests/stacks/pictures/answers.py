"""What a panel is answered, in the form in which it shows it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
from psycopg.rows import dict_row

from helm.dashboards.questions import POSTGRES_TYPE
from tests.stacks.grafana import Choices, fill
from tests.stacks.prometheus import Prometheus
from tests.stacks.queries import Json

# How often the past was scraped: values lie at whole minutes.
STEP = timedelta(minutes=1)
# A cell of a table: a text, a number, or nothing.
Cell = str | float | None
_LABEL = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A series: its name, and its values by seconds since 1970."""

    name: str
    points: Mapping[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under the titles of their columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a panel shows: lines over time, values of a moment by name, or a table."""

    lines: Sequence[Line] = ()
    values: Sequence[tuple[str, float]] = ()
    table: Table | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.lines or self.values or (self.table is not None and self.table.rows))


class Sources:
    """A Prometheus and a Postgres, which is asked as a member of `tokenworks_reader` alone."""

    def __init__(self, *, prometheus: Prometheus, database_url: str) -> None:
        """Take where they are."""
        self._prometheus = prometheus
        self._database_url = database_url

    def answer(self, panel: Json, *, choices: Choices) -> Answer:
        """Ask all that a panel asks."""
        if panel["datasource"]["type"] == POSTGRES_TYPE:
            (target,) = panel["targets"]
            return _from_rows(panel, rows=self.ask(target["rawSql"], choices=choices))
        if panel["type"] == "timeseries":
            return Answer(lines=list(self._lines(panel, choices=choices)))
        found = [
            (target, self._prometheus.query(fill(target["expr"], choices=choices), at=choices.end))
            for target in panel["targets"]
        ]
        if panel["type"] in {"table", "barchart"}:
            by_letter = {target["refId"]: samples for target, samples in found}
            return Answer(table=_organize(panel, rows=_merge(by_letter)))
        return Answer(
            values=[
                (_name(target["legendFormat"], labels), value)
                for target, samples in found
                for labels, value in samples
            ]
        )

    def ask(self, sql: str, *, choices: Choices) -> list[dict[str, object]]:
        """Ask Postgres, as Grafana's reader does."""
        with psycopg.connect(self._database_url, row_factory=dict_row) as connection:
            connection.execute("SET ROLE tokenworks_reader")
            # What is sent is the text that stands in the dashboard, and what its reader chose.
            return connection.execute(fill(sql, choices=choices).encode()).fetchall()

    def _lines(self, panel: Json, *, choices: Choices) -> Iterator[Line]:
        for target in panel["targets"]:
            found = self._prometheus.query_range(
                fill(target["expr"], choices=choices),
                begin=choices.begin,
                end=choices.end,
                step=STEP,
            )
            for labels, points in found:
                yield Line(name=_name(target["legendFormat"], labels), points=points)


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda match: labels.get(match[1], ""), legend).strip()


def _merge(
    by_letter: Mapping[str, Sequence[tuple[dict[str, str], float]]],
) -> list[dict[str, Cell]]:
    """One row for each set of labels, as Grafana's transformation "merge" has it."""
    rows: list[dict[str, Cell]] = []
    for letter, samples in by_letter.items():
        field = "Value" if len(by_letter) == 1 else f"Value #{letter}"
        for labels, value in samples:
            row = next((it for it in rows if _agree(it, labels) and field not in it), None)
            if row is None:
                row = {}
                rows.append(row)
            row.update(labels)
            row[field] = value
    return rows


def _agree(row: Mapping[str, Cell], labels: Mapping[str, str]) -> bool:
    """Tell whether a row and labels share some, and none of those differs."""
    shared = set(row) & set(labels)
    return bool(shared) and all(row[name] == labels[name] for name in shared)


def _organize(panel: Json, *, rows: Sequence[Mapping[str, Cell]]) -> Table:
    """Put fields under their titles, in their order; rows fall by the column that sorts them."""
    options = next(it["options"] for it in panel["transformations"] if it["id"] == "organize")
    titles: dict[str, str] = options["renameByName"]
    cells = [[row.get(field) for field in titles] for row in rows]
    return _sort(panel, table=Table(columns=list(titles.values()), rows=cells))


def _sort(panel: Json, *, table: Table) -> Table:
    for by in panel["options"].get("sortBy", ()):
        place = table.columns.index(by["displayName"])

        def weight(row: Sequence[Cell], place: int = place) -> float:
            value = row[place]
            return value if isinstance(value, float) else float("-inf")

        rows = sorted(table.rows, key=weight, reverse=by["desc"])
        return Table(columns=table.columns, rows=rows)
    return table


def _from_rows(panel: Json, *, rows: Sequence[Mapping[str, object]]) -> Answer:
    if panel["type"] == "timeseries":
        names = sorted({str(row["metric"]) for row in rows})
        return Answer(
            lines=[
                Line(
                    name=name,
                    points={
                        _to_seconds(row["time"]): _to_float(row["value"])
                        for row in rows
                        if row["metric"] == name and row["value"] is not None
                    },
                )
                for name in names
            ]
        )
    columns = list(rows[0]) if rows else []
    cells = [[_to_cell(value) for value in row.values()] for row in rows]
    if panel["type"] == "stat":
        ((value,),) = cells
        return Answer(values=[("", value)] if isinstance(value, float) else [])
    return Answer(table=_sort(panel, table=Table(columns=columns, rows=cells)))


def _to_seconds(value: object) -> float:
    assert isinstance(value, datetime)
    return value.timestamp()


def _to_float(value: object) -> float:
    assert isinstance(value, int | float | Decimal)
    return float(value)


def _to_cell(value: object) -> Cell:
    if value is None or isinstance(value, str):
        return value
    return _to_float(value)
