"""What a metrics page says, and the rates between two of its answers: tables of cases."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from billing.metrics import BillingMetrics
from cli.top.counters import (
    OUTPUT_CLASSES,
    Counter,
    Drift,
    PageUnreadable,
    Report,
    Sample,
    Series,
    has_restarted,
    parse_page,
    to_report,
)
from meter.metrics import Metrics
from tests.cli.top.fake_metrics import write_page

TOKENS = 'tokenworks_tokens_total{tier="high",model="m",pool="a",token_class="%s"} %r'
MEASURED = 'tokenworks_energy_joules_total{pool="a",source="s"} %r'
ATTRIBUTED = 'tokenworks_energy_attributed_joules_total{pool="a",tier="high"} %r'
REVENUE = 'tokenworks_revenue_total{currency="%s",tier="high",pool="a"} %r'
VALID = 'tokenworks_power_valid{pool="a"} %r'
STARTED = "tokenworks_commit_seconds_created %r"


def _sample(*lines: str, seconds: float = 0.0) -> Sample:
    return parse_page("\n".join(["tokenworks_sandbox 0.0", *lines]), read_seconds=seconds)


def _report(*lines: str, seconds: float = 10.0) -> Report:
    """Return the rates over some seconds in which these counters grew from nothing."""
    first = _sample(*(line for line in lines if line.startswith("tokenworks_power_valid")))
    report = to_report([first, _sample(*lines, seconds=seconds)])
    assert report is not None
    return report


def test_parse__a_whole_page() -> None:
    """Counters are summed over what nobody looks at; gauges are as they stand."""
    sample = parse_page(
        """\
