"""Compares what a fleet says it reported with a meter's journal and its usage, to the token.

    python tests/acceptance/checker.py --database-url URL TRUTH...

Written against the data alone: the standard library and psycopg, nothing of the product. TRUTH are
files of JSON lines, or folders of `*.jsonl`; a line with "sign": -1 takes such an event back.
Prints a table by account, tier and class; ends with 1 and names the first difference when there is
any.
"""

import argparse
import itertools
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

# Token classes by their number on the wire (usage.proto); usage has a column of each name.
CLASSES: Final = {
    1: "input",
    2: "cache_read",
    3: "cache_write_5m",
    4: "cache_write_30m",
    5: "cache_write_1h",
    6: "cache_write_12h",
    7: "output",
    8: "reasoning",
    20: "audio_input",
    21: "audio_cache_read",
    22: "audio_output",
    30: "image_input",
    31: "image_cache_read",
    32: "image_output",
    40: "video_input",
    41: "video_output",
}
MODES: Final = {1: "online", 2: "batch"}
REQUESTS: Final = "requests"
_INTERVAL_MS: Final = 900_000


class Place(NamedTuple):
    """Where tokens are counted: everything that a price or a question can depend on."""

    account: str
    tier: str
    model: str
    mode: str
    interval_ms: int


@dataclass
class Ledger:
    """Sums by place and class (and `requests`), and how often each request id occurs."""

    sums: dict[Place, Counter[str]] = field(default_factory=dict)
    request_ids: Counter[str] = field(default_factory=Counter)

    def add(self, place: Place, *, counts: dict[str, int]) -> None:
        """Add counts of one or more requests; those of 0 are left out."""
        self.sums.setdefault(place, Counter()).update({k: v for k, v in counts.items() if v})


class Row(NamedTuple):
    """An event of a segment."""

    dimension_id: int
    end_ms: int
    counts: dict[str, int]
    request_id: str
    # 1 counts it; -1 takes back one that was counted.
    sign: int = 1


class SegmentUnreadable(ValueError):
    """A segment's bytes are not as docs/internals/journal.md says."""


