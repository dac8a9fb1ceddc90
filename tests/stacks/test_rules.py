"""The rules: each does what it says, and each of its protections is needed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.chart import EVERYTHING, MINIMAL, Engine, Values
from tests.stacks.queries import RECORDED, SLO_WINDOWS, Json, write_rules

CASES = Path(__file__).parent / "rules"
COMMAND_SECONDS_MAX = 280
pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed"),
]
# The rules of an installation whose exporters look at their boards as often as usual.
USUAL: Values = MINIMAL | {"monitoring": EVERYTHING["monitoring"]}
IS_VALID = " and on (pool) pool:tokenworks_power_valid:min5m"
OF_VALID_POOLS = r"(pool:tokenworks_valid_power_watts:rate5m) > bool 0"
OF_VALID_TIERS = r"(pool_tier:tokenworks_valid_power_watts:rate5m) > bool 0"
ALL_POOLS = r"pool:tokenworks_power_watts:rate5m >= bool 0"
ALL_TIERS = r"pool_tier:tokenworks_power_watts:rate5m >= bool 0"
# A rule, what in it is a protection, and what stands there without it.
RECORDING = [
    ("pool_tier:tokenworks_output_tokens:rate5m", r"\{.*\}", ""),
    ("pool_site:tokenworks_pool_info:most5m", r"topk by \(pool\) \(1, (.*)\) >", r"\1 >"),
    ("pool_site:tokenworks_pool_info:most5m", "count_over_time", "min_over_time"),
    ("pool_site:tokenworks_pool_info:most5m", "> bool 0", "+ 0"),
    ("pool_site:tokenworks_pool_info:most5m", r"max by \(pool, site\) ", ""),
    ("pool:tokenworks_power_valid:min5m", " == 1", ""),
    ("pool:tokenworks_power_valid:min5m", r"min_over_time\((.*)\[5m\]\)", r"\1"),
    ("pool:tokenworks_power_valid:min5m", r" unless on \(pool\) \(.*", ""),
    ("pool:tokenworks_power_valid:min5m", r" unless on \(pool\) max.*", ")"),
    ("pool:tokenworks_measured_power_watts:rate5m", r" and on .* >= 3", ""),
    ("site:tokenworks_valid_pools:count5m", r" == .*", ""),
    ("site:tokenworks_valid_pools:count5m", r" and on \(pool\) pool:tokenworks_it\S+5m", ""),
    ("site:tokenworks_valid_pools:count5m", re.escape(IS_VALID), ""),
    ("pool:tokenworks_it_power_watts:rate5m", r"or on \(pool\)", "or"),
    ("pool:tokenworks_it_power_watts:rate5m", r" unless on \(pool\) \(.*?\) or", " or"),
    ("site:tokenworks_metered_power_watts:rate5m", r" and on .* >= 4", ""),
    ("site:tokenworks_metered_power_watts:rate5m", r" unless .*", ""),
    ("site:tokenworks_pue:ratio_rate5m", r" and on \(site\) site:\S+:count5m", ""),
    ("site:tokenworks_pue:ratio_rate5m", r"or on \(site\)", "or"),
    ("pool:tokenworks_power_watts:rate5m", r"pool:tokenworks_it_power", "pool:tokenworks_board"),
    ("site:tokenworks_power_watts:rate5m", r"label_replace.*?\) or ", ""),
    ("pool_tier:tokenworks_power_watts:rate5m", r" and on \(pool, boundary\) \S+_it_\S+5m", ""),
    ("pool_tier:tokenworks_power_watts:rate5m", r" and on \(pool, boundary\) \S+measured\S+5m", ""),
    ("site:tokenworks_drawn_power_watts:rate5m", r'\{boundary="facility"\}', ""),
    ("site:tokenworks_drawn_power_watts:rate5m", r"or on \(site\)", "or"),
    ("site:tokenworks_power_headroom_watts:rate5m", r" and on \(site\) .*", ""),
    ("site:tokenworks_power_headroom_watts:rate5m", r" or site:[\w:]+", ""),
    ("pool:tokenworks_energy_attributed:ratio_rate5m", r" or 0 \* \S+:rate5m", ""),
    ("pool:tokenworks_valid_power_watts:rate5m", re.escape(IS_VALID), ""),
    ("pool_tier:tokenworks_valid_power_watts:rate5m", " > 0", ""),
    ("pool_tier:tokenworks_valid_power_watts:rate5m", re.escape(IS_VALID), ""),
    ("pool:tokenworks_valid_output_tokens:rate5m", OF_VALID_POOLS, ALL_POOLS),
    ("pool:tokenworks_valid_total_tokens:rate5m", OF_VALID_POOLS, ALL_POOLS),
    ("pool:tokenworks_valid_revenue_usd:rate5m", OF_VALID_POOLS, ALL_POOLS),
    ("pool:tokenworks_valid_revenue_usd:rate5m", r"\{.*?\}", ""),
    ("pool_tier:tokenworks_valid_output_tokens:rate5m", OF_VALID_TIERS, ALL_TIERS),
    ("pool_tier:tokenworks_valid_total_tokens:rate5m", OF_VALID_TIERS, ALL_TIERS),
    ("pool_tier:tokenworks_valid_revenue_usd:rate5m", OF_VALID_TIERS, ALL_TIERS),
    ("pool_tier:tokenworks_valid_revenue_usd:rate5m", r"\{.*?\}", ""),
    (
        "tier:tokenworks_tokens_per_joule:ratio_rate5m",
        r"\A.*\Z",
        "avg by (tier, boundary) (pool_tier:tokenworks_tokens_per_joule:ratio_rate5m)",
    ),
    ("tier:tokenworks_joules_per_output_token:ratio_rate5m", " > 0", ""),
    ("tier:tokenworks_usd_per_megawatt_hour:ratio_rate5m", r"3\.6e9", "3.6e6"),
    ("tier:tokenworks_power:share_rate5m", r"on \(boundary\) (.*) by \(boundary\)", r"on () \1"),
    ("tier:tokenworks_revenue:share_rate5m", r"\{.*?\}", ""),
]
ALERTS = [
    ("TokenworksDown", r"absent\((.*)\)", r"\1 > 0"),
    ("TokenworksCountingBehind", "> 60", ">= 60"),
    ("TokenworksProducersSilent", " > 0", ""),
    ("TokenworksBatchesMissing", r"max_over_time\((.*)\[10m\] offset 1h\)", r"\1 offset 1h"),
    ("TokenworksBatchesMissing", r" or vector\(0\)", ""),
    ("TokenworksDatabaseRolledBack", " > 0", ""),
    ("TokenworksDatabaseRolledBack", r"increase\((.*)\[1h\]\)", r"\1"),
    ("TokenworksPowerInvalid", " != 1", ""),
    ("TokenworksPowerInvalid", r"min by \(pool\) ", ""),
    ("TokenworksTokensUnpriced", r"increase.* > 0 or ", ""),
    ("TokenworksTokensUnpriced", r" or .*\)", ")"),
    ("TokenworksTokensUnpriced", " unless .* offset 1h", ""),
    ("TokenworksEnergySampleOld", r"> 3 \* 30", ">= 3 * 30"),
    ("TokenworksEnergySampleOld", r"> 3 \* 900", "> 3 * 30"),
    ("TokenworksEnergySampleOld", r"max by \(pool, source\) ", ""),
    ("TokenworksEnergySampleOld", r" unless .*", ""),
    ("TokenworksEnergyCrossCheck", r"max by \(pool\)", "min by (pool)"),
    ("TokenworksEnergyCrossCheck", r"min by \(pool\)", "max by (pool)"),
    ("TokenworksEnergyUnattributed", r"\{.*?\}", ""),
    ("TokenworksEnergyUnattributed", r" / pool:\S+ >", " / 1000 >"),
    ("TokenworksEnergyUnattributed", "> 0.4", "> 0.3"),
    ("TokenworksAttributionResidual", r"abs\((\w+)\)", r"\1"),
    ("TokenworksPowerNearBudget", "0.95", "0.9"),
    ("TokenworksSeriesTruncated", r"increase.* > 0 or ", ""),
    ("TokenworksSeriesTruncated", r" or .*\)", ")"),
    ("TokenworksSeriesTruncated", " unless .* offset 1h", ""),
    ("TokenworksBoundReached", r"> 0\.01", "> 0"),
    ("TokenworksBoundReached", r"sum by \(bound\) ", ""),
    ("TokenworksBoundReached", r"rate\((.*)\[5m\]\)", r"\1"),
    ("TokenworksSourceQuiet", "> 900", "> 0"),
    ("TokenworksSourceQuiet", r"max_over_time\((.*)\[1d\]\)\) >", r"\1) >"),
    ("TokenworksSourceQuiet", r"max by \(source\)", "min by (source)"),
    ("TokenworksSourceQuiet", r" and on \(\) .*", ""),
    ("TokenworksReportsHeld", "> 1000", ">= 1000"),
    ("TokenworksReportsHeld", r"max by \(source\)", "min by (source)"),
    ("TokenworksRequestIdReused", '"REQUEST_ID_REUSED"', '"OBSERVED"'),
    ("TokenworksRequestIdReused", r"sum\((.*)\) >", r"\1 >"),
    ("TokenworksRequestIdReused", r"\[1h\]", "[2h]"),
    ("TokenworksEngineDrift", r"abs\((\w+_ppm\S+?)\)", r"(\1)"),
    ("TokenworksEngineDrift", r'_ppm\{window="1d"\}', "_ppm"),
    ("TokenworksEngineDrift", "> 10000 and", ">= 10000 and"),
    ("TokenworksEngineDrift", r" and .*", ""),
    ("TokenworksStandbyMissing", "> 0", "> 1"),
    ("TokenworksStandbyMissing", r"max\((.*)\)", r"min(\1)"),
    ("TokenworksCertificateExpiresSoon", "< 14 ", "<= 14 "),
    ("TokenworksCertificateExpiresSoon", r"min by", "max by"),
    ("TokenworksCertificateExpiresNow", "< 2 ", "< 14 "),
    ("TokenworksCertificateExpiresNow", r" - time\(\)", ""),
]
WEEKS = [
    ("TokenworksEfficiencyDown", r"(\* on \(tier, boundary\) \S+) offset 1w\)", r"\1)"),
    ("TokenworksEfficiencyDown", r" and on \(tier, boundary\) [^)]*\)", ")"),
    ("TokenworksEfficiencyDown", r"\{.*?\}", ""),
    ("TokenworksEfficiencyDown", "> 1 / 0.8", ">= 1 / 0.8"),
]
# Those of a ratio are taken from its rules over all windows.
SLO = [
    ("slo:tokenworks_down:bool", r" or vector\(0\)", ""),
    ("slo:tokenworks_down:bool", r" and on \(\) .* == 1\)", ""),
    ("slo:tokenworks_down:bool", r" or max_over_time.* == 1\)", ")"),
    ("slo:tokenworks_counted_late:bool", "> bool 60", ">= bool 60"),
    ("slo:tokenworks_counted_late:bool", r"max\((\w+)\)", r"min(\1)"),
    ("slo:tokenworks_ack_errors:ratio_rate", r"\{.*?\}", ""),
    ("slo:tokenworks_ack_errors:ratio_rate", r" >= 0 or vector\(0\)", ""),
    ("slo:tokenworks_ack_errors:ratio_rate", r" \+ avg_over_time\(\S+?\[\w+\]\)", ""),
    ("slo:tokenworks_ack_late:ratio_rate", r'le="0.25"', 'le="0.5"'),
    ("slo:tokenworks_ack_late:ratio_rate", r" > 0", ""),
    ("TokenworksAckErrorsFast", r"and \S+rate5m > \S+ \* \S+\)", ")"),
    ("TokenworksAckErrorsFast", r" or \(.*", ""),
    ("TokenworksAckErrorsSlow", r" or \(.*", ""),
    ("TokenworksAckLateFast", r"0\.01", "0.02"),
    ("TokenworksAckLateSlow", r"0\.01", "0.03"),
    ("TokenworksCountedLateFast", r"0\.001", "0.03"),
    ("TokenworksCountedLateSlow", r"0\.001", "0.005"),
    ("TokenworksMonthOverdue", "> 7 ", "> 5 "),
    ("TokenworksMonthOverdue", r"max\((\w+)\)", r"\1"),
    ("TokenworksReplayFailed", r"\{.*?\}", ""),
]
PROTECTIONS = [
    (case, *protection)
    for case, protections in (
        ("recording", RECORDING),
        ("alerts", ALERTS),
        ("weeks", WEEKS),
        ("slo", SLO),
    )
    for protection in protections
]


def test_rules__are_well_formed(engine: Engine, tmp_path: Path) -> None:
    """Prometheus's own checker accepts what the PrometheusRule holds, without a duplicate."""
    write_rules(engine, tmp_path / "rules.json")
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("case", "window"),
    [("recording", "5m"), ("recording", "1h"), ("alerts", "5m"), ("weeks", "5m"), ("slo", "5m")],
)
def test_rules__do_what_they_say(engine: Engine, case: str, window: str, tmp_path: Path) -> None:
    """Each rule has its result, or none, for series that are written down."""
    rules = _rules(engine)
    asked = {rule["record"] for rule in rules if window in rule.get("record", "")}
    if case != "recording":
        text = (CASES / f"{case}.yaml").read_text("utf-8")
        asked = {rule["alert"] for rule in rules if re.search(rf"\b{rule.get('alert')}\b", text)}
    done = _unit_test(case, window=window, rules=_needed(rules, asked), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("case", "rule", "present", "absent"), PROTECTIONS)