# HELP tokenworks_tokens_total Tokens
# TYPE tokenworks_tokens_total counter
tokenworks_tokens_total{model="m",pool="a",tier="high",token_class="INPUT"} 5.0
tokenworks_tokens_total{model="n",pool="a",tier="high",token_class="OUTPUT"} 7.0
tokenworks_tokens_total{model="n\\n\\"}",pool="",tier="free",token_class="CACHE_READ"} 1e+06
tokenworks_tokens_created{model="m",pool="a",tier="high",token_class="INPUT"} 1.79e+09
tokenworks_commit_seconds_bucket{le="+Inf"} 9.0
tokenworks_commit_seconds_created 1.7956e+09
tokenworks_energy_joules_total{pool="a",source="one"} 2.5
tokenworks_energy_joules_total{pool="a",source="two"} 1.5
tokenworks_power_valid{pool="a"} 1.0
tokenworks_power_valid{pool="b"} 0.0
tokenworks_sandbox 1.0
tokenworks_counting_behind_seconds 0.25
tokenworks_quarantine_held 3.0
tokenworks_source_heard_timestamp_seconds{source="envoy"} 1.7956e+09
tokenworks_engine_drift_ppm{kind="output",model="m",pool="a",window="1d"} -250.0
tokenworks_engine_drift_ppm{kind="output",model="m",pool="a",window="1h"} 9.0
process_open_fds NaN
""",
        read_seconds=4.0,
    )
    assert sample == Sample(
        read_seconds=4.0,
        started=1.7956e9,
        is_sandbox=True,
        counters={
            Series(Counter.TOKENS, "high", "a"): 12.0,
            Series(Counter.OUTPUT, "high", "a"): 7.0,
            Series(Counter.TOKENS, "free", ""): 1e6,
            Series(Counter.MEASURED, "", "a"): 4.0,
        },
        power_valid={"a": True, "b": False},
        behind_seconds=0.25,
        quarantine_held=3,
        sources_heard={"envoy": 1.7956e9},
        drifts_ppm={Drift("a", "m", "output"): -250.0},
    )


def test_parse__page_of_the_meter() -> None:
    """Every name and label that is read is one that the meter and its billing write."""
    metrics = Metrics()
    revenue = BillingMetrics(metrics.page)
    metrics.tokens.labels("high", "m", "a", "REASONING").inc(7)
    revenue.earned(Decimal("1.5"), currency="USD", tier="high", pool="a")
    revenue.unpriced(9, tier="high", model="m")
    energy = metrics.energy
    energy.joules.labels("a", "board", "dcgm").inc(50)
    energy.joules.labels("a", "host", "reported").inc(70)
    energy.attributed.labels("a", "high", "m", "board", "active").inc(30)
    energy.attributed.labels("a", "high", "n", "board", "idle").inc(10)
    energy.attributed.labels("a", "high", "m", "host", "active").inc(60)
    energy.power_valid.labels("a").set(1)
    metrics.sandbox.set(1)
    metrics.quarantine_held.set(3)
    metrics.counting_behind.set(0.5)
    metrics.source_heard.labels("span").set(1.5e9)
    metrics.engines.drift_ppm.labels("a", "m", "output", "1d").set(-7)
    sample = parse_page(generate_latest(metrics.registry).decode(), read_seconds=0.0)
    assert sample.started is not None
    assert sample == Sample(
        read_seconds=0.0,
        started=sample.started,
        is_sandbox=True,
        counters={
            Series(Counter.TOKENS, "high", "a"): 7.0,
            Series(Counter.OUTPUT, "high", "a"): 7.0,
            Series(Counter.REVENUE, "high", "a", "USD"): 1.5,
            Series(Counter.UNPRICED, "high"): 9.0,
            Series(Counter.MEASURED, "", "a"): 50.0,
            Series(Counter.ATTRIBUTED, "high", "a"): 40.0,
        },
        power_valid={"a": True},
        behind_seconds=0.5,
        quarantine_held=3,
        sources_heard={"span": 1.5e9},
        drifts_ppm={Drift("a", "m", "output"): -7.0},
    )


def test_parse__line_ends_in_labels() -> None:
    """Only a line feed ends a line: other separators may be part of a name."""
    label = "a\u2028b\x85c\x0bd"
    sample = _sample(f'tokenworks_tokens_total{{tier="{label}"}} 3.0')
    assert sample.counters == {Series(Counter.TOKENS, label): 3.0}


def test_parse__series_that_are_missing() -> None:
    """A meter that has counted nothing yet, without power or prices, is a meter."""
    sample = parse_page("tokenworks_counting_behind_seconds 0.0", read_seconds=0.0)
    assert (sample.counters, sample.power_valid, sample.is_sandbox) == ({}, {}, False)
    assert (sample.started, sample.quarantine_held) == (None, None)


@pytest.mark.parametrize("name", [*sorted(OUTPUT_CLASSES), "INPUT", "CACHE_READ", "IMAGE_INPUT"])
def test_parse__token_classes(name: str) -> None:
    """Reasoning, audio, images and video that a model made are output; nothing else is."""
    counters = _sample(TOKENS % (name, 3.0)).counters
    assert counters[Series(Counter.TOKENS, "high", "a")] == 3
    assert (Series(Counter.OUTPUT, "high", "a") in counters) is (name in OUTPUT_CLASSES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no metrics of a meter"),
        ("<html><body>Welcome to nginx!</body></html>", "no metrics of a meter"),
        ("go_goroutines 12.0\n", "no metrics of a meter"),
        ("tokenworks_sandbox", "not in the Prometheus text form"),
        ("tokenworks_sandbox 0x10", "not in the Prometheus text form"),
        ('tokenworks_tokens_total{tier="high 1', "not in the Prometheus text form"),
        ('tokenworks_tokens_total{tier="a", ="b"} 1', "not in the Prometheus text form"),
        ('tokenworks_tokens_total{tier="a"} NaN', "says that tokenworks_tokens_total is nan"),
        ('tokenworks_tokens_total{tier="a"} +Inf', "is inf"),
        ("tokenworks_quarantine_held -1", "is -1"),
        ("tokenworks_energy_joules_total 1e19", "is 1e+19"),
    ],
)
def test_parse__garbage(text: str, said: str) -> None:
    """What is no page of a meter, or cannot be true, is refused with the reason."""
    with pytest.raises(PageUnreadable, match=said.replace("+", r"\+")):
        parse_page(text, read_seconds=0.0)


@given(
    page=st.text(alphabet='tokenworks_{}",=\\ \n\r#e+-.01\x00\u2028', max_size=80),
    name=st.sampled_from(["tokenworks_sandbox", "tokenworks_tokens_total{", "{", ""]),
)
def test_parse__anything(page: str, name: str) -> None:
    """No text makes more of it than a page that cannot be read."""
    try:
        sample = parse_page(name + page, read_seconds=0.0)
    except PageUnreadable:
        return
    assert all(math.isfinite(value) and value >= 0 for value in sample.counters.values())


@pytest.mark.parametrize(
    ("earlier", "later", "is_restart"),
    [
        ((STARTED % 1.0, TOKENS % ("INPUT", 5.0)), (STARTED % 1.0, TOKENS % ("INPUT", 6.0)), False),
        ((TOKENS % ("INPUT", 5.0),), (TOKENS % ("INPUT", 5.0),), False),
        ((), (TOKENS % ("INPUT", 5.0),), False),
        ((TOKENS % ("INPUT", 5.0),), (TOKENS % ("INPUT", 4.0),), True),
        ((TOKENS % ("INPUT", 5.0),), (), True),
        ((MEASURED % 5.0, TOKENS % ("INPUT", 5.0)), (TOKENS % ("INPUT", 6.0),), True),
        ((MEASURED % 0.1,), (MEASURED % 0.09999999999999999,), False),
        ((STARTED % 1.0, TOKENS % ("INPUT", 5.0)), (STARTED % 2.0, TOKENS % ("INPUT", 9.0)), True),
        ((STARTED % 1.0,), (), False),
        ((VALID % 1.0,), (VALID % 0.0,), False),
    ],
)
def test_restart__told_by_counters(
    earlier: tuple[str, ...], later: tuple[str, ...], *, is_restart: bool
) -> None:
    """A counter that went down or away, or another time of start, is another process."""
    assert has_restarted(_sample(*earlier), _sample(*later, seconds=1.0)) is is_restart


def test_report__units() -> None:
    """3.6 dollars for a kilowatt-hour are 3,600 for a megawatt-hour; a joule is a watt-second."""
    report = _report(
        TOKENS % ("INPUT", 500.0),
        TOKENS % ("OUTPUT", 7_200.0),
        MEASURED % 4_500_000.0,
        ATTRIBUTED % 3_600_000.0,
        REVENUE % ("USD", 3.6),
        VALID % 1.0,
        seconds=3600.0,
    )
    tier, pool = report.tiers["high"], report.pools["a"]
    assert tier.tokens_per_second == pytest.approx(7_700 / 3600)
    assert tier.output_tokens_per_second == pytest.approx(2.0)
    assert tier.watts == pytest.approx(1_000.0)
    assert tier.tokens_per_joule == pytest.approx(0.002)
    assert tier.revenue_per_hour == {"USD": pytest.approx(3.6)}
    assert tier.revenue_per_mwh == {"USD": pytest.approx(3_600.0)}
    # The pool and the whole draw more than is attributed.
    assert pool.rates == report.total
    assert report.total.watts == pytest.approx(1_250.0)
    assert report.total.tokens_per_joule == pytest.approx(0.0016)
    assert report.total.revenue_per_mwh == {"USD": pytest.approx(2_880.0)}
    assert report.attributed_ratio == pool.attributed_ratio == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("watts", "output_per_second", "tokens_per_joule"),
    [(688.298, 9_805.588, 14.246), (2_547.518, 6_827.208, 2.680), (7_126.161, 2_999.034, 0.421)],
)
def test_report__measured_models(
    watts: float, output_per_second: float, tokens_per_joule: float
) -> None:
    """Published measurements of models on boards come out as they were published."""
    report = _report(
        TOKENS % ("OUTPUT", output_per_second * 10), MEASURED % (watts * 10), VALID % 1.0
    )
    assert report.total.tokens_per_joule == pytest.approx(tokens_per_joule, abs=0.0005)


@pytest.mark.parametrize(
    ("lines", "of_tier", "of_pool"),
    [
        ((), False, False),
        ((VALID % 1.0,), False, False),
        ((MEASURED % 50.0, ATTRIBUTED % 40.0), False, False),
        ((MEASURED % 50.0, ATTRIBUTED % 40.0, VALID % 0.0), False, False),
        ((MEASURED % 0.0, ATTRIBUTED % 0.0, VALID % 1.0), False, False),
        ((MEASURED % 5e-324, ATTRIBUTED % 5e-324, VALID % 1.0), False, False),
        ((MEASURED % 50.0, ATTRIBUTED % 0.0, VALID % 1.0), False, True),
        ((MEASURED % 50.0, ATTRIBUTED % 5e-324, VALID % 1.0), False, True),
        ((MEASURED % 50.0, VALID % 1.0), False, True),
        ((MEASURED % 50.0, ATTRIBUTED % 40.0, VALID % 1.0), True, True),
    ],
)
def test_report__without_power(lines: tuple[str, ...], *, of_tier: bool, of_pool: bool) -> None:
    """Without joules that are valid, tokens and dollars are there, and nothing is 0 or infinite."""
    report = _report(TOKENS % ("OUTPUT", 70.0), REVENUE % ("USD", 1.0), *lines)
    for rates, has_power in (
        (report.tiers["high"], of_tier),
        (report.pools["a"].rates, of_pool),
        (report.total, of_pool),
    ):
        assert rates.tokens_per_second == 7
        assert rates.revenue_per_hour == {"USD": 360.0}
        assert (rates.watts is not None) is has_power
        assert (rates.tokens_per_joule is not None) is has_power
        assert (rates.revenue_per_mwh != {}) is has_power
    assert (report.attributed_ratio is not None) is of_pool


def test_report__power_invalid_for_a_moment() -> None:
    """A pool whose power was not valid all the time has no watts, though it is valid now."""
    lines = (TOKENS % ("OUTPUT", 70.0), MEASURED % 50.0)
    samples = [_sample(VALID % valid, seconds=at) for at, valid in enumerate((1.0, 0.0, 1.0))]
    report = to_report([*samples, _sample(*lines, VALID % 1.0, seconds=3.0)])
    assert report is not None
    assert (report.pools["a"].rates.watts, report.pools["a"].is_valid) == (None, True)


def test_report__one_pool_of_two_invalid() -> None:
    """Ratios leave out tokens and dollars whose joules are unknown: they would be too good."""
    both, rubin = (
        to_report([_parsed(0, invalid=invalid), _parsed(10, invalid=invalid)])
        for invalid in ((), ("b200",))
    )
    assert both is not None
    assert rubin is not None
    assert rubin.tiers["medium"].tokens_per_second == both.tiers["medium"].tokens_per_second
    assert rubin.tiers["medium"].revenue_per_hour == both.tiers["medium"].revenue_per_hour
    assert rubin.tiers["medium"].watts == pytest.approx(1_100.0)
    assert rubin.tiers["medium"].tokens_per_joule == pytest.approx(4_200 / 1_100)
    assert rubin.tiers["medium"].revenue_per_mwh["USD"] == pytest.approx(0.0162 / 1_100 * 3.6e9)
    assert rubin.tiers["free"].watts is None
    assert rubin.total.watts == pytest.approx(1_100 + 1_300 + 1_900 + 250)
    assert rubin.total.tokens_per_joule == rubin.pools["rubin"].rates.tokens_per_joule
    assert rubin.pools["b200"].is_valid is False


def _parsed(seconds: float, *, invalid: tuple[str, ...]) -> Sample:
    return parse_page(write_page(seconds, invalid=invalid), read_seconds=seconds)


def test_report__one_pool_of_two_unread() -> None:
    """A pool whose energy has not been read in this time is in no ratio, though it is valid."""
    valid = 'tokenworks_power_valid{pool="b"} 1.0'
    still = (valid, 'tokenworks_energy_joules_total{pool="b",source="s"} 9.0')
    elsewhere = 'tokenworks_tokens_total{tier="high",model="m",pool="b",token_class="OUTPUT"} 1e9'
    lines = (TOKENS % ("OUTPUT", 70.0), ATTRIBUTED % 35.0, MEASURED % 50.0, VALID % 1.0)
    report = to_report(
        [_sample(*still, VALID % 1.0), _sample(*still, elsewhere, *lines, seconds=10.0)]
    )
    assert report is not None
    assert report.total.tokens_per_joule == pytest.approx(1.4)
    assert report.pools["b"].rates.watts is None


def test_report__rounded_down() -> None:
    """A sum of fractions that came out a last digit lower is a rate of 0, not below it."""
    earlier, later = (
        _sample(REVENUE % ("USD", amount), seconds=at)
        for at, amount in enumerate((0.1, 0.09999999999999999))
    )
    report = to_report([earlier, later])
    assert report is not None
    assert report.total.revenue_per_hour == {"USD": 0.0}


@pytest.mark.parametrize(
    ("sandbox", "watts"), [("tokenworks_sandbox 0.0", 400.0), ("tokenworks_sandbox 1.0", 3_000.0)]
)
def test_report__energy_between_samples(sandbox: str, watts: float) -> None:
    """Answers 2 s apart with a sample's 15 s of energy between them are no 7.5 times the power."""
    sampled = 'tokenworks_energy_last_sample_timestamp_seconds{pool="a",source="%s"} %r'
    first = (VALID % 1.0, sampled % ("dcgm", 1_000.0), sampled % ("reported", 500.0))
    later = (VALID % 1.0, sampled % ("dcgm", 1_015.0), sampled % ("reported", 500.0))
    grown = (TOKENS % ("OUTPUT", 1_600.0), MEASURED % 6_000.0, ATTRIBUTED % 3_000.0)
    report = to_report([_sample(sandbox, *first), _sample(sandbox, *later, *grown, seconds=2.0)])
    assert report is not None
    assert report.total.watts == pytest.approx(watts)
    assert report.tiers["high"].watts == pytest.approx(watts / 2)
    assert report.total.tokens_per_joule == pytest.approx(800 / watts)
    assert report.attributed_ratio == pytest.approx(0.5)


