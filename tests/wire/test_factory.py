"""The factory's description over a real server: set, listed, returned, and energy shared by it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller, reading
from tests.wire.session import Session, event
from tests.wire.talk import failure_of
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import account_service_pb2, usage_pb2
from tokenworks.meter.v1 import energy_service_pb2 as pb

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
DAY_MS = 96 * EDGE_MS
# A noon that lies behind us: its intervals have ended.
NOON_MS = (time_ns() // 1_000_000 // DAY_MS - 2) * DAY_MS + DAY_MS // 2
SPAN = {"start_ms": NOON_MS, "end_ms": NOON_MS + 4 * EDGE_MS}
FACTORY = """
format = 1
from = {begin}
[sites.oslo]
contracted_watts = 20_000
pue = "1.2"
reserved_watts = {{ high = 5_000 }}
carbon = {{ location = "386", source = "eGRID 2024" }}
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
device_count = 1
idle_watts = "0.5"
idle = "proportional"
[[weights]]
hardware = "H100 SXM"
model = "llama-*"
input = "0.5"
cached_input = "0"
output = "1"
source = "guessed"
"""


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter that nothing is attributed of yet."""
    folder = tmp_path_factory.mktemp("factory")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        Session(running).create_account("acme")
        yield running


class FactoryCaller(EnergyCaller):
    """Calls about the description too."""

    def set_factory(self, toml: str) -> pb.SetFactoryResponse:
        """Set a version."""
        answer: pb.SetFactoryResponse = self._stub.SetFactory(
            pb.SetFactoryRequest(toml=toml), **self._options
        )
        return answer

    def get_factory(self, *, at_ms: int) -> pb.GetFactoryResponse:
        """Return the version that is in force at a time."""
        request = pb.GetFactoryRequest()
        request.at.FromMilliseconds(at_ms)
        answer: pb.GetFactoryResponse = self._stub.GetFactory(request, **self._options)
        return answer

    def versions(self) -> list[pb.FactoryVersion]:
        """Return all versions."""
        request = pb.ListFactoryVersionsRequest()
        return list(self._stub.ListFactoryVersions(request, **self._options).versions)


@pytest.fixture
def caller(meter: RunningMeter) -> FactoryCaller:
    """Who may do everything."""
    return FactoryCaller(meter)


def factory_from(start_ms: int, *, changes: tuple[str, str] = ("", "")) -> str:
    """Return a description that begins then, with a text replaced."""
    request = pb.GetFactoryRequest()
    request.at.FromMilliseconds(start_ms)
    return FACTORY.format(begin=request.at.ToJsonString()).replace(*changes)


def site_reading(counter_mj: int, *, time_ms: int) -> pb.EnergyReading:
    """Return a reading of the site's meter."""
    message = reading(counter_mj, time_ms=time_ms, pool="", device="meter")
    message.site, message.boundary = "oslo", pb.ENERGY_BOUNDARY_FACILITY
    return message


def is_denied(act: Callable[[], object]) -> bool:
    """Tell whether a call fails for want of a role."""
    try:
        act()
    except grpc.RpcError as failure:
        return failure.code() is grpc.StatusCode.PERMISSION_DENIED
    return False


def refusal_of(act: Callable[[], object]) -> tuple[tuple[Any, ...], str]:
    """Return how a call is refused, and why."""
    with pytest.raises(grpc.RpcError) as failure:
        act()
    return failure_of(act), str(failure.value)


@pytest.fixture(scope="module")
def described(meter: RunningMeter) -> None:
    """The factory is described from noon on."""
    assert FactoryCaller(meter).set_factory(factory_from(NOON_MS)).changed


@pytest.mark.usefixtures("described")
def test_get__values_and_file(caller: FactoryCaller) -> None:
    """What is described comes back in values and as the file; the same again changes nothing."""
    missing = ("NOT_FOUND", "FACTORY_NOT_FOUND", False)
    assert failure_of(lambda: caller.get_factory(at_ms=NOON_MS - 1)) == missing
    toml = factory_from(NOON_MS)
    answer = caller.set_factory(toml)
    assert (answer.version.version, answer.changed) == (1, False)
    stored = caller.get_factory(at_ms=NOON_MS)
    assert (stored.toml, stored.version) == (toml, answer.version)
    assert caller.versions() == [answer.version]
    (site,) = answer.version.sites
    assert site == pb.FactorySite(
        site="oslo",
        contracted_watts=20_000,
        pue="1.2",
        reserved_watts={"high": 5_000},
        carbon_location="386",
        carbon_source="eGRID 2024",
    )
    (pool,) = answer.version.pools
    assert pool == pb.FactoryPool(
        pool="h100",
        site="oslo",
        hardware="H100 SXM",
        device_count=1,
        idle_mw=500,
        idle=pb.IDLE_POLICY_PROPORTIONAL,
    )
    (weights,) = answer.version.weights
    assert weights == pb.TokenWeights(
        hardware="H100 SXM",
        model="llama-*",
        input="0.5",
        cached_input="0",
        output="1",
        source="guessed",
    )