def main(arguments: list[str]) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare truth files with a meter's database.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("truth", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    truth = read_truth(options.truth)
    with psycopg.connect(options.database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        journal, faults = read_journal(connection)
        usage = read_usage(connection)
    sys.stdout.write(table(truth, journal=journal, usage=usage))
    found = [*faults, *differences(truth, journal=journal, usage=usage)]
    if found:
        sys.stdout.write(f"{len(found)} differences, the first: {found[0]}\n")
        return 1
    requests = sum(truth.request_ids.values())
    sys.stdout.write(f"truth = journal = usage, {requests} requests\n")
    return 0


def read_truth(paths: Iterable[Path]) -> Ledger:
    """Add up truth files: what was about to be reported, a JSON object a line."""
    ledger = Ledger()
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        for line in itertools.chain.from_iterable(map(_lines, files)):
            event = json.loads(line)
            sign = event.get("sign", 1)
            ledger.add(
                Place(
                    account=event["account"],
                    tier=event["tier"],
                    model=event["model"],
                    mode=event["mode"],
                    interval_ms=_interval_ms(event["end_time_ms"]),
                ),
                counts=_times(sign, {REQUESTS: 1, **event["classes"]}),
            )
            ledger.request_ids[event["request_id"]] += sign
    return ledger


def read_journal(connection: psycopg.Connection) -> tuple[Ledger, list[str]]:
    """Add up every event of the journal; also returns what is wrong with its form."""
    dimensions = _dimensions(connection)
    ledger, faults = Ledger(), []
    expected: Counter[int] = Counter()
    with connection.cursor(name="journal") as cursor:
        cursor.itersize = 8
        cursor.execute(
            "SELECT shard, position, event_count, body FROM journal ORDER BY shard, position"
        )
        for shard, position, event_count, body in cursor:
            expected[shard] += 1
            if position != expected[shard]:
                faults.append(f"journal: shard {shard} has no position {expected[shard]}")
                expected[shard] = position
            rows = read_segment(body)
            if len(rows) != event_count:
                faults.append(
                    f"journal: {len(rows)} events at {shard}/{position}, not {event_count}"
                )
            for row in rows:
                place = Place(*dimensions[row.dimension_id], _interval_ms(row.end_ms))
                ledger.add(place, counts=_times(row.sign, {REQUESTS: 1, **row.counts}))
                ledger.request_ids[row.request_id] += row.sign
    return ledger, faults + _positions(connection, read=expected)


def read_usage(connection: psycopg.Connection) -> Ledger:
    """Add up the usage table; it knows no request ids."""
    names = (*CLASSES.values(), "request_count")
    sums = sql.SQL(", ").join(
        sql.SQL("sum(u.{})::bigint").format(sql.Identifier(name)) for name in names
    )
    statement = sql.SQL(
        "SELECT u.account_id, s.tier, s.model, s.mode,"
        " (extract(epoch FROM u.interval_start) * 1000)::bigint, {} "
        "FROM usage u JOIN skus s USING (sku_id) GROUP BY 1, 2, 3, 4, 5"
    ).format(sums)
    ledger = Ledger()
    for account, tier, model, mode, interval_ms, *counts in connection.execute(statement):
        ledger.add(
            Place(account, tier, model, MODES[mode], interval_ms),
            counts=dict(zip((*CLASSES.values(), REQUESTS), counts, strict=True)),
        )
    return ledger


def read_segment(body: bytes) -> list[Row]:
    """Decode a segment (docs/internals/journal.md); raises SegmentUnreadable."""
    version, header_size = struct.unpack_from("<BI", body)
    if version not in {1, 2, 3}:
        raise SegmentUnreadable(f"version {version}")
    start = struct.calcsize("<BI")
    header = json.loads(body[start : start + header_size])
    event_count = sum(batch[-1] for batch in header["batches"])
    at = start + header_size
    columns: dict[str, list[int]] = {}
    for name, half_bytes, base, first, *above in header["columns"]:
        unsigned, at = _planes(body, at=at, half_bytes=half_bytes, count=event_count)
        if above:
            at = _add_above(unsigned, body, at=at, half_bytes=half_bytes, above=above)
        values = [base + value for value in unsigned]
        if first is not None:
            values = list(itertools.accumulate(values, initial=first))[1:]
        columns[name] = values
    if ("sign" in columns) is not (version == 2):
        raise SegmentUnreadable("signs are what version 2 has, and it alone")
    at += header["event_ids"]
    ids_text = body[at : at + header["request_ids"]]
    if at + header["request_ids"] != len(body):
        raise SegmentUnreadable(f"{len(body)} bytes, {at + header['request_ids']} by its header")
    request_ids = ids_text.decode().split("\n") if ids_text else [""] * event_count
    return _rows(columns, request_ids=request_ids)


def differences(truth: Ledger, *, journal: Ledger, usage: Ledger) -> list[str]:
    """Name every difference; none means that all three agree."""
    found = []
    for place in sorted(truth.sums.keys() | journal.sums.keys() | usage.sums.keys()):
        ledgers = [ledger.sums.get(place, Counter()) for ledger in (truth, journal, usage)]
        for name in sorted(set().union(*ledgers)):
            counts = [ledger[name] for ledger in ledgers]
            if len(set(counts)) > 1:
                found.append(f"{_name(place)}: {name} {_three(counts)}")
    for request_id in sorted(truth.request_ids.keys() | journal.request_ids.keys()):
        times = (truth.request_ids[request_id], journal.request_ids[request_id])
        if times[0] != times[1]:
            found.append(f"request {request_id!r}: {times[0]} × in truth, {times[1]} × in journal")
    return found


def table(truth: Ledger, *, journal: Ledger, usage: Ledger) -> str:
    """Lay out the sums by account, tier and class, a line each."""
    coarse = [_by_account_and_tier(ledger) for ledger in (truth, journal, usage)]
    lines = [f"{'account':<24} {'tier':<10} {'class':<16}{'truth':>14}{'journal':>14}{'usage':>14}"]
    for key in sorted(set().union(*coarse)):
        account, tier, name = key
        counts = [sums[key] for sums in coarse]
        mark = "" if len(set(counts)) == 1 else "  differs"
        numbers = "".join(f"{count:>14}" for count in counts)
        lines.append(f"{account:<24} {tier:<10} {name:<16}{numbers}{mark}")
    return "\n".join(lines) + "\n"


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _interval_ms(end_ms: int) -> int:
    return end_ms // _INTERVAL_MS * _INTERVAL_MS


def _dimensions(connection: psycopg.Connection) -> dict[int, tuple[str, str, str, str]]:
    rows = connection.execute(
        "SELECT d.dimension_id, d.account_id, s.tier, s.model, s.mode "
        "FROM dimensions d JOIN skus s USING (sku_id)"
    )
    return {
        number: (account, tier, model, MODES[mode]) for number, account, tier, model, mode in rows
    }


def _positions(connection: psycopg.Connection, *, read: Counter[int]) -> list[str]:
    """Name the shards whose head or count is not where the journal ends."""
    rows = connection.execute(
        "SELECT s.shard, s.position, coalesce(c.position, 0) "
        "FROM shards s LEFT JOIN counting c USING (shard) ORDER BY 1"
    )
    return [
        f"shard {shard}: head at {head}, counted up to {counted}, journal ends at {read[shard]}"
        for shard, head, counted in rows
        if not head == counted == read[shard]
    ]


def _planes(body: bytes, *, at: int, half_bytes: int, count: int) -> tuple[list[int], int]:
    """Return unsigned numbers from their planes, least significant first, and where they end."""
    values = [0] * count
    for plane in range(half_bytes // 2):
        for index, byte in enumerate(body[at : at + count]):
            values[index] |= byte << (8 * plane)
        at += count
    if half_bytes % 2:
        shift = 4 * (half_bytes - 1)
        for index in range(count):
            byte = body[at + index // 2]
            values[index] |= (byte >> 4 if index % 2 else byte & 0x0F) << shift
        at += (count + 1) // 2
    return values, at


def _add_above(
    values: list[int], body: bytes, *, at: int, half_bytes: int, above: list[int]
) -> int:
    """Add to single numbers what is above their planes; returns where that ends."""
    count, above_half_bytes = above
    place_half_bytes = ((len(values) - 1).bit_length() + 3) // 4
    places, at = _planes(body, at=at, half_bytes=place_half_bytes, count=count)
    numbers, at = _planes(body, at=at, half_bytes=above_half_bytes, count=count)
    for place, number in zip(places, numbers, strict=True):
        values[place] |= number << (4 * half_bytes)
    return at


def _rows(columns: dict[str, list[int]], *, request_ids: list[str]) -> list[Row]:
    tokens = {
        CLASSES[int(name.removeprefix("tokens."))]: values
        for name, values in columns.items()
        if name.startswith("tokens.")
    }
    signs = columns.get("sign", [1] * len(request_ids))
    if not set(signs) <= {-1, 1}:
        raise SegmentUnreadable("a sign is 1 or -1")
    return [
        Row(
            dimension,
            end_ms,
            {name: values[index] for name, values in tokens.items()},
            request_id,
            sign,
        )
        for index, (dimension, end_ms, request_id, sign) in enumerate(
            zip(columns["dimension"], columns["end_ms"], request_ids, signs, strict=True)
        )
    ]


def _times(sign: int, counts: dict[str, int]) -> dict[str, int]:
    return {name: sign * count for name, count in counts.items()}


def _by_account_and_tier(ledger: Ledger) -> Counter[tuple[str, str, str]]:
    sums: Counter[tuple[str, str, str]] = Counter()
    for place, counts in ledger.sums.items():
        for name, count in counts.items():
            sums[place.account, place.tier, name] += count
    return sums


def _name(place: Place) -> str:
    return f"{place.account} {place.tier} {place.model} {place.mode} at {place.interval_ms}"


def _three(counts: list[int]) -> str:
    return "truth {} · journal {} · usage {}".format(*counts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
