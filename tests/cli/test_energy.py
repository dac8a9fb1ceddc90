"""`tokenworks energy show|sources`: the real command against a real meter and an exporter."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cli.energy.question import GROUPS
from cli.process import Exit
from tests.billing.town import contract_toml
from tests.cli.shell import Shell, shell_of, to_iso
from tests.exporter import Exporter, running_exporter
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller, reading
from tests.wire.talk import wait_until
from tokenworks.client.clock import time_ns

# Two hours ago, in an interval that has ended.
BEGIN_MS = (time_ns() // 1_000_000 // EDGE_MS - 8) * EDGE_MS
SPAN = ("--since", to_iso(BEGIN_MS), "--until", to_iso(BEGIN_MS + 2 * EDGE_MS))


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    """An exporter with two boards."""
    with running_exporter() as running:
        running.boards = {"GPU-1": 5, "GPU-2": 7}
        yield running


@pytest.fixture(scope="module")
def meter(
    cluster: Cluster, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter with two pools, of which one has energy, that reads the exporter."""
    settings = {"energy_sources": f"h100={exporter.url}", "energy_scrape_seconds": "1"}
    folder = tmp_path_factory.mktemp("energy")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        caller = EnergyCaller(running)
        caller.measure(1_234_567, start_ms=BEGIN_MS)
        caller.record(reading(10**9, time_ms=BEGIN_MS + EDGE_MS, device="changed"))
        caller.record(reading(9, time_ms=BEGIN_MS + EDGE_MS + 65_000, device="changed"))
        shell = shell_of(running)
        for tier, output, pool in (("free", 100, "h100"), ("high", 300, "h100"), ("high", 7, "b")):
            place = ("--pool", pool, "--end-time", to_iso(BEGIN_MS))
            shell.record("--input", "1000", "--output", str(output), *place, tier=tier)
        caller.session.counted()
        caller.wait_until_attributed(start_ms=BEGIN_MS, end_ms=BEGIN_MS + 2 * EDGE_MS)
        yield running


@pytest.fixture
def shell(meter: RunningMeter) -> Shell:
    """A shell of whoever may do everything."""
    return Shell(meter.target, meter.api_key)


@pytest.fixture
def lonely_shell() -> Shell:
    """A shell whose meter does not run."""
    return Shell("127.0.0.1:1", "none")


def cells_of(shown: str) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in shown.splitlines() if line.strip(" ─")]


def test_show__tokens_and_energy_by_tier(shell: Shell) -> None:
    """The table has each tier's tokens, energy and ratio, and their totals."""
    lines = cells_of(shell.run_process("energy", "show", *SPAN, "--pool", "h100").stdout)
    assert lines[0][:5] == ["energy", "of", "boards", "of", "h100,"]
    titles = ["tier", "output tokens", "all tokens", "energy (kJ)", "output tokens/J"]
    assert " ".join(lines[1]) == " ".join(titles)
    assert lines[2:5] == [
        ["free", "100", "1,100", "0.309", "0.324"],
        ["high", "300", "1,300", "0.926", "0.324"],
        ["total", "400", "2,400", "1.235", "0.324"],
    ]


def test_show__measured_is_attributed_and_unattributed(shell: Shell) -> None:
    """Below the table each pool's energy adds up to the millijoule, and what went wrong is told."""
    shown = shell.run("energy", "show", *SPAN).stdout
    assert (
        "h100: measured 1,234.576 J = attributed 1,234.567 J + unattributed 0.009 J"
        " (no tokens 0.009 J)"
    ) in shown
    # Of the second interval a minute was measured.
    assert (
        "h100: counters that began anew or leapt: 1; intervals in no ratio, not valid or not"
        " attributed yet: 1 of 2\n"
    ) in shown
    assert "attributed until 20" in shown


def test_show__without_energy_there_is_no_ratio(shell: Shell) -> None:
    """Where no energy is known, a dash stands for it and for the ratio: neither 0 nor infinite."""
    shown = cells_of(shell.run("energy", "show", *SPAN, "--by", "pool,tier").stdout)
    assert ["b", "high", "7", "1,007", "-", "-"] in shown
    (row,) = shell.run_json("energy", "show", *SPAN, "--pool", "b")["rows"]
    assert (row["energy_mj"], row["output_tokens_per_joule"]) == (None, None)
    # Its tokens are no part of the total's ratio.
    assert ["total", "407", "3,407", "1.235", "0.324"] in shown


