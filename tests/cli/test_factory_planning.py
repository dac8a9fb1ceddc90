"""`tokenworks factory plan|compare|mark`: by files, and by a real meter that lived an update."""

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import click
import pytest

from cli.factory.amounts import write_percent, write_power, write_price, write_tokens, write_usd
from cli.factory.chart import colors_of
from cli.factory.sides import check_side, find_spans, month_span
from cli.process import Exit
from cli.usage.span import Span
from tests.cli.factory_meter import BEGIN_MS, SPAN, UPDATE_MS, running_factory
from tests.cli.shell import Shell, to_iso
from tests.postgres import Cluster
from tests.wire.energy_caller import EDGE_MS
from tokenworks.meter.v1 import energy_service_pb2 as pb

UPDATE: Final = ("factory", "compare", "software:vllm 0.10", "software:vllm 0.11", *SPAN)
SMALL: Final = """
format = 1
name = "a rack"
power_mw = "0.04"
usd_per_kwh = "0.1"
[tiers.high]
tokens_per_second_per_mw = "200000"
usd_per_million_tokens = "6"
demand_tokens_per_second = "4000"
actual_mw = "0.03"
[tiers.bulk]
tokens_per_second_per_mw = "1000000"
usd_per_million_tokens = "0.01"
minimum_tokens_per_second = "100"
actual_mw = "0.0001"
"""


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell of whoever may do everything."""
    with running_factory(cluster, tmp_path_factory.mktemp("factory")) as meter:
        yield Shell(meter.target, meter.api_key)


@pytest.fixture
def lonely_shell() -> Shell:
    """A shell whose meter does not run."""
    return Shell("127.0.0.1:1", "none")


@pytest.fixture
def rack(tmp_path: Path) -> Path:
    """A file of a small factory."""
    path = tmp_path / "rack.toml"
    path.write_text(SMALL, "utf-8")
    return path


def tiers_of(told: Any, which: str) -> dict[str, float]:  # noqa: ANN401
    """Return the megawatts of each tier."""
    return {it["tier"]: it[which]["mw"] for it in told["tiers"]}


def test_plan__a_file_needs_no_meter(lonely_shell: Shell, rack: Path) -> None:
    """A plan by a file is worked out where it is typed, in the units of a small factory."""
    shown = lonely_shell.run("factory", "plan", str(rack)).stdout
    assert "40 kW at the meter, PUE 1, electricity $0.1000 a kWh" in shown
    assert "20 kW" in shown
    assert "Demand binds" in shown
    told = lonely_shell.run_json("factory", "plan", str(rack))
    assert tiers_of(told, "best") == {"high": 0.02, "bulk": 0.0001}
    assert told["binding"] == "demand"
    assert told["best"]["electricity_usd_per_year"] == 17607.6


def test_plan__now_that_keeps_not_its_bounds(lonely_shell: Shell, rack: Path) -> None:
    """Who serves more than is asked for is told so, and no gain is made up."""
    shown = lonely_shell.run("factory", "plan", str(rack)).stdout
    assert "do not compare: high gets more than is asked for." in shown
    assert "more than the one of now" not in shown


def test_plan__a_price_to_try(lonely_shell: Shell, rack: Path) -> None:
    """A price on the command line is before that of the file."""
    words = ("factory", "plan", str(rack), "--price", "bulk=10")
    told = lonely_shell.run_json(*words)
    assert [it["tier"] for it in told["tiers"]] == ["bulk", "high"]
    assert told["binding"] == "power"


def test_plan__the_shipped_keynote(lonely_shell: Shell) -> None:
    """What is shipped is planned with by its name."""
    told = lonely_shell.run_json("factory", "plan", "keynote-rubin")
    assert tiers_of(told, "actual") == dict.fromkeys(["premium", "medium", "high", "free"], 250)
    assert told["actual"]["usd_per_year"] == 141_912_000_000
    assert told["best"]["usd_per_year"] == 283_824_000_000


def test_plan__the_keynotes_claims(lonely_shell: Shell) -> None:
    """Both tables are printed, and are there for programs."""
    shown = lonely_shell.run("factory", "plan", "--keynote").stdout
    assert "does not reproduce" in shown
    told = lonely_shell.run_json("factory", "plan", "--keynote")
    assert [it["name"] for it in told["generations"]][-1] == "keynote-rubin"
    assert {it["verdict"] for it in told["claims"]} == {
        "exact",
        "rounds to it",
        "does not reproduce",
        "inputs are not public",
        "nothing published",
    }


@pytest.mark.parametrize(("suffix", "begin"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_plan__a_chart(lonely_shell: Shell, tmp_path: Path, suffix: str, begin: bytes) -> None:
    """A chart is drawn in either form, the same each time."""
    pictures = [tmp_path / f"{place}.{suffix}" for place in range(2)]
    for picture in pictures:
        lonely_shell.run("factory", "plan", "keynote-blackwell", "--chart", str(picture))
    drawn = [picture.read_bytes() for picture in pictures]
    assert drawn[0].startswith(begin)
    assert drawn[0] == drawn[1]


def test_plan__a_chart_with_nothing_to_draw_it(
    lonely_shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib the extra is named that brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ("factory", "plan", "keynote-rubin", "--chart", str(tmp_path / "plan.svg"))
    result = lonely_shell.run(*words, code=Exit.FAILED)
    assert "pip install 'tokenworks[demo]'" in result.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--chart", "plan.gif"), Exit.USAGE, "must end in .svg or .png"),
        (("--price", "high"), Exit.USAGE, "write it like medium=2.50"),
        (("--price", "high=-1"), Exit.USAGE, "write it like medium=2.50"),
        (("--price", "ultra=1"), Exit.REFUSED, "which is none of the tiers"),
    ],
)
def test_plan__words_that_make_no_sense(
    lonely_shell: Shell, rack: Path, words: tuple[str, ...], code: Exit, message: str
) -> None:
    """What cannot be planned is refused, with the way out."""
    result = lonely_shell.run("factory", "plan", str(rack), *words, code=code)
    assert message in " ".join(result.output.split())


def test_plan__files_with_faults(lonely_shell: Shell, tmp_path: Path) -> None:
    """Faults are named with file and line; what is said nowhere, by its key."""
    path = tmp_path / "plan.toml"
    path.write_text("format = 1\npower_mw = 3\n", "utf-8")
    result = lonely_shell.run("factory", "plan", str(path), code=Exit.USAGE)
    assert f"{path}:2: power_mw: is a number" in result.output
    path.write_text('format = 1\npower_mw = "3"\n', "utf-8")
    result = lonely_shell.run("factory", "plan", str(path), code=Exit.REFUSED)
    assert "there are no tiers to plan with" in result.output
    result = lonely_shell.run("factory", "plan", str(tmp_path / "none.toml"), code=Exit.USAGE)
    assert "cannot be read" in result.output


def test_plan__by_a_sites_own_meters(shell: Shell) -> None:
    """Megawatts of now add up to what was measured, idling with it; prices are what was earned."""
    told = shell.run_json("factory", "plan", *SPAN)
    assert (told["power_mw"], told["pue"], told["it_mw"]) == (0.015, 1.25, 0.012)
    # Four times 5 kW for a quarter of an hour, in half an hour.
    assert told["actual"]["it_mw"] == 0.01
    by_tier = {it["tier"]: it for it in told["tiers"]}
    prices = {name: it["usd_per_million_tokens"] for name, it in by_tier.items()}
    assert prices == {"high": 6, "medium": 3, "free": 0}
    assert by_tier["high"]["actual"]["tokens_per_second"] == pytest.approx(639_000 / 1800)
    # 500 W that are set aside, at the meter.
    assert by_tier["free"]["best"]["mw"] == 0.0004
    assert told["binding"] == "power"
    shown = shell.run("factory", "plan", "--site", "oslo", *SPAN).stdout
    assert "PUE 1.25 is configured" in shown
    assert "energy is that of boards; idling is 25 % of it" in shown


def test_plan__a_file_of_demands_beside_the_meters(shell: Shell, tmp_path: Path) -> None:
    """A file may say only what nobody can measure."""
    path = tmp_path / "demands.toml"
    path.write_text('format = 1\n[tiers.high]\ndemand_tokens_per_second = "400"\n', "utf-8")
    told = shell.run_json("factory", "plan", str(path), "--site", "oslo", *SPAN)
    by_tier = {it["tier"]: it for it in told["tiers"]}
    assert by_tier["high"]["best"]["tokens_per_second"] == 400
    assert by_tier["high"]["limited_by"] == "demand"
    assert by_tier["medium"]["best"]["mw"] > 0.009


def test_plan__no_such_site(shell: Shell) -> None:
    """A site that is not described is refused, and those that are, named."""
    result = shell.run("factory", "plan", "--site", "bergen", code=Exit.USAGE)
    assert "there is no site bergen; there are: oslo" in result.output


def test_plan__a_site_without_energy(shell: Shell) -> None:
    """Where nothing was measured there is no plan of nothing."""
    span = ("--since", to_iso(BEGIN_MS - 3 * EDGE_MS), "--until", to_iso(BEGIN_MS - 2 * EDGE_MS))
    result = shell.run("factory", "plan", *span, code=Exit.REFUSED)
    assert "there are no tiers to plan with" in result.output


def test_compare__an_update_at_an_equal_mix(shell: Shell) -> None:
    """Seven times the tokens of the same power are seven times the dollars of an equal mix."""
    told = shell.run_json(*UPDATE)
    assert told["mix"] == {"medium": 0.7, "high": 0.3}
    assert told["change"] == {"tokens_per_joule": 7.142857, "usd_per_megawatt_hour": 7.142857}
    before, after = told["sides"]
    assert (before["tokens_per_joule"], after["tokens_per_joule"]) == (0.14, 1)
    # Tokens/s per MW at $3.90 a million, for 3,600 seconds.
    assert before["usd_per_mwh"] == 1965.6
    assert after["usd_per_mw_year"] == 122_990_400
    # At its own mix the second one's tokens are cheaper.
    assert after["own_mix"]["usd_per_mwh"] == 3600 * 3.3
    assert told["notes"] == []


def test_compare__pools_hardware_and_months(shell: Shell) -> None:
    """Any two sides compare; what only one of them has is said, and how much is left."""
    told = shell.run_json("factory", "compare", "pool:a100", "hardware:H100 SXM", *SPAN)
    assert told["mix"] == {"medium": 1}
    assert told["mix_share"] == pytest.approx(200 / 315, abs=1e-6)
    assert "pool:a100 served no high in intervals of valid power." in told["notes"]
    assert told["sides"][0]["attributed_mj"] * 2 == told["sides"][0]["measured_mj"]
    month = to_iso(BEGIN_MS)[:7]
    both = shell.run_json("factory", "compare", month, month)
    assert both["change"] == {"tokens_per_joule": 1, "usd_per_megawatt_hour": 1}


def test_compare__nothing_in_common(shell: Shell) -> None:
    """A month without usage is beside nothing, and that is said."""
    result = shell.run("factory", "compare", "2020-02", "pool:h100", *SPAN, code=Exit.REFUSED)
    assert "nothing can be compared: 2020-02 served no" in result.output


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("software:sglang", "marked are: vllm 0.10, vllm 0.11"),
        ("hardware:B200", "the description has: A100, H100 SXM"),
        ("2026-13", "a month like 2026-09"),
        ("pool:", "a month like 2026-09"),
        ("tier:high", "a month like 2026-09"),
    ],
)
def test_compare__no_such_side(shell: Shell, side: str, message: str) -> None:
    """A side that there is not is refused, and those that are, named."""
    result = shell.run("factory", "compare", side, "pool:h100", *SPAN, code=Exit.USAGE)
    assert message in " ".join(result.output.split())


def test_mark__is_kept_once(shell: Shell) -> None:
    """A mark says whether it changed anything; another software at its time is refused."""
    words = ("factory", "mark", "b200", "sglang 1.0")
    at = ("--at", to_iso(UPDATE_MS))
    told = shell.run_json(*words, *at)
    assert told == {
        "pool": "b200",
        "software": "sglang 1.0",
        "time": to_iso(UPDATE_MS),
        "changed": True,
    }
    assert "marked already, nothing changed" in shell.run(*words).stdout
    shell.run("factory", "mark", "b200", "other", *at, code=Exit.REFUSED)
    assert "marked: b200 has other from" in shell.run("factory", "mark", "b200", "other").stdout


def mark(pool: str, software: str, at_ms: int) -> pb.SoftwareMark:
    """A mark."""
    message = pb.SoftwareMark(pool=pool, software=software)
    message.time.FromMilliseconds(at_ms)
    return message


def span(first: int, last: int) -> Span:
    """A span of intervals, by their numbers."""
    return Span(start_ms=first * EDGE_MS, end_ms=last * EDGE_MS)


def test_spans__an_interval_of_a_change_is_nobodys() -> None:
    """A software has the whole intervals between its mark and the pool's next one, in the span."""
    marks = [
        mark("a", "one", 0),
        mark("a", "two", 3 * EDGE_MS + 1),
        mark("a", "one", 8 * EDGE_MS),
        mark("b", "two", 0),
        mark("c", "two", 2 * EDGE_MS),
    ]
    assert find_spans(marks, "one", span=span(1, 9)) == {span(1, 3): {"a"}, span(8, 9): {"a"}}
    assert find_spans(marks, "two", span=span(1, 9)) == {
        span(4, 8): {"a"},
        span(1, 9): {"b"},
        span(2, 9): {"c"},
    }
    assert find_spans(marks, "three", span=span(1, 9)) == {}


