"""The truth of a site, on disk before it is sent: enough to work every total out again.

`site.json` has each prepared batch with its tokens by account and class. Each line of `sent.jsonl`
is a moment, [ms, [server, batch, server, batch …]]; each of `energy.jsonl` a reading of all
counters, [ms, [mJ of each server's boards], [mJ of each of the site's meters]].
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from cli.simulate.site.batches import Prepared

_SITE: Final = "site.json"
_SENT: Final = "sent.jsonl"
_ENERGY: Final = "energy.jsonl"


class TokenKey(NamedTuple):
    """What tokens are told apart by; `token_class` is a word of the contract, in lower case."""

    account: str
    model: str
    tier: str
    token_class: str


@dataclass(slots=True, kw_only=True)
class Truth:
    """What a site has reported: requests and tokens, and mJ by pool and of the whole site."""

    events: Counter[str] = field(default_factory=Counter)
    """By tier."""
    tokens: Counter[TokenKey] = field(default_factory=Counter)
    energy_mj: Counter[str] = field(default_factory=Counter)
    facility_mj: int = 0


class TruthFiles:
    """Writes the files of a site; each line is with the system before what it tells of is sent."""

    def __init__(self, folder: Path, *, prepared: Sequence[Prepared], pools: Sequence[str]) -> None:
        """Write the site's batches; `pools` are those of the servers, in order."""
        batches = [
            {
                "tier": it.tier,
                "model": it.model,
                "events": it.event_count,
                "energy_mj": it.energy_mj,
                "tokens": it.tokens,
            }
            for it in prepared
        ]
        site = {"pools": pools, "batches": batches}
        (folder / _SITE).write_text(json.dumps(site) + "\n", "utf-8")
        self._sent = _open(folder / _SENT)
        self._energy = _open(folder / _ENERGY)

    def send(self, time_ms: int, sent: Sequence[int]) -> None:
        """Note what is about to be sent: a server's number, its batch's, the next server's …."""
        self._sent.write(f"[{time_ms},{list(sent)}]\n")
        self._sent.flush()

    def read_counters(self, time_ms: int, boards: Sequence[int], meters: Sequence[int]) -> None:
        """Note what the counters show, in mJ."""
        self._energy.write(json.dumps([time_ms, boards, meters]) + "\n")
        self._energy.flush()

    def close(self) -> None:
        """Close the files."""
        self._sent.close()
        self._energy.close()


def read_truth(folder: Path) -> Truth:
    """Add up the files of a site."""
    site = json.loads((folder / _SITE).read_text("utf-8"))
    times: Counter[int] = Counter()
    with (folder / _SENT).open(encoding="utf-8") as lines:
        for line in lines:
            times.update(json.loads(line)[1][1::2])
    truth = Truth()
    for number, count in times.items():
        batch = site["batches"][number]
        truth.events[batch["tier"]] += batch["events"] * count
        for account, classes in batch["tokens"].items():
            for word, tokens in classes.items():
                key = TokenKey(account, batch["model"], batch["tier"], word)
                truth.tokens[key] += tokens * count
    _add_energy(truth, folder / _ENERGY, pools=site["pools"])
    return truth


def _add_energy(truth: Truth, path: Path, *, pools: Sequence[str]) -> None:
    """Add what the counters gained from their first reading to their last."""
    readings = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    (_, boards_begin, meters_begin), (_, boards_end, meters_end) = readings[0], readings[-1]
    for pool, begin, end in zip(pools, boards_begin, boards_end, strict=True):
        truth.energy_mj[pool] += end - begin
    truth.facility_mj = sum(meters_end) - sum(meters_begin)


def _open(path: Path) -> TextIO:
    return path.open("x", encoding="utf-8")
