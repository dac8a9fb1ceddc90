"""Hostile clients with a valid key, while honest producers keep their pace."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from meter.app import create_installation_key
from tests.faults.fleet import ROOT
from tests.faults.openings import LINE_SECONDS
from tests.faults.plant import PEPPER
from tests.faults.reporter import Orders
from tests.faults.row import Seen, row
from tests.faults.site import Site, latencies_ms, p99
from tests.faults.waiting import wait_until

# Honest producers' 99th percentile may grow by this factor, or to this time, whichever is more: one
# machine of two cores runs the attack, the meter, Postgres and the honest producers.
RATIO_MAX: Final = 5.0
P99_MS_MAX: Final = 1_000.0
_ATTACK_SECONDS: Final = 12.0
# A thousand streams take a while to open.
_ATTACK_SECONDS_MIN: Final = 8.0
# A key may open 4,096 streams before its openings have a pace, a few hundred a second.
_REACHED_SECONDS_MAX: Final = 90.0
# What it may have written down and not sent when it is killed, by what its lines begin with.
_AT_RISK: Final = {"new": 1_000, "claimed": 16_000}
_WHAT: Final = {
    "refused": "bombs refused",
    "new": "new dimensions",
    "flood": "times answered",
    "claimed": "new ids",
}
_HONEST: Final = f"honest p99 grows at most {RATIO_MAX:g}-fold or to {P99_MS_MAX / 1000:g} s"


@row(
    "hostile-bombs",
    fault="messages of 300 MB, and gzip bombs that unpack to 64 MB, without a pause",
    how="a client with a valid key, on calls and on streams",
    expected=f"each is refused; {_HONEST}",
)
def hostile_bombs(site: Site) -> Seen:
    """Bomb it."""
    return _attack(site, "bombs", good="refused")


@row(
    "hostile-slow-connections",
    fault="200 connections that speak a byte every half second",
    how="half never end their HTTP/2 preface, half open a stream and never end its first message",
    expected=f"they hold up nobody; {_HONEST}",
)
def hostile_slow(site: Site) -> Seen:
    """Be slow."""
    return _attack(site, "slow", good="slow")


@row(
    "hostile-idle-streams",
    fault="1,000 open streams of as many producers that never report anything",
    how="each opens its stream in order and then says nothing",
    expected=f"they hold up nobody; {_HONEST}",
)
def hostile_idle(site: Site) -> Seen:
    """Idle a thousand times."""
    return _attack(site, "idle", good="idle")


@row(
    "hostile-dimensions",
    fault="a flood of new dimensions: 1,000 unheard pools and regions in every batch",
    how="a producer with a valid key; its events are right otherwise",
    expected=f"they count like all others; {_HONEST}",
)
def hostile_dimensions(site: Site) -> Seen:
    """Flood the dictionaries."""
    return _attack(site, "dimensions", good="new")


@row(
    "hostile-batches",
    fault="a flood of batches: 50 streams send them as fast as they are taken",
    how="a client with a key of its own; the batches are empty, and numbered in order",
    expected=f"each producer goes at its pace; {_HONEST}",
)
def hostile_batches(site: Site) -> Seen:
    """Flood the streams."""
    return _attack(site, "batches", good="flood")


@row(
    "hostile-calls",
    fault="a flood of tiny calls: 256 callers, each again as soon as it is answered",
    how="a client with a key of its own asks for the usage of a quarter of an hour of 1970",
    expected=f"its key has so many calls a second, what is above waits; {_HONEST}",
)
def hostile_calls(site: Site) -> Seen:
    """Flood the calls."""
    return _attack(site, "calls", good="flood")


@row(
    "hostile-producers",
    fault="a flood of new producers: 3,072 at a time open a stream under a new name, and leave it",
    how="a client with a key of its own and frames made up before, until its openings are spent,"
    " and on",
    expected=f"a few of its openings are worked on at a time, so many a second; {_HONEST}",
)
def hostile_producers(site: Site) -> Seen:
    """Flood the register."""
    return _attack(site, "producers", good="flood", bound="openings")


@row(
    "hostile-claims",
    fault="a flood of event ids: 16 calls at a time with 1,000 events of new ids each",
    how="a client with a key of its own; its events are right, and counted",
    expected=f"as many of its events as a bound are worked on at a time; {_HONEST}",
)
def hostile_claims(site: Site) -> Seen:
    """Flood the index of ids."""
    return _attack(site, "claims", good="claimed")


def _attack(site: Site, name: str, *, good: str, bound: str | None = None) -> Seen:
    """Attack the site; where there is a `bound`, until that is reached, and as long again."""
    key = create_installation_key(site.database.url, key_pepper=PEPPER, description="mallory")
    honest = site.start_fleet()
    # The first seconds are a start's, not a pace.
    site.load(2)
    begin = time.monotonic()
    site.load(_ATTACK_SECONDS / 2)
    attack_begin = time.monotonic()
    seconds = max(site.scaled(_ATTACK_SECONDS), _ATTACK_SECONDS_MIN)
    lines = _run(site, name, api_key=key, seconds=seconds, meets_bound=bound is not None)
    attack_end = time.monotonic()
    wrong = site.drain()
    ratios = []
    for sender in honest:
        before = p99(latencies_ms(sender, begin=begin, end=attack_begin))
        during = p99(latencies_ms(sender, begin=attack_begin, end=attack_end))
        ratios.append(f"{sender.name} {before:.0f} → {during:.0f} ms")
        if during > max(RATIO_MAX * before, P99_MS_MAX):
            wrong = wrong or f"{sender.name}'s p99 grew from {before:.0f} to {during:.0f} ms"
    bad = [line for line in lines if not line.startswith(good)]
    wrong = wrong or (f"an attack was answered with {bad[0]!r}" if bad else "")
    count = sum(int(line.split()[1]) if good != "refused" else 1 for line in lines)
    if good in ("slow", "idle"):
        count = max((int(line.split()[1]) for line in lines), default=0)
    what = _WHAT.get(good, f"{good} peers at once")
    if good == "flood":
        what = f"{what}, {sum(int(line.split()[2]) for line in lines):,} of them refused"
    if bound is not None:
        what = f"{what}; at the bound of {bound}, a second: {_paces(lines, seconds=seconds)}"
    # It is killed in the midst of a batch, which it may have written down and not sent.
    site.killed.add("mallory")
    return Seen(
        count=count,
        what=f"{what}; p99 {', '.join(ratios)}",
        at_risk_max=_AT_RISK.get(good, 0),
        wrong=wrong,
    )


def _paces(lines: Sequence[str], *, seconds: float) -> str:
    """Say how fast the last seconds of a flood of openings were."""
    last = [line.split() for line in lines[-round(seconds / LINE_SECONDS) :]]
    answered, refused, tried, turned_away = (
        sum(int(words[place]) for words in last) / (len(last) * LINE_SECONDS)
        for place in (1, 2, 3, 4)
    )
    return (
        f"{tried:,.0f} tried, {answered - refused:,.0f} opened, {refused:,.0f} refused,"
        f" {turned_away:,.0f} turned away"
    )


def _run(site: Site, name: str, *, api_key: str, seconds: float, meets_bound: bool) -> list[str]:
    """Run an attack for some seconds; returns the lines that it printed.

    Where it is to meet a bound, the seconds begin when something is refused. Raises TookTooLong
    where that does not come: the attack is too weak to prove anything.
    """
    orders = Orders(
        target=site.proxy.address,
        api_key=api_key,
        producer="mallory",
        truth=str(site.folder / "truth" / "mallory.jsonl"),
        latencies="",
    )
    out = Path(site.folder / "mallory.out")
    with out.open("wb") as file, (site.folder / "mallory.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.hostile", name, json.dumps(asdict(orders))],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=log,
            cwd=ROOT,
        )
        site.later(process.kill)
        if meets_bound:
            wait_until(
                lambda: any(line.split()[2] != "0" for line in _whole_lines(out)),
                seconds_max=_REACHED_SECONDS_MAX,
                what=f"{name} are refused",
            )
        time.sleep(seconds)
        process.kill()
        process.wait()
    return _whole_lines(out)


def _whole_lines(path: Path) -> list[str]:
    # A line that was under way when it was killed is none.
    return path.read_text("utf-8").split("\n")[:-1]
