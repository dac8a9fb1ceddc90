"""The factory's description as a file: what it says, and all that is wrong with it at once."""

from decimal import Decimal

import pytest

from meter.domain.interval import INTERVAL_MS
from meter.energy.factory import Carbon, Factory, IdlePolicy, Pool, Site, Weights
from meter.energy.factory_file import read_factory
from meter.toml_file import FileFaults

BEGIN_MS = 1_790_812_800_000
WHOLE = """
format = 1
from = 2026-10-01T00:00:00Z
[sites.oslo]
contracted_watts = 20_000_000
pue = "1.20"
reserved_watts = { premium = 5_000_000, high = 15_000_000 }
carbon = { location = "386", market = "30.5", source = "eGRID 2024" }
[sites."Bergen 2"]
contracted_watts = 1
carbon = { market = "0", source = "hydro" }
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
device_count = 16
idle_watts = "75.5"
idle = "proportional"
[pools.gb200]
site = "Bergen 2"
hardware = "GB200"
devices = ["GPU-1", "GPU-2"]
[[weights]]
hardware = "H100 SXM"
model = "llama-*"
input = "0.08"
cached_input = "0"
output = "1"
source = "energy calibrate"
[[weights]]
input = "0"
cached_input = "0.000001"
output = "1000000"
"""
HEAD = "format = 1\nfrom = 2026-10-01T00:00:00Z\n[sites.s]\ncontracted_watts = 10\n"
POOL = '[pools.p]\nsite = "s"\nhardware = "H"\n'
WEIGHTS = '[[weights]]\ninput = "1"\ncached_input = "0"\noutput = "1"\n'


def faults_of(text: str) -> list[str]:
    """Return the lines that tell of what is wrong."""
    with pytest.raises(FileFaults) as failure:
        read_factory(text, version=1, tiers=("high", "free"))
    return str(failure.value).splitlines()


def test_read__all_there_is() -> None:
    """Each key of the file is a value of the version, weights in whole millionths, watts in mW."""
    assert read_factory(WHOLE, version=7, tiers=("premium", "high")) == Factory(
        version=7,
        start_ms=BEGIN_MS,
        sites={
            "oslo": Site(
                site="oslo",
                contracted_watts=20_000_000,
                pue=Decimal("1.20"),
                reserved_watts={"premium": 5_000_000, "high": 15_000_000},
                carbon=Carbon(location=Decimal(386), market=Decimal("30.5"), source="eGRID 2024"),
            ),
            "Bergen 2": Site(
                site="Bergen 2",
                contracted_watts=1,
                carbon=Carbon(location=None, market=Decimal(0), source="hydro"),
            ),
        },
        pools={
            "h100": Pool(
                pool="h100",
                site="oslo",
                hardware="H100 SXM",
                device_count=16,
                idle_mw=75_500,
                idle=IdlePolicy.PROPORTIONAL,
            ),
            "gb200": Pool(
                pool="gb200",
                site="Bergen 2",
                hardware="GB200",
                device_count=2,
                devices=frozenset({"GPU-1", "GPU-2"}),
            ),
        },
        weights=(
            Weights(
                hardware="H100 SXM",
                model="llama-*",
                input=80_000,
                cached_input=0,
                output=1_000_000,
                source="energy calibrate",
            ),
            Weights(input=0, cached_input=1, output=10**12),
        ),
    )


def test_read__what_was_taken_in_may_name_old_tiers() -> None:
    """A file that is read again is read whatever tiers are sold by now."""
    assert read_factory(WHOLE, version=1, tiers=None).sites["oslo"].reserved_watts
    (fault,) = faults_of(WHOLE)
    assert fault == (
        '7: sites.oslo.reserved_watts.premium: "premium" is no tier that is sold here; there are'
        " high, free"
    )


