"""What the reader of a dashboard may choose at its top."""

from typing import Final

from helm.dashboards.questions import POSTGRES_TYPE, Json

WINDOWS: Final = ("5m", "1h")
BOUNDARIES: Final = ("board", "host")


def source(name: str, *, label: str, kind: str) -> Json:
    """A data source of a kind, by the name of its variable."""
    return {
        "name": name,
        "label": label,
        "type": "datasource",
        "query": kind,
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "current": {"selected": True, "text": "default", "value": "default"},
        "options": [],
        "regex": "",
        "skipUrlSync": False,
    }


def choice(name: str, *, label: str, values: tuple[str, ...]) -> Json:
    """One of a few values; the first is chosen already."""
    options = [{"selected": each == values[0], "text": each, "value": each} for each in values]
    return {
        "name": name,
        "label": label,
        "type": "custom",
        "query": ",".join(values),
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "current": options[0],
        "options": options,
        "skipUrlSync": False,
    }


def number(name: str, *, label: str, value: str) -> Json:
    """A number that the reader types."""
    option = {"selected": True, "text": value, "value": value}
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": value,
        "hide": 0,
        "current": option,
        "options": [option],
        "skipUrlSync": False,
    }


def found(name: str, *, label: str, sql: str, several: bool) -> Json:
    """One value, or several and all, of those that a question to Postgres finds."""
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    first = {"selected": False, "text": "", "value": ""}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": POSTGRES_TYPE, "uid": "${database}"},
        "query": sql,
        "refresh": 2,
        "hide": 0,
        "includeAll": several,
        "multi": several,
        "current": everything if several else first,
        "options": [],
        "regex": "",
        "sort": 0,
        "skipUrlSync": False,
    }


PROMETHEUS: Final = source("datasource", label="Prometheus", kind="prometheus")
POSTGRES: Final = source("database", label="Postgres", kind=POSTGRES_TYPE)
WINDOW: Final = choice("window", label="Averaged over", values=WINDOWS)
