"""Half an hour of chaos: faults of chance, always under load; memory must not grow, sums be exact.

    python -m tests.faults.soak [--seconds N] [--seed N] [--keep FOLDER]

Two meters on one database with a standby; see `tests.faults.chaos` for what is broken. The result
is put into build/faults.json as `soak`, and the memory of each sample into build/soak.json.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from meter.app import create_installation_key
from tests.faults import chaos, memory
from tests.faults.__main__ import table
from tests.faults.fleet import Sender
from tests.faults.plant import PEPPER, make_template
from tests.faults.proxy import Proxy
from tests.faults.row import Result, Row, Seen
from tests.faults.rows_failover import SETTING, STANDBY, follow
from tests.faults.rows_time import Clock
from tests.faults.running import run_row
from tests.faults.site import Site

SECONDS_DEFAULT: Final = 1_800.0
GROWTH_MAX: Final = 0.05
# Growth counts from minute 5 of the half hour on, and is told by windows of two minutes.
_FROM_SHARE: Final = 1 / 6
_WINDOW_SHARE: Final = 1 / 15
# A judge that reads all that was sent, in Python.
_JUDGE_SECONDS_MAX: Final = 900
_RATE: Final = 200
# What a producer that is killed has not promised yet, in seconds of its rate.
_BOUND_SECONDS: Final = 2.0
_REPORT: Final = Path("build") / "soak.json"
_OUT: Final = Path("build") / "faults.json"


class Soak:
    """One run; `act` is what a row does."""

    def __init__(self, *, seconds: float, seed: int) -> None:
        """Take how long it goes on, and the seed of chance."""
        self._seconds = seconds
        self._random = random.Random(seed)
        self.samples: dict[str, list[memory.Sample]] = {}
        self.counts: Counter[str] = Counter()

    def act(self, site: Site) -> Seen:
        """Break things until the time is over."""
        stage, east = _set_stage(site, self._random)
        sampler = memory.Sampler({"meter": stage.steady.pid, "producer": east.process.pid})
        try:
            self._break_things(stage, sampler)
        finally:
            sampler.end()
            self.samples = sampler.samples
        grown = {
            name: memory.growth(
                taken,
                from_seconds=self._seconds * _FROM_SHARE,
                window_seconds=self._seconds * _WINDOW_SHARE,
            )
            for name, taken in self.samples.items()
        }
        too_much = [name for name, share in grown.items() if share > GROWTH_MAX]
        told = ", ".join(f"{name} {share:+.1%}" for name, share in grown.items())
        return Seen(
            count=self.counts.total(),
            what=f"faults in {self._seconds / 60:.0f} min; memory since the first sixth: {told}",
            at_risk_max=round(stage.kills * _RATE * _BOUND_SECONDS),
            wrong=f"memory grew: {told}" if too_much else "",
        )

    def _break_things(self, stage: chaos.Stage, sampler: memory.Sampler) -> None:
        # Each once in the first pass, so that whatever takes memory has taken it early.
        waiting = list(chaos.FAULTS)
        self._random.shuffle(waiting)
        while sampler.seconds() < self._seconds:
            fault = waiting.pop() if waiting else self._random.choice(chaos.FAULTS)
            sys.stderr.write(f"{sampler.seconds():7.1f} s  {fault.__name__}\n")
            fault(stage)
            self.counts[fault.__name__] += 1
            chaos.wait_for_calm(stage)
            time.sleep(self._random.uniform(0.2, 2.0))


def run_soak(*, seconds: float, seed: int, folder: Path) -> tuple[Result, Soak]:
    """Run it in a new folder; returns what came of it, and what was seen on the way."""
    soak = Soak(seconds=seconds, seed=seed)
    row = Row(
        name="soak",
        fault="all of these at random: meters, Postgres, standby, networks, producers, clocks",
        how=f"one after the other from a seed ({seed}), always under load; two meters, a standby",
        expected="counted once; memory grows by less than 5 % after the first sixth",
        act=soak.act,
        behind_proxy=True,
        starts_itself=True,
        wants_doubled=False,
    )
    template = make_template(folder / "template")
    limit = round(seconds) + _JUDGE_SECONDS_MAX
    result = run_row(
        row, template=template, folder=folder / "soak", seconds=6, row_seconds_max=limit
    )
    return result, soak


def main(arguments: Sequence[str]) -> int:
    """Run it and write down what came of it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS_DEFAULT, help="how long it lasts")
    parser.add_argument("--seed", type=int, default=20261126, help="the seed of chance")
    parser.add_argument("--keep", type=Path, help="leave logs and databases in this new folder")
    parser.add_argument("--out", type=Path, default=_OUT, help="where the result goes")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = options.keep or Path(tempfile.mkdtemp(prefix="tokenworks-soak-"))
    try:
        result, soak = run_soak(seconds=options.seconds, seed=options.seed, folder=folder)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    _write(result, soak, options=options)
    sys.stdout.write(table({"soak": result}))
    sys.stdout.write(memory.table(soak.samples, step_seconds=options.seconds / 30))
    return 0 if result.ok or result.skipped else 1


def _write(result: Result, soak: Soak, *, options: argparse.Namespace) -> None:
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(out.read_text("utf-8")) if out.exists() else {}
    out.write_text(json.dumps({**known, "soak": asdict(result)}, indent=2) + "\n", "utf-8")
    told = {
        "seconds": options.seconds,
        "seed": options.seed,
        "faults": dict(sorted(soak.counts.items())),
        "resident_bytes": {
            name: [[round(it.seconds, 1), it.resident_bytes] for it in taken]
            for name, taken in soak.samples.items()
        },
    }
    out.with_name(_REPORT.name).write_text(json.dumps(told) + "\n", "utf-8")


def _set_stage(site: Site, chance: random.Random) -> tuple[chaos.Stage, Sender]:
    """Start two meters, a standby and four producers; returns them, and the one nobody touches."""
    site.start(meter_environment={SETTING: STANDBY})
    replication = Proxy(f"127.0.0.1:{site.database.port}")
    site.later(replication.close)
    standby = follow(site, replication)
    site.later(standby.close)
    other_clock = Clock(site, name="other-clock")
    producer_clock = Clock(site, name="producer-clock")
    url = site.meter.settings["TOKENWORKS_DATABASE_URL"]
    environment = {SETTING: STANDBY, **other_clock.environment}
    other = site.make_meter("other", url=url, environment=environment)
    other.start()
    other_proxy = Proxy(other.grpc)
    site.later(other_proxy.close)

    def start_mortal() -> Sender:
        number = sum(sender.name.startswith("north") for sender in site.senders)
        return site.report(
            f"north-{number}", producer="north", target=other_proxy.address, rate=_RATE
        )

    east = site.report("east", rate=_RATE)
    site.call("unary", rate=_RATE // 2)
    stage = chaos.Stage(
        site=site,
        random=chance,
        steady=site.meter,
        other=other,
        other_proxy=other_proxy,
        standby=standby,
        replication=replication,
        start_mortal=start_mortal,
        mortal=start_mortal(),
        clocked=site.report(
            "west",
            target=other_proxy.address,
            rate=_RATE,
            environment=producer_clock.environment,
        ),
        producer_clock=producer_clock,
        other_clock=other_clock,
        hostile_key=create_installation_key(
            site.database.url, key_pepper=PEPPER, description="for whoever is hostile"
        ),
    )
    return stage, east


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