def test_read__all_faults_at_once() -> None:
    """Each fault has its line and its place, in the order of the lines."""
    text = """format = 2
from = 2026-10-01T00:01:00Z
[sites.s]
contracted_watts = "9"
pue = "0.9"
reserved_watts = { high = 0, gold = 1 }
carbon = { source = "x" }
watts = 1
[pools.p]
site = "t"
hardware = ""
device_count = 3
devices = ["a", "b", "b"]
idle = "never"
idle_watts = "1.2345"
[[weights]]
input = "0"
cached_input = "0"
output = "0"
model = "a**"
[[weights]]
input = 0.5
cached_input = "0.0000001"
[pools.q]
site = "s"
hardware = "H"
devices = ["b"]
idle = "proportional"
"""
    assert faults_of(text) == [
        "1: format: must be 1, the only format so far",
        "2: from: must begin an interval: on the minute 0, 15, 30 or 45, from 1970 on",
        "4: sites.s.contracted_watts: is a text, and must be a whole number without quotes",
        "5: sites.s.pue: must be 1 to 10: the site's energy by that of its machines",
        '6: sites.s.reserved_watts.gold: "gold" is no tier that is sold here; there are high, free',
        "6: sites.s.reserved_watts.high: must be 1 to 1000000000000",
        "7: sites.s.carbon: must have `location` or `market`, in grams of CO2e a kilowatt-hour",
        "8: sites.s.watts: no such key; here are contracted_watts, pue, reserved_watts, carbon",
        '10: pools.p.site: no site "t"; write a table [sites.t]',
        "11: pools.p.hardware: is empty",
        "12: pools.p.device_count: must be 2, as `devices` lists; or leave it out",
        '13: pools.p.devices[2]: "b" is here twice',
        '14: pools.p.idle: "never" is no policy of idling; there are unattributed, proportional',
        "15: pools.p.idle_watts: must be 0 to 1000000 watts, with at most 3 decimals",
        "16: weights[0]: all its weights are 0: nobody's tokens would take anything",
        '20: weights[0].model: "a**": write one `*`, which stands for any characters',
        "21: weights[1].output: is missing",
        '22: weights[1].input: is a number, and must be a string to be exact: "0.5"',
        "23: weights[1].cached_input: must be 0 to 1000000, with at most 6 decimals",
        '27: pools.q.devices: "b" is a device of the pool "p" already',
        "28: pools.q.idle: says nothing without `idle_watts`",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("format = 1\nfrom = 2026-10-01T00:00:00Z\n", "1: sites: is missing"),
        (HEAD.replace("Z", ""), "2: from: must be a time in UTC, without quotes"),
        (HEAD.replace("Z", "+02:00"), "2: from: must be a time in UTC, without quotes"),
        (HEAD.replace("2026", "1926"), "2: from: must begin an interval"),
        (HEAD.replace("00Z", "00.000001Z"), "2: from: must begin an interval"),
        (HEAD + "reserved_watts = { high = 6, free = 5 }\n", "sets aside more than"),
        (HEAD + '[sites."\\t"]\ncontracted_watts = 1\n', "its name must have 1 to 64 characters"),
        (HEAD + "[pools]\n", "5: pools: is empty; leave it out"),
        (HEAD + "[pools.p]\n", "5: pools.p.hardware: is missing"),
        (HEAD + POOL + 'idle_watts = "-1"\n', "is negative"),
        (HEAD + POOL + 'idle_watts = "1000001"\n', "must be 0 to 1000000 watts"),
        (HEAD + WEIGHTS + WEIGHTS, "9: weights[1]: never applies: the weights of line 5 come"),
        (
            HEAD + WEIGHTS + 'model = "a"\n' + WEIGHTS + 'hardware = "H"\nmodel = "a"\n',
            "never applies",
        ),
        ("format = [", "no TOML"),
    ],
)
def test_read__fault(text: str, fault: str) -> None:
    """What makes no sense is said to make none."""
    assert any(fault in line for line in faults_of(text)), faults_of(text)


def test_read__lists_no_more_than_a_thousand_devices() -> None:
    """A pool of more boards gives their number: their names would fill the file."""
    listed = ", ".join(f'"GPU-{number}"' for number in range(1_001))
    (fault,) = faults_of(f"{HEAD}{POOL}devices = [{listed}]\n")
    assert "lists more than 1,000 devices; give `device_count` instead" in fault


def test_weights__first_that_fit() -> None:
    """The weights that count are the first whose hardware and model fit; else output tokens."""
    factory = read_factory(
        HEAD
        + POOL
        + WEIGHTS
        + 'hardware = "H"\nmodel = "a-*"\nsource = "1"\n'
        + WEIGHTS
        + 'model = "*"\nhardware = "I"\nsource = "2"\n'
        + WEIGHTS
        + 'model = "b"\nsource = "3"\n',
        version=1,
        tiers=None,
    )
    cases = [
        ("p", "a-1", "1"),
        ("p", "xa-1", "output tokens"),
        ("p", "b", "3"),
        ("elsewhere", "a-1", "output tokens"),
        ("elsewhere", "b", "3"),
    ]
    for pool, model, source in cases:
        assert factory.weights_of(pool=pool, model=model).source == source
    assert factory.start_ms % INTERVAL_MS == 0