def test_rules__without_a_protection(
    engine: Engine, tmp_path: Path, *, case: str, rule: str, present: str, absent: str
) -> None:
    """A rule that lost a protection has another result, and the cases above tell."""
    rules = _rules(engine)
    named = {rule, *(f"{rule}{window}" for window in SLO_WINDOWS)}
    for changed in rules:
        if named & {changed.get("record"), changed.get("alert")}:
            changed["expr"], count = re.subn(present, absent, changed["expr"])
            assert count
    if case == "recording":
        needed = [each for each in rules if "5m" in each.get("record", "")]
    else:
        needed = _needed(rules, _alerts_by(rules, named))
    done = _unit_test(case, window="5m", rules=needed, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr


def test_rules__of_an_installation(engine: Engine) -> None:
    """Samples are old by how often exporters look, and pages are where the chart is told."""
    rule = EVERYTHING["monitoring"]["prometheusRule"] | {"runbooks": "https://pages.example.com/"}
    monitoring = EVERYTHING["monitoring"] | {"prometheusRule": rule}
    (alert,) = [
        each
        for each in _rules(engine, values=EVERYTHING | {"monitoring": monitoring})
        if each.get("alert") == "TokenworksEnergySampleOld"
    ]
    seconds = max(
        EVERYTHING["settings"][f"energy_{each}_seconds"] for each in ("scrape", "collect")
    )
    assert f"> 3 * {seconds} or" in alert["expr"]
    page = "https://pages.example.com/TokenworksEnergySampleOld.md"
    assert alert["annotations"]["runbook_url"] == page


def _rules(engine: Engine, *, values: Values = USUAL) -> list[Json]:
    groups = engine.get("PrometheusRule", values=values)["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alerts_by(rules: list[Json], names: set[str]) -> set[str]:
    """The alerts of these names, and those that look at a rule of one of them."""
    return {
        rule["alert"]
        for rule in rules
        if "alert" in rule
        and names & {it.get("record", it.get("alert")) for it in _needed(rules, {rule["alert"]})}
    }


def _needed(rules: list[Json], asked: set[str]) -> list[Json]:
    """The rules of these names, and all that they ask for, in the order of their evaluation."""
    names = {rule.get("record") or rule["alert"]: rule for rule in rules}
    found: set[str] = set()
    left = set(asked)
    while left:
        name = left.pop()
        found.add(name)
        left |= (set(RECORDED.findall(names[name]["expr"])) & names.keys()) - found
    return [rule for name, rule in names.items() if name in found]


def _unit_test(
    case: str, *, window: str, rules: list[Json], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a case on rules; of alerts, only those of its tests that name one of the rules."""
    group = {"name": "rules", "rules": rules}
    (folder / "rules.json").write_text(json.dumps({"groups": [group]}), "utf-8")
    done = _promtool("check", "rules", "rules.json", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (CASES / f"{case}.yaml").read_text("utf-8").replace("5m", window)
    head, *tests = re.split(r"^(?=  - )", text, flags=re.MULTILINE)
    alerts = [rule["alert"] for rule in rules if "alert" in rule]
    if alerts:
        named = re.compile("|".join(rf"\b{alert}\b" for alert in alerts))
        lines = [line for test in tests if named.search(test) for line in _of(test, alerts)]
        tests = ["".join(lines)]
    (folder / "cases.yaml").write_text(head + "".join(tests), "utf-8")
    return _promtool("test", "rules", "cases.yaml", folder=folder)


def _of(test: str, alerts: list[str]) -> Iterator[str]:
    """The lines of a test without what it expects of alerts that are not there."""
    begin, *expected = re.split(r"^(?=      - (?:\{alertname|alertname))", test, flags=re.MULTILINE)
    yield begin
    for each in expected:
        if any(re.search(rf"alertname: {alert}\b", each) for alert in alerts):
            yield each


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
