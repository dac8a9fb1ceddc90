"""What a meter's metrics page says, and what the difference of two of its answers means.

Pure. What is said of power covers only pools whose power was valid all the time; where there is no
such pool, a number is None and never 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain
from math import isfinite
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

OUTPUT_CLASSES: Final = frozenset(
    {"OUTPUT", "REASONING", "AUDIO_OUTPUT", "IMAGE_OUTPUT", "VIDEO_OUTPUT"}
)
JOULES_PER_MWH: Final = 3.6e9
# The meter counts energy in millijoules: less than one of them is no energy to divide by.
JOULES_MIN: Final = 0.001
# A counter of tokens or of millijoules fits 64 bits.
VALUE_MAX: Final = 2.0**63
# Sums of fractions differ in their last digits by the order in which they were added.
_ROUNDING: Final = 1e-9


class PageUnreadable(Exception):
    """A page is no metrics page of a meter; the message says why, in our words."""


class Counter(Enum):
    """What only grows while the server runs."""

    TOKENS = auto()
    OUTPUT = auto()
    UNPRICED = auto()
    REVENUE = auto()
    MEASURED = auto()
    ATTRIBUTED = auto()


class Series(NamedTuple):
    """A counter of one tier, pool and currency, each empty where the counter is not split by it."""

    counter: Counter
    tier: str = ""
    pool: str = ""
    currency: str = ""


class Drift(NamedTuple):
    """What engines counted of a model: its pool, the engines' name of it, and the kind."""

    pool: str
    model: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer of a meter.

    `read_seconds` is when, on a clock that never goes back. `started` is the same as long as one
    server process answers (seconds since 1970; None where it does not say). `power_valid` has the
    pools whose power is measured, `sampled` up to when (seconds since 1970). `sources_heard` says
    when this server heard of each source last (seconds since 1970), `drifts_ppm` by how many
    millionths what engines counted yesterday is above what was metered.
    """

    read_seconds: float
    started: float | None
    is_sandbox: bool
    counters: Mapping[Series, float]
    power_valid: Mapping[str, bool]
    sampled: Mapping[str, float] = field(default_factory=dict)
    behind_seconds: float | None
    quarantine_held: int | None
    sources_heard: Mapping[str, float] = field(default_factory=dict)
    drifts_ppm: Mapping[Drift, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates of one tier, one pool or all; money by currency.

    `watts` are those of boards: attributed ones of a tier, measured ones of a pool and of all.
    `tokens_per_joule` are output tokens; it and `revenue_per_mwh` leave out what has no valid
    power.
    """

    tokens_per_second: float
    output_tokens_per_second: float
    watts: float | None
    tokens_per_joule: float | None
    revenue_per_hour: Mapping[str, float]
    revenue_per_mwh: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRates:
    """A pool's rates, and how far they can be trusted.

    `attributed_ratio` is 0 to 1; `is_valid` is None where no power is measured at all.
    """

    rates: Rates
    attributed_ratio: float | None
    is_valid: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rates over the `seconds` between two answers."""

    seconds: float
    total: Rates
    attributed_ratio: float | None
    unpriced_tokens_per_second: float
    tiers: Mapping[str, Rates]
    pools: Mapping[str, PoolRates]


def parse_page(text: str, *, read_seconds: float) -> Sample:
    """Return what a page in the Prometheus text form says; raises PageUnreadable."""
    counters: dict[Series, float] = {}
    gauges: dict[str, float] = {}
    power_valid: dict[str, bool] = {}
    sampled: dict[str, float] = {}
    heard: dict[str, float] = {}
    drifts: dict[Drift, float] = {}
    for name, labels, value in _read_lines(text):
        tier, pool = labels.get("tier", ""), labels.get("pool", "")
        # Boards are within hosts, hours within days: what is of both would be there twice.
        if any(labels.get(label, wanted) != wanted for label, wanted in _ONE_OF.items()):
            continue
        if name in _COUNTERS:
            found = [_COUNTERS[name]]
            if name == _TOKENS and labels.get("token_class") in OUTPUT_CLASSES:
                found.append(Counter.OUTPUT)
            for counter in found:
                series = Series(counter, tier, pool, labels.get("currency", ""))
                counters[series] = counters.get(series, 0.0) + value
        elif name == _POWER_VALID:
            power_valid[pool] = value == 1
        elif name == _SAMPLED:
            sampled[pool] = max(value, sampled.get(pool, 0.0))
        elif name == _HEARD:
            heard[labels.get("source", "")] = value
        elif name == _DRIFT:
            drifts[Drift(pool, labels.get("model", ""), labels.get("kind", ""))] = value
        else:
            gauges[name] = value
    held = gauges.get(_HELD)
    return Sample(
        read_seconds=read_seconds,
        started=gauges.get(_STARTED),
        is_sandbox=gauges.get(_SANDBOX) == 1,
        counters=counters,
        power_valid=power_valid,
        sampled=sampled,
        behind_seconds=gauges.get(_BEHIND),
        quarantine_held=None if held is None else int(held),
        sources_heard=heard,
        drifts_ppm=drifts,
    )


def has_restarted(earlier: Sample, later: Sample) -> bool:
    """Whether another start of the server, or another server, gave the later answer."""
    if None not in (earlier.started, later.started) and earlier.started != later.started:
        return True
    return any(
        later.counters.get(series, 0.0) < value * (1 - _ROUNDING)
        for series, value in earlier.counters.items()
    )


def to_report(samples: Sequence[Sample]) -> Report | None:
    """Return the rates from the first to the last of one server's answers; None if it is one."""
    first, last = samples[0], samples[-1]
    seconds = last.read_seconds - first.read_seconds
    if seconds <= 0:
        return None
    grown = {
        series: max(0.0, value - first.counters.get(series, 0.0))
        * (_stretch(series.pool, first, last) if series.counter in _ENERGY else 1)
        for series, value in last.counters.items()
    }
    joules = {
        series.pool: value
        for series, value in grown.items()
        if series.counter is Counter.MEASURED
        and value >= JOULES_MIN
        and all(sample.power_valid.get(series.pool, False) for sample in samples)
    }
    sums = _add_up(grown, joules=joules, pools=last.power_valid)
    return Report(
        seconds=seconds,
        total=sums.total.per(seconds),
        attributed_ratio=_divide(sum(sums.attributed.values()), sum(joules.values())),
        unpriced_tokens_per_second=sums.unpriced / seconds,
        tiers={tier: each.per(seconds) for tier, each in sums.tiers.items()},
        pools={
            pool: PoolRates(
                rates=each.per(seconds),
                attributed_ratio=_divide(sums.attributed.get(pool, 0.0), joules.get(pool, 0.0)),
                is_valid=last.power_valid.get(pool),
            )
            for pool, each in sums.pools.items()
        },
    )


