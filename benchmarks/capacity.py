"""What a factory of so many gigawatts asks of a meter: on paper, from what was measured.

`python -m benchmarks.capacity` writes the tables of docs/operating/capacity.md anew; a test holds
that they are fresh.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "operating" / "capacity.md"
_DAY_SECONDS: Final = 86_400
_INTERVALS_A_DAY: Final = 96
_GIGA: Final = 10**9
_TERA: Final = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One figure, with its unit and where it is from."""

    value: float
    unit: str
    source: str


# Bytes are the same on a busy machine; speeds are not, and these are of one at rest.
RATE: Final = Measured(
    value=1_780_000,
    unit="events a second",
    source="`ingest.stream`, 25 November 2026: two cores, with the client, the meter and Postgres"
    " on them, 10 s, batches of 10,000",
)
COPY_RATE: Final = Measured(
    value=10_500_000,
    unit="events a second",
    source="the bound of that row: binary COPY of the same bytes into one Postgres, nothing else",
)
JOURNAL_BYTES: Final = Measured(
    value=11.4, unit="bytes an event", source="`ingest.stream`, 25 November 2026, with its index"
)
WAL_BYTES: Final = Measured(
    value=27.6,
    unit="bytes an event",
    source="`ingest.stream`, 26 November 2026, on a busy machine: the journal's own, and usage's,"
    " of which there is the less an event the more events come",
)
WIRE_BYTES: Final = Measured(
    value=28.7, unit="bytes an event", source="the same run: what eight producers sent, in columns"
)
USAGE_BYTES: Final = Measured(
    value=722,
    unit="bytes a row",
    source="the same run, with indexes and what updates leave behind",
)
CLOSE_SECONDS: Final = Measured(
    value=51,
    unit="s for 100,000 invoices",
    source="`billing.close_100k`, 26 November 2026, `--jobs 2`",
)
MEASURED: Final = {
    "recorded and counted": RATE,
    "one Postgres takes at most": COPY_RATE,
    "journal": JOURNAL_BYTES,
    "write-ahead log": WAL_BYTES,
    "network": WIRE_BYTES,
    "usage": USAGE_BYTES,
    "closing": CLOSE_SECONDS,
}

# What is assumed of the factory and of whoever runs it.
TOKENS_A_SECOND_A_GIGAWATT: Final = 700_000_000
TOKENS_AN_EVENT: Final = 1_000
BATCH_EVENTS: Final = 10_000
# Rows of usage that an interval touches: accounts × models × tiers that were active in it.
ROWS_AN_INTERVAL: Final = 20_000
# A server is given half of what it bears: the other half is for what comes back after an outage.
LOAD: Final = 0.5
# What a database is given of what COPY alone would do.
DATABASE_LOAD: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a factory asks for; bytes are decimal."""

    gigawatts: int
    events_a_second: float
    batches_a_second: float
    network_bytes_a_second: float
    journal_bytes_a_day: float
    wal_bytes_a_second: float
    usage_bytes_a_year: float
    databases: int
    servers: int


def demand_of(gigawatts: int) -> Demand:
    """Return what so many gigawatts ask for."""
    events = gigawatts * TOKENS_A_SECOND_A_GIGAWATT / TOKENS_AN_EVENT
    usage_rows = ROWS_AN_INTERVAL * _INTERVALS_A_DAY * 365
    databases = math.ceil(events / (COPY_RATE.value * DATABASE_LOAD))
    return Demand(
        gigawatts=gigawatts,
        events_a_second=events,
        batches_a_second=events / BATCH_EVENTS,
        network_bytes_a_second=events * WIRE_BYTES.value,
        journal_bytes_a_day=events * JOURNAL_BYTES.value * _DAY_SECONDS,
        wal_bytes_a_second=events * WAL_BYTES.value,
        usage_bytes_a_year=usage_rows * USAGE_BYTES.value * databases,
        databases=databases,
        # One more than the load needs, for each database: either may die.
        servers=databases * (1 + math.ceil(events / databases / (RATE.value * LOAD))),
    )


def measured_table() -> str:
    """Return what was measured, as a table."""
    rows = [f"| {what} | {it.value:,} {it.unit} | {it.source} |" for what, it in MEASURED.items()]
    return "\n".join(["| | measured | how |", "| --- | --- | --- |", *rows])


def demand_table(*gigawatts: int) -> str:
    """Return what each size asks for, as a table."""
    demands = [demand_of(each) for each in gigawatts]
    rows = {
        "events a second": [f"{it.events_a_second / 1e6:,g} M" for it in demands],
        "batches a second": [f"{it.batches_a_second:,.0f}" for it in demands],
        "network, MB/s": [f"{it.network_bytes_a_second / 1e6:,.0f}" for it in demands],
        "journal, TB a day": [f"{it.journal_bytes_a_day / _TERA:,.2f}" for it in demands],
        "write-ahead log, MB/s": [f"{it.wal_bytes_a_second / 1e6:,.0f}" for it in demands],
        "usage, GB a year": [f"{it.usage_bytes_a_year / _GIGA:,.0f}" for it in demands],
        "databases": [str(it.databases) for it in demands],
        "meters, of two cores": [str(it.servers) for it in demands],
    }
    head = "| | " + " | ".join(f"{it.gigawatts} GW" for it in demands) + " |"
    lines = [f"| {what} | " + " | ".join(cells) + " |" for what, cells in rows.items()]
    return "\n".join([head, "| --- |" + " ---: |" * len(demands), *lines])


def made(text: str) -> str:
    """Return the page with its tables made anew."""
    for name, table in (("measured", measured_table()), ("demand", demand_table(1, 10, 100))):
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = block.subn(rf"\g<1>{table}\g<2>", text)
        assert count == 1, name
    return text


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text("utf-8")), "utf-8")
