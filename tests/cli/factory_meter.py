"""A meter with a factory: two pools of one site, an update of the software, tokens and prices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.billing.town import contract_toml
from tests.cli.shell import Shell, shell_of, to_iso
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller
from tokenworks.client.clock import time_ns

# Two hours ago, in an interval that has ended.
BEGIN_MS: Final = (time_ns() // 1_000_000 // EDGE_MS - 8) * EDGE_MS
UPDATE_MS: Final = BEGIN_MS + EDGE_MS
END_MS: Final = BEGIN_MS + 2 * EDGE_MS
SPAN: Final = ("--since", to_iso(BEGIN_MS), "--until", to_iso(END_MS))
# 5 kW for a quarter of an hour.
INTERVAL_MJ: Final = 5_000 * 900 * 1_000
FACTORY: Final = f"""
format = 1
from = {to_iso(BEGIN_MS - 4 * EDGE_MS)}
[sites.oslo]
contracted_watts = 15_000
pue = "1.25"
reserved_watts = {{ free = 500 }}
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
[pools.a100]
site = "oslo"
hardware = "A100"
"""
# 700 tokens a second, then 5,000, of two tiers whose shares move.
TOKENS: Final = (
    ("h100", BEGIN_MS, {"medium": 441_000, "high": 189_000}),
    ("h100", UPDATE_MS, {"medium": 4_050_000, "high": 450_000}),
    ("a100", BEGIN_MS, {"medium": 200_000, "free": 115_000}),
)


@contextmanager
def running_factory(cluster: Cluster, folder: Path) -> Iterator[RunningMeter]:
    """Run it, with all that is reported counted and attributed."""
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        shell = shell_of(meter)
        _sell(shell, folder)
        _describe(shell, folder)
        caller = EnergyCaller(meter)
        for pool, start_ms, tokens in TOKENS:
            caller.measure(INTERVAL_MJ, start_ms=start_ms, pool=pool)
            for tier, count in tokens.items():
                place = ("--pool", pool, "--end-time", to_iso(start_ms + 1_000))
                shell.record("--output", str(count), *place, tier=tier)
        # Energy without tokens: what a pool takes for standing there.
        caller.measure(INTERVAL_MJ, start_ms=UPDATE_MS, pool="a100")
        caller.session.counted()
        caller.wait_until_attributed(start_ms=BEGIN_MS, end_ms=END_MS)
        yield meter


def _sell(shell: Shell, folder: Path) -> None:
    shell.run("prices", "import", "keynote")
    contract = folder / "contract.toml"
    acme = shell.run_json("accounts", "show", "acme")["account"]
    toml = contract_toml(covers=acme, start="2026-02-01T00:00:00", book="keynote")
    contract.write_text(toml, "utf-8")
    shell.run("contracts", "set", str(contract))


def _describe(shell: Shell, folder: Path) -> None:
    description = folder / "factory.toml"
    description.write_text(FACTORY, "utf-8")
    shell.run("factory", "set", str(description))
    for software, at_ms in (("vllm 0.10", BEGIN_MS - EDGE_MS), ("vllm 0.11", UPDATE_MS)):
        shell.run("factory", "mark", "h100", software, "--at", to_iso(at_ms))
