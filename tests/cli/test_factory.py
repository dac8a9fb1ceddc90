"""`tokenworks factory set|list|show` and `energy calibrate`: the real commands, a real meter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cli.process import Exit
from tests.cli.shell import Shell, shell_of, to_iso
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller, reading
from tests.wire.talk import wait_until
from tokenworks.meter.v1 import energy_service_pb2 as pb

# A sandbox's noon, which stands still.
NOON: Final = "2026-10-05T12:00:00Z"
NOON_MS: Final = 1_791_201_600_000
COUNT: Final = 12
BEGIN_MS: Final = NOON_MS - COUNT * EDGE_MS
SPAN: Final = ("--since", to_iso(BEGIN_MS), "--until", NOON)
FACTORY: Final = f"""
format = 1
from = {to_iso(BEGIN_MS)}
[sites.oslo]
contracted_watts = 1_000
pue = "1.2"
reserved_watts = {{ high = 200, premium = 100 }}
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
device_count = 1
idle_watts = "100"
idle = "unattributed"
"""


def tokens_at(place: int) -> tuple[int, int]:
    """Return the input and output tokens of an interval; one has none."""
    return (
        (0, 0) if place == 3 else (pow(5, place + 1, 10_007) * 100, pow(7, place + 1, 5_003) * 10)
    )


def joules_at(place: int) -> int:
    """Return what a board took that idles at 100 W, with 0.02 J a prompt's token and 0.5 J else."""
    prompt, output = tokens_at(place)
    return 100 * 900 + prompt // 50 + output // 2


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox whose pool was described, and measured for three hours."""
    folder = tmp_path_factory.mktemp("factory")
    settings = {"sandbox_clock": NOON, "tiers": "free,high,premium"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        shell = shell_of(running)
        said = shell.run("factory", "list").stdout
        assert "The factory is not described" in said
        (folder / "factory.toml").write_text(FACTORY, "utf-8")
        said = shell.run("factory", "set", str(folder / "factory.toml")).stdout
        assert said == "set version 1 from 2026-10-05 09:00:00Z: sites 1, pools 1, weights 0\n"
        shell.run("factory", "mark", "h100", "vllm 0.11.2")
        caller = EnergyCaller(running)
        counter_mj = 0
        caller.record(reading(0, time_ms=BEGIN_MS))
        for place in range(COUNT):
            prompt, output = tokens_at(place)
            counter_mj += joules_at(place) * 1_000
            caller.record(reading(counter_mj, time_ms=BEGIN_MS + (place + 1) * EDGE_MS))
            if output:
                place_words = ("--pool", "h100", "--end-time", to_iso(BEGIN_MS + place * EDGE_MS))
                shell.record("--input", str(prompt), "--output", str(output), *place_words)
        # Samples of another pool, the last of them too far from the one before.
        for place, gained_mj in ((0, 0), (1, 10**8), (6, 6 * 10**8)):
            at_ms = BEGIN_MS + place * EDGE_MS
            caller.record(reading(gained_mj, time_ms=at_ms, pool="sparse", device="of sparse"))
        meter_of_site = reading(0, time_ms=NOON_MS - EDGE_MS, pool="", device="site's")
        meter_of_site.site, meter_of_site.boundary = "oslo", pb.ENERGY_BOUNDARY_FACILITY
        caller.record(meter_of_site)
        meter_of_site.counter_mj = joules_at(COUNT - 1) * 1_500
        meter_of_site.time.FromMilliseconds(NOON_MS)
        caller.record(meter_of_site)
        output_tokens = sum(tokens_at(place)[1] for place in range(COUNT))

        def is_attributed() -> bool:
            answer = caller.ask(start_ms=BEGIN_MS, end_ms=NOON_MS)
            return answer.rows[0].attributed_output_tokens == output_tokens and not any(
                it.reason == pb.UNATTRIBUTED_REASON_PENDING
                for pool in answer.pools
                for it in pool.unattributed
            )

        wait_until(is_attributed)
        yield running


@pytest.fixture
def shell(meter: RunningMeter) -> Shell:
    """A shell of whoever may do everything."""
    return Shell(meter.target, meter.api_key)


def test_set__the_same_again(shell: Shell, tmp_path: Path) -> None:
    """The same file again changes nothing; another one from the same time on is refused."""
    path = tmp_path / "factory.toml"
    path.write_text(FACTORY, "utf-8")
    said = shell.run("factory", "set", str(path)).stdout
    assert said.startswith("there already, nothing changed: version 1 from")
    assert shell.run_json("factory", "set", str(path))["changed"] is False
    path.write_text(FACTORY.replace("1_000", "2_000"), "utf-8")
    said = shell.run("factory", "set", str(path), code=Exit.REFUSED).stderr
    assert "Version 1 is in force from 2026-10-05T09:00:00Z" in said


def test_set__faults_of_a_file(shell: Shell, tmp_path: Path) -> None:
    """Each fault is told as compilers do, with the file and its line."""
    path = tmp_path / "factory.toml"
    path.write_text(FACTORY.replace('"1.2"', '"0.2"').replace("premium", "gold"), "utf-8")
    said = shell.run("factory", "set", str(path), code=Exit.USAGE).stderr
    assert f"{path}:6: sites.oslo.pue: must be 1 to 10" in said
    assert f'{path}:7: sites.oslo.reserved_watts.gold: "gold" is no tier' in said
    missing = shell.run("factory", "set", str(tmp_path / "none"), code=Exit.USAGE).stderr
    assert "cannot be read" in missing


def test_list__versions(shell: Shell) -> None:
    """Each version has its number, its begin, its sites and its pools."""
    (version,) = shell.run_json("factory", "list")
    assert version == {
        "version": 1,
        "from": "2026-10-05T09:00:00Z",
        "sites": ["oslo"],
        "pools": ["h100"],
        "weights_count": 0,
    }
    assert "oslo" in shell.run("factory", "list").stdout
    assert shell.run("factory", "show", "--toml").stdout == FACTORY


def test_show__what_a_site_draws(shell: Shell) -> None:
    """A site's contract, what it draws of it by machines and PUE, and who that is for."""
    told = shell.run_json("factory", "show")
    assert (told["start_time"], told["end_time"]) == ("2026-10-05T11:45:00Z", NOON)
    (site,) = told["site_power"]
    watts = joules_at(COUNT - 1) / 900
    assert site["machines_watts"] == pytest.approx(watts, abs=0.001)
    assert (site["pue"], site["pue_basis"]) == ("1.5", "measured")
    assert site["facility_watts"] == pytest.approx(watts * 1.5, abs=0.001)
    assert site["headroom_watts"] == pytest.approx(1_000 - watts * 1.5, abs=0.001)
    assert site["unattributed_watts"] == pytest.approx(100, abs=0.001)
    assert site["tier_watts"] == {"high": pytest.approx(watts - 100, abs=0.001)}
    (pool,) = told["pool_power"]
    assert (pool["boundary"], pool["valid"], pool["software"]) == ("board", True, "vllm 0.11.2")
    shown = shell.run_process("factory", "show").stdout
    assert "drawn on the average of 2026-10-05 11:45 to 2026-10-05 12:00 UTC" in shown
    lines = [line.split() for line in shown.splitlines()]
    (of_site,) = [line for line in lines if "measured" in line]
    assert of_site[:2] == ["oslo", "1.000"]
    by_tier = [line for line in lines if line and line[0] == "oslo" and line is not of_site]
    assert [line[1] for line in by_tier] == ["high", "premium", "(nobody's)"]
    assert [line[-1] for line in by_tier] == ["0.200", "0.100", "-"]