@pytest.mark.usefixtures("described")
def test_query__shares_as_described(caller: FactoryCaller) -> None:
    """Energy is shared out by what is described, which then cannot be changed any more."""
    counters = (
        reading(0, time_ms=NOON_MS),
        reading(1_000_000, time_ms=NOON_MS + EDGE_MS),
        site_reading(0, time_ms=NOON_MS),
        site_reading(1_600_000, time_ms=NOON_MS + EDGE_MS),
    )
    caller.record(*counters)
    # A prompt weighs half: 100 of them as 50 tokens of output.
    for tier, tokens in (("high", {INPUT: 100}), ("free", {OUTPUT: 150})):
        message = event(tier=tier, tokens=tokens, pool="h100", end_ms=NOON_MS, model="llama-4")
        assert caller.session.record(message) == [1]
    caller.session.counted()
    found = caller.wait_until_attributed(**SPAN)
    shares = {row.tier: (row.energy_mj, row.idle_mj, row.valid_energy_mj) for row in found.rows}
    # Of the 1,000 J the board took 450 for idling.
    assert shares == {"high": (250_000, 112_500, 250_000), "free": (750_000, 337_500, 750_000)}
    (site_energy,) = found.sites
    assert site_energy == pb.SiteEnergy(
        site="oslo",
        facility_mj=1_600_000,
        pools_mj=1_000_000,
        pue="1.6",
        basis=pb.PUE_BASIS_MEASURED,
    )
    by_account = caller.ask("ACCOUNT", "INTERVAL", **SPAN)
    assert [(row.account, row.input_tokens) for row in by_account.rows] == [("acme", 100)]
    (of_pool,) = by_account.pools
    assert of_pool.start_time.ToMilliseconds() == NOON_MS
    assert (of_pool.interval_count, of_pool.valid_interval_count) == (1, 1)
    of_hosts = caller.ask("POOL", boundary=pb.ENERGY_BOUNDARY_HOST, **SPAN)
    assert [row.HasField("energy_mj") for row in of_hosts.rows] == [False]
    assert list(of_hosts.pools) == []
    status, why = refusal_of(lambda: caller.set_factory(factory_from(NOON_MS - EDGE_MS)))
    assert status == ("FAILED_PRECONDITION", "FACTORY_REFUSED", False)
    assert "Energy is attributed up to the interval of" in why


def test_set__faults_come_all_at_once(caller: FactoryCaller) -> None:
    """A file with faults is refused with each of them and its line."""
    toml = factory_from(NOON_MS, changes=('"1.2"', '"0.2"\nwatts = 1'))
    status, why = refusal_of(lambda: caller.set_factory(toml))
    assert status == ("INVALID_ARGUMENT", "FACTORY_INVALID", False)
    assert "6: sites.oslo.pue: must be 1 to 10" in why
    assert "7: sites.oslo.watts: no such key" in why


@pytest.mark.usefixtures("described")
def test_factory__scopes(caller: FactoryCaller, meter: RunningMeter) -> None:
    """Setting takes an operator of the installation, reading a reader."""
    calls: dict[str, Callable[[FactoryCaller], object]] = {
        "OPERATOR": lambda it: it.set_factory("format = 1"),
        "READER": lambda it: (it.get_factory(at_ms=NOON_MS), it.versions()),
    }
    for held in ("OPERATOR", "READER", "PRODUCER", "ADMIN"):
        request = account_service_pb2.CreateApiKeyRequest()
        request.scopes.add(role=f"ROLE_{held}")
        secret = caller.session.call("CreateApiKey", request).secret
        holder = FactoryCaller(meter, api_key=secret)
        for needed, call in calls.items():
            assert is_denied(partial(call, holder)) is (needed != held)