def test_show__as_json(shell: Shell) -> None:
    """JSON has whole millijoules, and the same sums."""
    said = shell.run_json("energy", "show", *SPAN, "--by", "tier,interval", "--pool", "h100")
    assert said["rows"][0] == {
        "tier": "free",
        "start_time": to_iso(BEGIN_MS),
        "input_tokens": 1_000,
        "cached_tokens": 0,
        "output_tokens": 100,
        "total_tokens": 1_100,
        "request_count": 1,
        "energy_mj": 308_642,
        "idle_mj": 0,
        "attributed_output_tokens": 100,
        "valid_energy_mj": 308_642,
        "valid_output_tokens": 100,
        "output_tokens_per_joule": 100_000 / 308_642,
    }
    assert said["boundary"] == "board"
    first, second = said["pools"]
    assert first == {
        "pool": "h100",
        "start_time": to_iso(BEGIN_MS),
        "measured_mj": 1_234_567,
        "estimated_mj": 0,
        "attributed_mj": 1_234_567,
        "unattributed_mj": {},
        "gap_ms": 0,
        "reset_count": 0,
        "interval_count": 1,
        "valid_interval_count": 1,
    }
    assert (second["start_time"], second["reset_count"]) == (to_iso(BEGIN_MS + EDGE_MS), 1)
    assert second["unattributed_mj"] == {"no_tokens": 9}
    assert said["attributed_until"] > said["end_time"]


def test_show__by_everything(shell: Shell) -> None:
    """Rows can be split by each thing, which is then a column and a field of its own."""
    for name in GROUPS:
        row = shell.run_json("energy", "show", *SPAN, "--by", name)["rows"][0]
        assert ("start_time" if name in {"interval", "hour", "day"} else name) in row
        title = cells_of(shell.run("energy", "show", *SPAN, "--by", name).stdout)[1]
        assert title[0] == name


def test_show__of_hosts_and_by_account(shell: Shell) -> None:
    """Hosts have no energy here; tokens can be split by who they were for; times are one below."""
    of_hosts = ("energy", "show", *SPAN, "--boundary", "host")
    (row,) = shell.run_json(*of_hosts, "--by", "account")["rows"]
    (acme,) = [it for it in shell.run_json("accounts", "list") if it["path"] == "acme"]
    assert (row["account"], row["output_tokens"]) == (acme["account"], 407)
    assert (row["energy_mj"], row["output_tokens_per_joule"]) == (None, None)
    assert "energy of hosts of all pools" in shell.run(*of_hosts).stdout
    shown = shell.run("energy", "show", *SPAN, "--by", "interval").stdout
    assert shown.count("h100: measured 1,234.576 J") == 1
    assert (
        "energy of hosts of all pools" in shell.run("energy", "show", "--boundary", "host").stdout
    )


def test_show__nothing(shell: Shell) -> None:
    """Where there is nothing, the reader is told what to type next."""
    shown = shell.run("energy", "show", "--pool", "none").stdout
    assert "No tokens of a pool were counted in this time." in shown
    assert "tokenworks energy sources" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "region"), "'region' is none of pool, tier, model"),
        (("--boundary", "rack"), "'rack' is not one of 'board', 'host'"),
        (("--by", "tier,tier"), "at most once"),
        (("--by", "day,hour"), "one of interval, hour and day"),
        (("--since", "yesterday"), "yesterday is no time"),
        (("--since", "1h", "--until", "2h"), "1h is not before 2h"),
    ],
)
def test_show__wrong_options(lonely_shell: Shell, words: tuple[str, ...], said: str) -> None:
    """What cannot be asked is a usage error that says what can."""
    assert said in lonely_shell.run("energy", "show", *words, code=Exit.USAGE).stderr


def test_show__without_role(shell: Shell) -> None:
    """An API key of an account may not ask: pools belong to nobody's account."""
    key = shell.run_json("keys", "create", "acme", "--role", "reader")["secret"]
    said = shell.run("energy", "show", "--api-key", key, code=Exit.REFUSED).stderr
    assert "SCOPE_MISSING" in said


def test_sources__exporters_pools_and_silent_devices(shell: Shell, exporter: Exporter) -> None:
    """Sources, how well each pool's power is known, and devices that are silent."""

    def has_read() -> bool:
        (source,) = shell.run_json("energy", "sources")["sources"]
        return source["device_count"] == 2 and source["failure"] is None

    wait_until(has_read)
    shown = cells_of(shell.run_process("energy", "sources").stdout)
    (source,) = (line for line in shown if exporter.url in line)
    assert (source[0], source[2], source[-1]) == ("h100", "2", "ok")
    # Two boards of the exporter, and two devices of hours ago.
    (pool,) = shell.run_json("energy", "sources")["pools"]
    assert (pool["pool"], pool["valid"], pool["device_count"]) == ("h100", False, 4)
    assert (pool["faults"], pool["cross_check_ratio"]) == (["stale"], None)
    assert ["h100", "not", "valid:", "stale"] in [line[:4] for line in shown]
    silent = shell.run_json("energy", "sources")["silent_devices"]
    assert {"pool": "h100", "device": "changed", "source": "reported"}.items() <= silent[-1].items()
    assert "changed" in shell.run("energy", "sources").stdout


