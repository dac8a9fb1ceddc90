"""The rules: each does what it says, and each of its protections is needed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stacks.chart import Engine
from tests.stacks.queries import WINDOWS, rule_groups, write_rules

CASES = Path(__file__).parent / "rules"
COMMAND_SECONDS_MAX = 60
pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed"),
]
IS_VALID = " and on (pool) pool:tokenworks_power_valid:min5m"
HAS_POWER = " and on (pool) pool:tokenworks_valid_power_watts:rate5m"
HAS_POWER_OF_TIER = " and on (pool, tier) pool_tier:tokenworks_valid_power_watts:rate5m"
# A rule, what in it is a protection, and what stands there without it.
PROTECTIONS = [
    ("pool_tier:tokenworks_output_tokens:rate5m", r"\{.*\}", ""),
    ("pool:tokenworks_power_valid:min5m", " == 1", ""),
    ("pool:tokenworks_power_valid:min5m", r"min_over_time\((.*)\[5m\]\)", r"\1"),
    ("pool:tokenworks_valid_power_watts:rate5m", " > 0", ""),
    ("pool:tokenworks_valid_power_watts:rate5m", re.escape(IS_VALID), ""),
    ("pool_tier:tokenworks_valid_power_watts:rate5m", " > 0", ""),
    ("pool_tier:tokenworks_valid_power_watts:rate5m", re.escape(IS_VALID), ""),
    ("pool_tier:tokenworks_valid_output_tokens:rate5m", re.escape(HAS_POWER), ""),
    ("pool_tier:tokenworks_valid_revenue_usd:rate5m", re.escape(HAS_POWER), ""),
    ("pool_tier:tokenworks_valid_revenue_usd:rate5m", r"\{.*\}", ""),
    ("tier:tokenworks_tokens_per_joule:ratio_rate5m", re.escape(HAS_POWER_OF_TIER), ""),
    (
        "tier:tokenworks_tokens_per_joule:ratio_rate5m",
        r"\A.*\Z",
        "avg by (tier) (pool_tier:tokenworks_tokens_per_joule:ratio_rate5m)",
    ),
    ("tier:tokenworks_usd_per_megawatt_hour:ratio_rate5m", re.escape(HAS_POWER_OF_TIER), ""),
    ("tier:tokenworks_usd_per_megawatt_hour:ratio_rate5m", r"3\.6e9", "3.6e6"),
    ("TokenworksDown", r"absent\((.*)\)", r"\1 > 0"),
    ("TokenworksCountingBehind", "> 60", ">= 60"),
    ("TokenworksProducersSilent", " > 0", ""),
    ("TokenworksBatchesMissing", r"max_over_time\((.*)\[10m\] offset 1h\)", r"\1 offset 1h"),
    ("TokenworksBatchesMissing", r" or vector\(0\)", ""),
    ("TokenworksDatabaseRolledBack", " > 0", ""),
    ("TokenworksDatabaseRolledBack", r"increase\((.*)\[1h\]\)", r"\1"),
    ("TokenworksPowerInvalid", " != 1", ""),
    ("TokenworksTokensUnpriced", r"increase.* > 0 or ", ""),
    ("TokenworksTokensUnpriced", r" or .*\)", ")"),
    ("TokenworksTokensUnpriced", " unless .* offset 1h", ""),
]


def test_rules__are_well_formed(engine: Engine, tmp_path: Path) -> None:
    """Prometheus's own checker accepts what the PrometheusRule holds, without a duplicate."""
    write_rules(engine, tmp_path / "rules.json")
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("case", ["recording", "alerts"])
def test_rules__do_what_they_say(engine: Engine, case: str, window: str, tmp_path: Path) -> None:
    """Each rule has its result, or none, for series that are written down."""
    write_rules(engine, tmp_path / "rules.json")
    done = _unit_test(case, window=window, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("rule", "present", "absent"), PROTECTIONS)
def test_rules__without_a_protection(
    engine: Engine, rule: str, present: str, absent: str, tmp_path: Path
) -> None:
    """A rule that lost a protection has another result, and the cases above tell."""
    groups = {"groups": rule_groups(engine)}
    (changed,) = [
        each
        for group in groups["groups"]
        for each in group["rules"]
        if rule in (each.get("record"), each.get("alert"))
    ]
    changed["expr"], count = re.subn(present, absent, changed["expr"])
    assert count
    (tmp_path / "rules.json").write_text(json.dumps(groups), "utf-8")
    done = _promtool("check", "rules", "rules.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    case = "recording" if "record" in changed else "alerts"
    assert _unit_test(case, window="5m", folder=tmp_path).returncode == 1


def _unit_test(case: str, *, window: str, folder: Path) -> subprocess.CompletedProcess[str]:
    text = (CASES / f"{case}.yaml").read_text("utf-8")
    (folder / "cases.yaml").write_text(text.replace("5m", window), "utf-8")
    return _promtool("test", "rules", "cases.yaml", folder=folder)


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
