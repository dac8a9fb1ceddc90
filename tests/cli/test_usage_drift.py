"""`tokenworks usage drift`, and an invoice that waits for what engines counted otherwise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.billing.town import contract_toml
from tests.cli.shell import Shell
from tests.engine_page import Replica, running_replica
from tests.running_meter import running_meter_on

MODEL = "llama-4"
# The last hour of October and the first of November.
SPAN = ("--since", "2026-10-31T23:00", "--until", "2026-11-01")
SETTINGS = {"sandbox_clock": "2026-10-31T23:00:00Z", "engine_drift_hold_ppm": "10000"}


@pytest.fixture
def replica() -> Iterator[Replica]:
    """A replica of an engine."""
    with running_replica() as running:
        yield running


@pytest.fixture
def shell(database_url: str, tmp_path: Path, replica: Replica) -> Iterator[Shell]:
    """A shell of a sandbox that reads the replica, with an account that has a contract."""
    settings = {**SETTINGS, "engines": f"h100={replica.url}"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        shell = Shell(meter.target, meter.api_key)
        shell.run("accounts", "create", "acme", "--id", "acme")
        contract = tmp_path / "acme.toml"
        contract.write_text(
            contract_toml(zone="UTC", book="keynote", start="2026-10-31T23:00:00"), "utf-8"
        )
        shell.run("prices", "import", "keynote")
        shell.run("contracts", "set", str(contract))
        yield shell


def test_drift__holds_an_invoice_until_it_is_let_go(shell: Shell, replica: Replica) -> None:
    """What engines made and nobody reported is shown, and holds the month until it is approved."""
    nothing = shell.run("usage", "drift", *SPAN).stdout
    assert nothing.startswith("No engine was read in 2026-10-31 23:00 to 2026-11-01 00:00 UTC")
    replica.process.serve(prompt=9_000, output=1_000, model=MODEL)
    # One in fifty went away.
    place = ("--pool", "h100", "--end-time", "2026-10-31T23:00:00Z")
    shell.record("--input", "9000", "--output", "980", *place)
    shell.run("billing", "clock", "--to", "2026-11-01T01:00")
    shell.show("--since", "2026-10-31T23:00", "--until", "2026-11-01", requests=1)
    shown = shell.run("usage", "drift", *SPAN).stdout.splitlines()
    cells = [line.split() for line in shown]
    assert ["h100", MODEL, "output", "1,000", "980", "+20", "+20,000"] in cells
    assert ["h100", MODEL, "prompt", "9,000", "9,000", "+0", "+0"] in cells
    assert shown[-1] == "h100: compared 1 h from 2026-10-31 23:00 to 2026-11-01 00:00 UTC"
    output, _ = shell.run_json("usage", "drift", *SPAN)["drifts"]
    assert (output["kind"], output["drift_tokens"], output["drift_ppm"]) == ("output", 20, 20_000)
    held = shell.run("billing", "close", "2026-10", "--early", code=3).stdout
    assert "held: engines counted otherwise" in held
    assert f"the engines of h100 counted 20 output tokens of {MODEL} more than were" in held
    # Nobody lets go what may still be reported.
    shell.run("billing", "clock", "--to", "2026-11-04")
    let_go = ("invoices", "approve", "acme-2026", "2026-10", "--reason", "an engine was tried out")
    assert "issued" in shell.run(*let_go).stdout