_TOKENS: Final = "tokenworks_tokens_total"
_COUNTERS: Final = {
    _TOKENS: Counter.TOKENS,
    "tokenworks_unpriced_tokens_total": Counter.UNPRICED,
    "tokenworks_revenue_total": Counter.REVENUE,
    "tokenworks_energy_joules_total": Counter.MEASURED,
    "tokenworks_energy_attributed_joules_total": Counter.ATTRIBUTED,
}
_ENERGY: Final = frozenset({Counter.MEASURED, Counter.ATTRIBUTED})
# Labels of what is there several times, and the value that is read.
_ONE_OF: Final = {"boundary": "board", "window": "1d"}
_POWER_VALID: Final = "tokenworks_power_valid"
_SAMPLED: Final = "tokenworks_energy_last_sample_timestamp_seconds"
_SANDBOX: Final = "tokenworks_sandbox"
_BEHIND: Final = "tokenworks_counting_behind_seconds"
_HELD: Final = "tokenworks_quarantine_held"
_HEARD: Final = "tokenworks_source_heard_timestamp_seconds"
_DRIFT: Final = "tokenworks_engine_drift_ppm"
# Below 0 where more was metered than engines counted.
_VALUES_MIN: Final = {_DRIFT: -1e6}
# Of a metric that is made when the server starts, by the library that writes the page.
_STARTED: Final = "tokenworks_commit_seconds_created"
_WANTED: Final = frozenset(
    {
        *_COUNTERS,
        _POWER_VALID,
        _SAMPLED,
        _SANDBOX,
        _BEHIND,
        _HELD,
        _HEARD,
        _DRIFT,
        _STARTED,
    }
)
_WANTED_BEGINS: Final = tuple(_WANTED)