def test_sources__exporter_away(shell: Shell, exporter: Exporter) -> None:
    """A source that cannot be read says why."""
    exporter.vanish()

    def is_away() -> bool:
        (source,) = shell.run_json("energy", "sources")["sources"]
        return bool(source["failure"] == "unreachable" and source["read_time"])

    wait_until(is_away)
    assert "unreachable" in shell.run("energy", "sources").stdout
    exporter.open()


def test_sources__none(empty_meter: RunningMeter) -> None:
    """Without any source the setting is named."""
    shown = Shell(empty_meter.target, empty_meter.api_key).run("energy", "sources").stdout
    assert "TOKENWORKS_ENERGY_SOURCES" in shown


def test_show__in_a_terminal(shell: Shell) -> None:
    """In a terminal no number is cut."""
    lines = shell.run_in_terminal("energy", "show", *SPAN, columns=100)
    shown = "\n".join(lines).split()
    assert {"total", "407", "3,407", "1.235"} <= set(shown)


def test_show__dollars_a_megawatt_hour(shell: Shell, tmp_path: Path) -> None:
    """Once usage has a price, tiers show what they earned, by the energy attributed to them."""
    shell.run("prices", "import", "keynote")
    contract = tmp_path / "acme.toml"
    toml = contract_toml(start="2026-02-01T00:00:00", book="keynote")
    contract.write_text(toml.replace('"id:acme"', '"/acme"'), "utf-8")
    shell.run("contracts", "set", str(contract))
    told = {row["tier"]: row for row in shell.run_json("energy", "show", *SPAN)["rows"]}
    # 2,307 tokens at 6 dollars a million, of which 1,300 are of a pool with energy.
    assert told["high"]["usd"] == "0.013842"
    expected = Decimal("0.0078") * 3_600_000_000_000 / told["high"]["energy_mj"]
    assert told["high"]["usd_per_mwh"] == f"{expected:.2f}"
    by_pool = shell.run_json("energy", "show", *SPAN, "--by", "pool,tier")["rows"]
    money = {(row["pool"], row["tier"]): (row["usd"], row["usd_per_mwh"]) for row in by_pool}
    assert money == {
        ("b", "high"): ("0.006042", None),
        ("h100", "free"): ("0", "0.00"),
        ("h100", "high"): ("0.0078", f"{expected:.2f}"),
    }
    (pool,) = shell.run_json("energy", "show", *SPAN, "--by", "pool", "--pool", "h100")["rows"]
    expected = Decimal("0.0078") * 3_600_000_000_000 / pool["energy_mj"]
    assert (pool["usd"], pool["usd_per_mwh"]) == ("0.0078", f"{expected:.2f}")
    assert told["free"]["usd_per_mwh"] == "0.00"
    assert "USD/MWh" in shell.run("energy", "show", *SPAN).stdout
    assert "USD" not in shell.run("energy", "show", "--by", "model", *SPAN).stdout


def test_usage__has_the_same_energy(shell: Shell) -> None:
    """Beside usage stands the energy that was attributed to it, to the millijoule."""
    energy = shell.run_json("energy", "show", *SPAN)["rows"]
    usage = shell.run_json("usage", "show", "--by", "tier", *SPAN)["rows"]
    attributed = {row["tier"]: row["energy_mj"] for row in energy}
    assert {row["tier"]: row["energy_mj"] for row in usage} == attributed
    assert sum(attributed.values()) == 1_234_567


def test_preview__tells_of_energy(shell: Shell, tmp_path: Path) -> None:
    """A preview tells of the boards' energy of a month once the contract asks for it."""
    shell.run("prices", "import", "keynote")
    contract = tmp_path / "acme.toml"
    start = "2026-02-01T00:00:00"
    month = to_iso(BEGIN_MS)[:7]
    for extra in ("", 'energy = "board"\n'):
        toml = contract_toml(start=start, zone="UTC", book="keynote", extra=extra)
        contract.write_text(toml.replace('"id:acme"', '"/acme"'), "utf-8")
        shell.run("contracts", "set", str(contract))
        told = shell.run("invoices", "preview", "acme", "--month", month).stdout
        assert ("0.0003429353 kWh of the accelerators’ boards" in told) is bool(extra)
        assert ("98.2 % of the output tokens" in told) is bool(extra)