def test_report__several_currencies() -> None:
    """Each currency is by itself; none is added to another."""
    earned = (REVENUE % ("USD", 2.0), REVENUE % ("EUR", 3.0))
    report = _report(*earned, ATTRIBUTED % 40.0, MEASURED % 50.0, VALID % 1)
    assert report.total.revenue_per_hour == pytest.approx({"USD": 720.0, "EUR": 1_080.0})
    assert report.tiers["high"].revenue_per_mwh == pytest.approx({"USD": 1.8e8, "EUR": 2.7e8})


def test_report__attributed_ahead_of_tokens() -> None:
    """A tier's tokens in a pool that has no joules of this tier are in no ratio of it."""
    elsewhere = 'tokenworks_tokens_total{tier="high",model="m",pool="b",token_class="OUTPUT"} 1e9'
    valid = 'tokenworks_power_valid{pool="b"} 1.0'
    joules = 'tokenworks_energy_joules_total{pool="b",source="s"} 9.0'
    lines = (TOKENS % ("OUTPUT", 70.0), ATTRIBUTED % 35.0, MEASURED % 50.0, VALID % 1.0)
    first = _sample(valid, VALID % 1.0)
    report = to_report([first, _sample(elsewhere, valid, joules, *lines, seconds=10.0)])
    assert report is not None
    assert report.tiers["high"].tokens_per_joule == pytest.approx(2.0)


def test_report__tokens_without_a_price() -> None:
    """What was counted and has no price is told beside the money."""
    report = _report('tokenworks_unpriced_tokens_total{tier="high",model="m"} 40.0')
    assert report.unpriced_tokens_per_second == 4
    assert report.tiers == {}


def test_report__of_one_answer() -> None:
    """One answer, or two at once, have no rates."""
    sample = _sample(TOKENS % ("INPUT", 5.0))
    assert to_report([sample]) is None
    assert to_report([sample, sample]) is None


def test_report__nothing_moved() -> None:
    """An idle meter has rates of 0, and a tier that was there before is still there."""
    sample = _sample(TOKENS % ("INPUT", 5.0), REVENUE % ("USD", 1.0))
    later = _sample(TOKENS % ("INPUT", 5.0), REVENUE % ("USD", 1.0), seconds=2.0)
    report = to_report([sample, later])
    assert report is not None
    assert report.tiers["high"].tokens_per_second == 0
    assert report.tiers["high"].revenue_per_hour == {"USD": 0.0}