def _read_lines(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Return name, labels and value of the lines that matter; all others are passed over."""
    lines = [line for line in text.split("\n") if line.startswith(_WANTED_BEGINS)]
    if not lines:
        raise PageUnreadable("its page has no metrics of a meter")
    try:
        families = list(text_string_to_metric_families("\n".join(lines)))
    except (ValueError, IndexError) as error:
        raise PageUnreadable("its page is not in the Prometheus text form") from error
    for each in chain.from_iterable(family.samples for family in families):
        if each.name in _WANTED:
            lowest = _VALUES_MIN.get(each.name, 0)
            if not isfinite(each.value) or not lowest <= each.value <= VALUE_MAX:
                raise PageUnreadable(f"its page says that {each.name} is {each.value}")
            yield each.name, each.labels, each.value


def _stretch(pool: str, first: Sample, last: Sample) -> float:
    """Return by how much the time between the answers is longer than that of the energy in them.

    Energy comes in steps, one a sample: two answers 2 s apart may have 15 s of it between them.
    """
    begin, end = first.sampled.get(pool, 0.0), last.sampled.get(pool, 0.0)
    # A sandbox has a time of its own, which these answers are not read by.
    if last.is_sandbox or not 0 < begin < end:
        return 1.0
    return (last.read_seconds - first.read_seconds) / (end - begin)


@dataclass(slots=True, kw_only=True)
class _Sum:
    """What grew in one tier, pool or in all; `powered_` is what has joules beside it."""

    tokens: float = 0.0
    output_tokens: float = 0.0
    joules: float = 0.0
    revenue: dict[str, float] = field(default_factory=dict)
    powered_output_tokens: float = 0.0
    powered_revenue: dict[str, float] = field(default_factory=dict)

    def add(self, series: Series, value: float, *, is_powered: bool) -> None:
        """Add what one counter grew by."""
        if series.counter is Counter.TOKENS:
            self.tokens += value
        elif series.counter is Counter.OUTPUT:
            self.output_tokens += value
            if is_powered:
                self.powered_output_tokens += value
        elif series.counter is Counter.REVENUE:
            for revenue in (self.revenue, self.powered_revenue)[: 1 + is_powered]:
                revenue[series.currency] = revenue.get(series.currency, 0.0) + value

    def per(self, seconds: float) -> Rates:
        """Return the rates over so many seconds."""
        has_power = self.joules >= JOULES_MIN
        return Rates(
            tokens_per_second=self.tokens / seconds,
            output_tokens_per_second=self.output_tokens / seconds,
            watts=self.joules / seconds if has_power else None,
            tokens_per_joule=_divide(self.powered_output_tokens, self.joules),
            revenue_per_hour={
                currency: amount / seconds * 3600 for currency, amount in self.revenue.items()
            },
            revenue_per_mwh={
                currency: amount / self.joules * JOULES_PER_MWH
                for currency, amount in self.powered_revenue.items()
                if has_power
            },
        )


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What grew in all, by tier and by pool; `attributed` is joules by pool with valid power."""

    total: _Sum = field(default_factory=_Sum)
    tiers: dict[str, _Sum] = field(default_factory=dict)
    pools: dict[str, _Sum] = field(default_factory=dict)
    attributed: dict[str, float] = field(default_factory=dict)
    unpriced: float = 0.0


def _add_up(
    grown: Mapping[Series, float], *, joules: Mapping[str, float], pools: Iterable[str]
) -> _Sums:
    sums = _Sums(total=_Sum(joules=sum(joules.values())), pools={pool: _Sum() for pool in pools})
    for series, value in grown.items():
        if series.counter is Counter.UNPRICED:
            sums.unpriced += value
            continue
        pool = sums.pools.setdefault(series.pool, _Sum())
        pool.joules = joules.get(series.pool, 0.0)
        if series.counter is Counter.MEASURED:
            continue
        tier = sums.tiers.setdefault(series.tier, _Sum())
        attributed = grown.get(Series(Counter.ATTRIBUTED, series.tier, series.pool), 0.0)
        has_power = series.pool in joules
        if series.counter is Counter.ATTRIBUTED and has_power:
            tier.joules += value
            sums.attributed[series.pool] = sums.attributed.get(series.pool, 0.0) + value
        sums.total.add(series, value, is_powered=has_power)
        pool.add(series, value, is_powered=has_power)
        tier.add(series, value, is_powered=has_power and attributed >= JOULES_MIN)
    return sums


def _divide(amount: float, joules: float) -> float | None:
    return amount / joules if joules >= JOULES_MIN else None
