"""What load balancers, orchestrators and explorers see of a running meter."""

import socket
from collections.abc import Iterator

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session
from tests.wire.talk import SERVING, health_of, read_http

METER = "tokenworks.meter.v1.MeterService"
ACCOUNTS = "tokenworks.meter.v1.AccountService"
AUDIT = "tokenworks.meter.v1.AuditService"
CLOCK = "tokenworks.meter.v1.ClockService"
ENERGY = "tokenworks.meter.v1.EnergyService"
ENGINES = "tokenworks.meter.v1.EngineService"
PRODUCERS = "tokenworks.meter.v1.ProducerService"
BILLING = "tokenworks.billing.v1.BillingService"


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter that all tests here look at."""
    folder = tmp_path_factory.mktemp("health")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        yield running


@pytest.mark.parametrize("service", ["", METER, ACCOUNTS, CLOCK, ENERGY, ENGINES, BILLING])
def test_health__serves(meter: RunningMeter, service: str) -> None:
    """The server as a whole and each of its services say that they serve, without an API key."""
    assert health_of(Session(meter), service) == SERVING


def test_health__of_no_service(meter: RunningMeter) -> None:
    """A service that is not here has no health."""
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        health_of(Session(meter), "tokenworks.meter.v1.Nothing")


def reflect(
    meter: RunningMeter, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    """Ask the server about itself."""
    call = Session(meter).channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = call(iter([request]), timeout=20, wait_for_ready=True)
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


def test_reflection__lists_the_services(meter: RunningMeter) -> None:
    """A client without our files finds the services."""
    answer = reflect(
        meter, reflection_pb2.ServerReflectionRequest(list_services="")
    ).list_services_response
    assert {service.name for service in answer.service} == {
        METER,
        ACCOUNTS,
        AUDIT,
        CLOCK,
        ENERGY,
        ENGINES,
        BILLING,
        PRODUCERS,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_reflection__shows_the_contract(meter: RunningMeter) -> None:
    """And it finds what they take and answer."""
    answer = reflect(
        meter, reflection_pb2.ServerReflectionRequest(file_containing_symbol=METER)
    ).file_descriptor_response
    assert b"StreamUsage" in b"".join(answer.file_descriptor_proto)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/healthz", 200, "OK\n"),
        ("/readyz", 200, "OK\n"),
        ("/", 404, "Not Found\n"),
        ("/healthz/", 404, "Not Found\n"),
        ("/metrics/../healthz", 404, "Not Found\n"),
        ("/%00", 404, "Not Found\n"),
    ],
)
def test_http__pages(meter: RunningMeter, path: str, status: int, body: str) -> None:
    """The HTTP port has its three pages and no others."""
    assert read_http(meter, path) == (status, body)


def test_http__one_slow_reader_holds_nobody_up(meter: RunningMeter) -> None:
    """A connection on which nothing is asked does not keep others from their answers."""
    host, _, port = meter.http.rpartition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(b"GET /healthz HT")
        assert read_http(meter, "/readyz") == (200, "OK\n")


def test_call__of_no_method(meter: RunningMeter) -> None:
    """A method that is not here is UNIMPLEMENTED, with a key or without."""
    call = Session(meter).channel.unary_unary(
        f"/{METER}/DeleteEverything", request_serializer=bytes, response_deserializer=bytes
    )
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        call(b"", timeout=20)
