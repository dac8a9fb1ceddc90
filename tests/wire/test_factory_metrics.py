"""The metrics of a factory at work: its description, its energy, its money, and their bounds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.billing.town import contract_toml
from tests.cli.shell import shell_of, to_iso
from tests.exporter import running_exporter
from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller, reading
from tests.wire.session import event
from tests.wire.talk import read_http, read_metric, wait_until
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest

MINUTE_MS = 60_000
TOKENS = {usage_pb2.TOKEN_CLASS_INPUT: 1_000, usage_pb2.TOKEN_CLASS_OUTPUT: 100}
FACTORY = """
format = 1
from = 2020-01-01T00:00:00Z
[sites.oslo]
contracted_watts = 5_000
pue = "1.25"
reserved_watts = { high = 500 }
carbon = { location = "386", market = "30", source = "a table" }
[pools.h100]
site = "oslo"
hardware = "H100"
idle_watts = "1"
idle = "proportional"
[pools.rated]
site = "oslo"
hardware = "H100"
"""


@pytest.fixture(scope="module")
def caller(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnergyCaller]:
    """A factory with an exporter, a rating, prices, a description and a mark, at work."""
    folder: Path = tmp_path_factory.mktemp("factory")
    with cluster.database() as url, running_exporter() as exporter:
        exporter.boards["GPU-1"] = 1_000_000
        settings = {
            "energy_sources": f"h100={exporter.url},rated=static:500",
            "energy_scrape_seconds": "1",
            "customer_metrics_max": "1",
        }
        with running_meter_on(url, folder=folder, settings=settings) as meter:
            caller, shell = EnergyCaller(meter), shell_of(meter)
            acme = shell.run_json("accounts", "show", "acme")["account"]
            (folder / "factory.toml").write_text(FACTORY, "utf-8")
            (folder / "contract.toml").write_text(contract_toml("big", covers=acme, book="keynote"))
            shell.run("prices", "import", "keynote")
            shell.run("contracts", "set", str(folder / "contract.toml"))
            shell.run("factory", "set", str(folder / "factory.toml"))
            shell.run("factory", "mark", "h100", "vllm 0.11", "--at", to_iso(now_ms() - MINUTE_MS))
            wait_until(lambda: read_metric(meter, "tokenworks_pool_info", pool="h100") == 1)
            wait_until(lambda: read_metric(meter, "tokenworks_power_valid", pool="h100") == 1)
            caller.session.record(event(account=acme, pool="h100", tokens=TOKENS))
            # Noted last of what a round of counting means: energy knows these tokens by then.
            wait_until(lambda: read_metric(meter, "tokenworks_report_lag_seconds_count"))
            exporter.boards["GPU-1"] += 40_000
            yield caller


def now_ms() -> int:
    """Return the time as a test begins: it may be long after its module was read."""
    return time_ns() // 1_000_000


def account_of(caller: EnergyCaller) -> str:
    """Return the id of the account that has a contract."""
    listed = caller.session.call("ListAccounts", ListAccountsRequest()).accounts
    (found,) = [str(it.account) for it in listed if it.handle == "acme"]
    return found


def shown(caller: EnergyCaller, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples."""
    return read_metric(caller.session.meter, f"tokenworks_{name}", **labels)


def test_description__is_shown(caller: EnergyCaller) -> None:
    """Sites and pools are shown as they are described, with the software that was marked."""
    info = {"pool": "h100", "site": "oslo", "hardware": "H100", "software": "vllm 0.11"}
    assert shown(caller, "pool_info", **info) == 1
    assert shown(caller, "power_budget_watts", site="oslo") == 5_000
    assert shown(caller, "power_reserved_watts", site="oslo", tier="high") == 500
    assert shown(caller, "pue_ratio", site="oslo", basis="configured") == 1.25
    grid = "grid_carbon_grams_per_kilowatt_hour"
    assert shown(caller, grid, site="oslo", method="location") == 386
    assert shown(caller, grid, site="oslo", method="market") == 30
    assert shown(caller, "build_info", factory_version="1") == 1


def test_energy__adds_up_with_its_idling(caller: EnergyCaller) -> None:
    """Attributed energy has a model and a kind, and at each boundary all of it adds up."""
    labels = {"pool": "h100", "boundary": "board"}
    attributed = "energy_attributed_joules_total"
    wait_until(lambda: shown(caller, attributed, **labels) == 40)
    # The last that is shown of what was shared out.
    wait_until(lambda: shown(caller, "carbon_grams_total", method="market"))
    assert shown(caller, attributed, model="m", tier="high", kind="idle", **labels) > 0
    assert shown(caller, "energy_joules_total", source="dcgm", **labels) == 40
    assert shown(caller, "attribution_residual_joules") == 0
    assert shown(caller, "request_energy_joules_sum", tier="high") == 40
    grams = 40 / 3.6e6 * 1.25 * 386
    assert shown(caller, "carbon_grams_total", method="location") == pytest.approx(grams)


def test_energy__of_a_rating_is_marked(caller: EnergyCaller) -> None:
    """A rating's energy is an estimate, all of it."""
    labels = {"pool": "rated", "boundary": "board"}
    wait_until(lambda: shown(caller, "energy_joules_total", source="static", **labels) > 0)
    wait_until(lambda: shown(caller, "energy_estimated_joules_total", method="static", **labels))


