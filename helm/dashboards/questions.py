"""What panels ask of Prometheus and Postgres, and what becomes of the answers in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

POSTGRES_TYPE: Final = "grafana-postgresql-datasource"
LETTERS: Final = "ABCDEFGH"
_PROMETHEUS: Final = {"type": "prometheus", "uid": "${datasource}"}
_POSTGRES: Final = {"type": POSTGRES_TYPE, "uid": "${database}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question in PromQL; `legend` names its series, with labels in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSql:
    """A question in SQL; as a series it gives the columns time, metric and value."""

    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: the field that it shows, its title, and how its values are written.

    `bar` draws them as bars from 0 to the greatest one.
    """

    field: str
    title: str
    unit: str = "string"
    decimals: int | None = None
    bar: bool = False
    width: int | None = None


Query = Asked | AskedSql


def to_source(asks: Sequence[Query]) -> Json:
    """Return the data source of a panel, which the reader chooses; a panel has one."""
    (is_sql,) = {isinstance(it, AskedSql) for it in asks}
    return _POSTGRES if is_sql else _PROMETHEUS


def to_target(query: Query, *, letter: str, moment: bool, is_table: bool) -> Json:
    """Return a question as Grafana sends it, about this moment or about a span of time."""
    if isinstance(query, AskedSql):
        return {
            "refId": letter,
            "rawSql": query.sql.strip(),
            "rawQuery": True,
            "editorMode": "code",
            "format": "table" if moment else "time_series",
        }
    return {
        "refId": letter,
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": "table" if is_table else "time_series",
        "instant": moment,
        "range": not moment,
    }


def to_transformations(asks: Sequence[Query], *, columns: Sequence[Column]) -> list[Json]:
    """Return what joins answers: one row for one set of labels, fields with titles, no others."""
    if isinstance(asks[0], AskedSql):
        return []
    hidden = ["Time", *(f"Value #{letter}" for letter in LETTERS[: len(asks)]), "Value"]
    shown = {column.field for column in columns}
    organize = {
        "excludeByName": {name: True for name in hidden if name not in shown},
        "indexByName": {column.field: place for place, column in enumerate(columns)},
        "renameByName": {column.field: column.title for column in columns},
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


def has_names(asks: Sequence[Query]) -> bool:
    """Tell whether a question may give several series, which only their names tell apart."""
    return any(isinstance(it, Asked) and "{{" in it.legend for it in asks)
