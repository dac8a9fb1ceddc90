"""The page of the events that a meter logs."""

from typing import Final

from cli.log_events import CATALOGUE, FIELDS
from docs.pages.page import codes, make_page, make_table
from meter.domain.limits import REFUSALS_LOGGED_MAX
from meter.log_events import CONTEXT, Level

_OF_CALLS: Final = ", ".join(f"`{name}`" for name in CONTEXT)
_INTRODUCTION: Final = f"""\
A meter logs to stderr, a line an event: when, its level, who logs it, the event's name, and its \
fields. A name is never made of values, so that it can be looked for and counted. With \
`TOKENWORKS_LOG_FORMAT=json` a line is an object with `time`, `level`, `logger`, `event`, the \
fields by their names, and `traceback` where there is one. `TOKENWORKS_LOG_LEVEL` is the least \
that is logged. The libraries that Tokenworks stands on speak from a warning on, in lines of other \
names.

What belongs to a call has {_OF_CALLS} as well. A field that has no value is left out. No \
line has an API key, or what an event says of usage. Of calls that end in an error at most \
{REFUSALS_LOGGED_MAX} a second have a line, and the rest is told as a number."""


def make_log_events_page() -> str:
    """Return the page: the events by their names, and what their fields mean."""
    order = {level: place for place, level in enumerate(reversed(Level))}
    events = [
        (f"`{event.name}`", str(event.level), codes(event.fields), event.meaning)
        for event in sorted(CATALOGUE, key=lambda it: (order[it.level], it.name))
    ]
    fields = [(f"`{name}`", FIELDS[name]) for name in sorted(FIELDS)]
    return make_page(
        "Log events",
        source="`meter/log_events.py` and `cli/log_events.py`",
        body=[
            _INTRODUCTION,
            make_table(("Event", "Level", "Fields", "Meaning"), events),
            "## Fields",
            make_table(("Field", "Meaning"), fields),
        ],
    )