def test_energy__of_hosts_and_of_the_site(caller: EnergyCaller) -> None:
    """Hosts are a boundary of their own, a site's meter is apart, and each is counted once."""
    host, facility = pb.ENERGY_BOUNDARY_HOST, pb.ENERGY_BOUNDARY_FACILITY
    end_ms = now_ms()
    for index, at_ms in enumerate((end_ms - MINUTE_MS, end_ms)):
        counter_mj = 90_000 * index
        caller.record(
            reading(counter_mj, time_ms=at_ms, device="host", boundary=host),
            reading(counter_mj, time_ms=at_ms, pool="", site="oslo", boundary=facility),
        )
    wait_until(lambda: shown(caller, "energy_joules_total", pool="h100", boundary="host") == 90)
    wait_until(lambda: shown(caller, "site_energy_joules_total", site="oslo") == 90)


def test_power__faults_are_named(caller: EnergyCaller) -> None:
    """A device that another pool claims is ignored and counted, and both pools say so."""
    caller.record(reading(5, time_ms=now_ms(), pool="other", device="GPU-1"))
    wait_until(lambda: shown(caller, "power_fault", pool="h100", fault="conflict") == 1)
    assert shown(caller, "energy_readings_ignored_total", pool="other", reason="conflict") == 1
    wait_until(lambda: shown(caller, "power_valid", pool="h100") == 0)


def test_crosscheck__of_gauge_and_counter(caller: EnergyCaller) -> None:
    """An hour of gauge and counter that agree is a ratio of 1."""
    begin_ms = now_ms() - 59 * MINUTE_MS
    caller.record(
        *(
            reading(60_000 * minute, time_ms=begin_ms + minute * MINUTE_MS, pool="checked",
                    power_mw=1_000)
            for minute in range(60)
        )
    )  # fmt: skip
    wait_until(lambda: shown(caller, "energy_crosscheck_ratio", pool="checked"))
    assert shown(caller, "energy_crosscheck_ratio", pool="checked") == pytest.approx(1)


def test_gaps_and_resets__by_source(caller: EnergyCaller) -> None:
    """Samples too far apart, and a counter that went back, are counted by source."""
    own = {"pool": "gaps"}
    end_ms = now_ms()
    times_ms = (end_ms - EDGE_MS - MINUTE_MS, end_ms - MINUTE_MS + 1, end_ms)
    caller.record(
        *(reading(mj, time_ms=at, **own) for mj, at in zip((900, 1_000, 7), times_ms, strict=True))
    )
    source = {"pool": "gaps", "source": "reported"}
    wait_until(lambda: shown(caller, "energy_counter_resets_total", **source) == 1)
    wait_until(lambda: shown(caller, "energy_gap_seconds_total", **source) > EDGE_MS / 1000)


def test_requests__and_their_lag(caller: EnergyCaller) -> None:
    """Requests are counted by how they ended, and how late they came shows."""
    finish = usage_pb2.FINISH_CANCELLED
    acme = account_of(caller)
    late_ms = now_ms() - 20 * MINUTE_MS
    caller.session.record(event(account=acme, pool="late", finish=finish, end_ms=late_ms))
    wait_until(lambda: shown(caller, "requests_total", pool="late", finish="cancelled") == 1)
    assert shown(caller, "requests_total", pool="h100", finish="delivered", model="m") == 1
    wait_until(lambda: shown(caller, "report_lag_seconds_bucket", pool="late", le="3600.0") == 1)
    assert shown(caller, "report_lag_seconds_bucket", pool="late", le="900.0") == 0


def test_money__prices_and_the_largest_customer(caller: EnergyCaller) -> None:
    """The book's price of what was sold is shown, and the customer that took the most."""
    price = {"currency": "USD", "tier": "high", "model": "m", "token_class": "OUTPUT"}
    wait_until(lambda: shown(caller, "price_per_million_tokens", **price))
    assert shown(caller, "price_per_million_tokens", **price) == 6
    wait_until(lambda: shown(caller, "customer_tokens_total", customer="big", tier="high") >= 1_100)


def test_series__are_bounded(caller: EnergyCaller) -> None:
    """A producer that makes up names of models fills no memory, and no token is lost."""
    classes = {number: 1 for name, number in usage_pb2.TokenClass.items() if number}
    acme = account_of(caller)
    before = shown(caller, "tokens_total")
    events = [event(account=acme, model=f"made-up-{n}", tokens=classes) for n in range(510)]
    assert set(caller.session.record(*events)) == {1}
    caller.session.counted()
    lines: list[str] = []

    def is_counted() -> bool:
        # Few reads, and by hand: a page of this size takes long to parse.
        lines[:] = read_http(caller.session.meter, "/metrics")[1].splitlines()
        tokens = [line for line in lines if line.startswith("tokenworks_tokens_total{")]
        total = sum(float(line.rpartition(" ")[2]) for line in tokens)
        return total == before + 510 * len(classes) and any(it.startswith(fold) for it in lines)

    # A page is no snapshot: what was folded may stand above what has been counted since.
    fold = 'tokenworks_series_truncated_total{metric="tokenworks_tokens_total"} '
    wait_until(is_counted)
    assert any('tokens_total{model="__other__"' in line for line in lines)