def test_energy_show__tells_of_sites(shell: Shell) -> None:
    """What a site took beside its machines is told with its basis: measured, or configured."""
    shown = shell.run("energy", "show", *SPAN).stdout
    joules = joules_at(COUNT - 1)
    assert (
        f"oslo: PUE 1.5, measured: {joules * 1.5:,.3f} J by the site's meter, of its machines"
        f" {joules:,}.000 J"
    ) in shown
    before = ("--since", to_iso(BEGIN_MS), "--until", to_iso(NOON_MS - EDGE_MS))
    assert "oslo: PUE 1.2, configured" in shell.run("energy", "show", *before).stdout
    (site,) = shell.run_json("energy", "show", *before)["sites"]
    assert (site["pue"], site["pue_basis"], site["facility_mj"]) == ("1.2", "configured", None)


def test_show__without_a_description(empty_shell: Shell) -> None:
    """Where nothing is described, the reader is told what to type."""
    said = empty_shell.run("factory", "show", code=Exit.FAILED).stderr
    assert "tokenworks factory set" in said


def calibrated(shell: Shell, *words: str) -> Any:  # noqa: ANN401
    """Return a calibration."""
    return shell.run_json("energy", "calibrate", "--pool", "h100", *SPAN, *words)


def test_calibrate__finds_what_the_tokens_took(shell: Shell) -> None:
    """Coefficients, idle power and weights are those that the energy was made of."""
    told = calibrated(shell)
    assert told["idle_watts"] == pytest.approx(100, rel=1e-3)
    assert told["joules_per_token"] == {
        "input": pytest.approx(0.02, rel=1e-2),
        "cached_input": 0.0,
        "output": pytest.approx(0.5, rel=1e-2),
    }
    assert told["r_squared"] > 0.999
    assert (len(told["windows"]), told["quiet_count"], told["left_out"]) == (COUNT, 1, {})
    assert told["warnings"] == []
    assert told["weights"]["output"] == "1.0000"
    assert 'hardware = "H100 SXM"' in told["description"]
    given = calibrated(shell, "--idle-watts", "100", "--model", "llama-4")
    assert (given["idle_watts"], given["idle_watts_given"]) == (100.0, True)
    assert 'model = "llama-4"' in given["description"]


def test_calibrate__leaves_out_what_is_not_valid(shell: Shell) -> None:
    """An interval that samples do not cover tells nothing of what tokens take."""
    words = ("energy", "calibrate", "--pool", "sparse", *SPAN)
    told = shell.run_json(*words)
    assert (len(told["windows"]), told["left_out"]) == (1, {"their power is not valid": 5})
    assert told["windows"][0]["energy_mj"] == 10**8
    assert "5 intervals left out: their power is not valid" in shell.run(*words).stdout


def test_calibrate__description_can_be_set(
    shell: Shell, meter: RunningMeter, tmp_path: Path
) -> None:
    """What it prints for the description can be set as it is; what it leaves out is counted."""
    shown = shell.run("energy", "calibrate", "--pool", "h100", *SPAN).stdout
    assert "12 intervals, 1 of them without tokens" in shown
    assert "R² 1.0000" in shown
    weights = shown[shown.index("[[weights]]") :]
    path = tmp_path / "factory.toml"
    later = FACTORY.replace(to_iso(BEGIN_MS), NOON)
    path.write_text(later + weights, "utf-8")
    assert "weights 1" in shell.run("factory", "set", str(path)).stdout
    # Another model alone served none of them, but the one without tokens.
    told = calibrated(shell, "--model", "other")
    assert told["left_out"] == {"they served others than other": COUNT - 1}
    assert any("only 1 windows" in it for it in told["warnings"])
    said = shell.run("energy", "calibrate", "--pool", "none", *SPAN, code=Exit.FAILED).stderr
    assert "no interval of none" in said
    assert meter.target