def test_month__is_one_in_utc() -> None:
    """A month ends where the next one begins, in December too."""
    assert str(month_span("2026-12")) == "2026-12-01 00:00 to 2027-01-01 00:00 UTC"
    assert str(month_span("2026-09")) == "2026-09-01 00:00 to 2026-10-01 00:00 UTC"


def test_side__year_nothing_is_none() -> None:
    """There was no year 0."""
    context = click.Context(click.Command("compare"))
    with pytest.raises(click.BadParameter):
        check_side(context, click.Argument(["before"]), "0000-01")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (write_usd(Fraction(28_382_400_000)), "$28.382 B"),
        (write_usd(Fraction(-1_500_000)), "-$1.500 M"),
        (write_usd(Fraction(1, 200)), "$0.01"),
        (write_price(Fraction(1, 7)), "0.1429"),
        (write_price(Fraction(0)), "0.00"),
        (write_price(None), "-"),
        (write_power(Fraction(2500, 7)), "357.143 MW"),
        (write_power(Fraction(1, 50), is_small=True), "20 kW"),
        (write_power(Fraction(1000)), "1,000 MW"),
        (write_tokens(Fraction(367_500_000)), "367.5 M"),
        (write_tokens(Fraction(999, 2)), "500"),
        (write_percent(Fraction(1), Fraction(0)), "-"),
    ],
)
def test_amount__is_written_for_people(written: str, expected: str) -> None:
    """Figures have as many digits as one reads."""
    assert written == expected


def test_colors__each_tier_has_its_own() -> None:
    """Tiers of other names get colours too, none twice."""
    colors = colors_of(["free", "gold", "high", "silver"])
    assert len(set(colors.values())) == 4


def test_plan__is_valid_json(lonely_shell: Shell, rack: Path) -> None:
    """A chart that is drawn beside leaves the JSON alone."""
    picture = rack.with_suffix(".svg")
    result = lonely_shell.run_process(
        "factory", "plan", str(rack), "--json", "--chart", str(picture)
    )
    assert json.loads(result.stdout)["name"] == "a rack"
    assert "drawn" in result.stderr
