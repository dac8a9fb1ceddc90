"""The table of access against a real server: every call × role × place, and what answers hold."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from billing.access import BILLING_ACCESS
from meter.access import HTTP_ACCESS, METER_ACCESS, Access, Place, on_account
from meter.domain.credential import Role
from tests.billing.town import book_toml, contract_toml
from tests.billing.wire.office import BEGIN, NOVEMBER, Office
from tests.clock import FakeClock
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.access_probes import (
    ABOVE,
    BELOW,
    ENVOY_FILE,
    FIXED,
    FOREIGN,
    FOREIGN_BELOW,
    NAMED,
    OWN,
    UNNAMED,
    Things,
)
from tests.wire.account_server import NOW, Caller, account_server_on
from tests.wire.posting import post
from tests.wire.session import CALL_SECONDS_MAX, Session, event, opening, reason_of
from tokenworks.billing.v1 import billing_service_pb2 as billing
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1 import (
    audit_service_pb2,
    clock_service_pb2,
    energy_service_pb2,
    engine_service_pb2,
    meter_service_pb2,
    producer_service_pb2,
)

ACCESS: Final[Access] = {**METER_ACCESS, **BILLING_ACCESS}
# Where a key has its role, and whether that covers OWN.
PLACES: Final = {"": True, ABOVE: True, OWN: True, BELOW: False, FOREIGN: False}
# Each account with those whose subtrees it is in.
TREE: Final = {
    ABOVE: (ABOVE,),
    OWN: (ABOVE, OWN),
    BELOW: (ABOVE, OWN, BELOW),
    FOREIGN: (FOREIGN,),
    FOREIGN_BELOW: (FOREIGN, FOREIGN_BELOW),
}
# Calls that change nothing, whoever they are about.
SWAPPED: Final = {
    name: make
    for name, make in {**NAMED, **FIXED}.items()
    if name in NAMED or name.endswith("/GetAccount")
}
SCOPE_MISSING: Final = "SCOPE_MISSING"
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A sandbox after October's close, and a key for each role and place."""

    meter: RunningMeter
    things: Things
    keys: Mapping[tuple[Role, str], str]


@pytest.fixture(scope="module")
def world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two customers with usage, producers, keys and invoices: one's own and a stranger."""
    folder = tmp_path_factory.mktemp("access")
    settings = {"sandbox_clock": BEGIN, "otlp": "true"}
    settings |= {f"otlp_{kind}_address": "127.0.0.1:0" for kind in ("grpc", "http")}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        office = Office(running)
        tree = ((ABOVE, ""), (OWN, ABOVE), (BELOW, OWN), (FOREIGN, ""), (FOREIGN_BELOW, FOREIGN))
        for account, parent in tree:
            office.session.create_account(account, parent=parent)
        office.call("ImportPriceBook", billing.ImportPriceBookRequest(toml=book_toml()))
        for account, series in ((OWN, "OW"), (FOREIGN, "ST")):
            toml = contract_toml(f"of-{account}", covers=account, series=series)
            office.call("SetContract", billing.SetContractRequest(toml=toml))
            office.use(account, input=1_000_000)
            key = make_key(office.session, Role.PRODUCER, account, description=f"{account}'s")
            Session(running, api_key=key.secret).exchange(opening(f"{account}-gateway"))
        office.advance(NOVEMBER)
        close = billing.CloseMonthRequest(month="2026-10", early=True)
        closed = office.call("CloseMonth", close).periods
        numbers = [it.invoice.number for it in closed]
        revoked = make_key(office.session, Role.PRODUCER, OWN)
        office.session.call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=revoked.key.key_id))
        yield World(
            meter=running,
            things=Things(
                invoice=next(it for it in numbers if it.startswith("OW")),
                live_key_id=make_key(office.session, Role.PRODUCER, OWN).key.key_id,
                revoked_key_id=revoked.key.key_id,
            ),
            keys={
                (role, place): make_key(office.session, role, place).secret
                for role, place in itertools.product(Role, PLACES)
            },
        )


def make_key(
    session: Session, role: Role, account: str, *, description: str = ""
) -> pb.CreateApiKeyResponse:
    """Create a key of an account that has one role on it; "" is the installation."""
    request = pb.CreateApiKeyRequest(account=account, description=description)
    request.scopes.add(role=pb.Role.ValueType(role), account=account)
    answer = session.call("CreateApiKey", request)
    assert isinstance(answer, pb.CreateApiKeyResponse)
    return answer


def ask(channel: grpc.Channel, name: str, request: Any, api_key: str | None) -> tuple[str, bytes]:  # noqa: ANN401
    """Make a call; return its reason, "" for none, and the bytes of all that it answers."""
    method = _method(name)
    metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
    read = GetMessageClass(method.output_type).FromString
    make: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    call = make(
        f"/{name}", request_serializer=type(request).SerializeToString, response_deserializer=read
    )
    sent = iter([request]) if method.client_streaming else request
    try:
        answer = call(sent, metadata=metadata, timeout=CALL_SECONDS_MAX)
        answers = list(answer) if method.server_streaming else [answer]
    except grpc.RpcError as error:
        return reason_of(error)[1], b""
    return "", b"".join(it.SerializeToString() for it in answers)


def _method(name: str) -> MethodDescriptor:
    service, _, method = name.partition("/")
    found = Default().FindServiceByName(service)
    assert isinstance(found, ServiceDescriptor)
    return found.methods_by_name[method]


def is_allowed(name: str, role: Role, place: str, account: str) -> bool:
    """Tell by the table whether a key may make a call about OWN, or about all: ""."""
    rule = ACCESS[name]
    if role not in rule.roles:
        return False
    if rule.place is Place.INSTALLATION or (rule.place is Place.ACCOUNT and not account):
        return place == ""
    return not account or PLACES[place]


def calls_of(world: World) -> Iterator[tuple[str, str, Any]]:
    """Yield each call with the account that it is about, "" for none."""
    for name, make in (*NAMED.items(), *FIXED.items()):
        yield name, OWN, make(OWN, world.things)
    for name, make in NAMED.items():
        yield name, "", make("", world.things)
    for name, request in UNNAMED.items():
        yield name, "", request


def test_access__has_each_call_once() -> None:
    """The table has a row for each call of the contract, and the matrix a probe for each row."""
    files = (
        pb,
        audit_service_pb2,
        billing,
        clock_service_pb2,
        energy_service_pb2,
        engine_service_pb2,
        logs_service_pb2,
        meter_service_pb2,
        producer_service_pb2,
        trace_service_pb2,
    )
    calls = {
        f"{service.full_name}/{method.name}"
        for file in (*(it.DESCRIPTOR for it in files), ENVOY_FILE)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    ours = {name for name, rule in ACCESS.items() if rule.place is not Place.ANYBODY}
    assert ours == calls
    assert sorted((*NAMED, *FIXED, *UNNAMED)) == sorted(calls)
    assert not METER_ACCESS.keys() & BILLING_ACCESS.keys()


@pytest.mark.parametrize(
    ("role", "place"),
    list(itertools.product(Role, PLACES)),
    ids=lambda it: it.word if isinstance(it, Role) else it or "everything",
)
def test_access__each_call(world: World, role: Role, place: str) -> None:
    """A key with one role at one place is let in as the table says, and told nothing foreign."""
    key = world.keys[role, place]
    told = {FOREIGN: (f"{OWN}-", OWN), "": ()}.get(place, (FOREIGN, "ST-"))
    with grpc.insecure_channel(world.meter.target) as channel:
        wrong = []
        for name, account, request in calls_of(world):
            reason, answer = ask(channel, name, request, key)
            if (reason != SCOPE_MISSING) is not is_allowed(name, role, place, account):
                wrong.append((name, account, reason))
            if any(it.encode() in answer for it in told):
                wrong.append((name, account, f"told of others: {answer!r}"))
    assert not wrong


@pytest.mark.parametrize("path", HTTP_ACCESS)
def test_access__each_report_by_http(world: World, path: str) -> None:
    """Who may report by HTTP is whom the table lets in, and without an API key nobody."""
    rule = HTTP_ACCESS[path]
    assert rule.place is Place.OWN
    wrong = []
    for (role, place), key in world.keys.items():
        status = post(world.meter, path, b"", api_key=key, content_type="no/such").status
        # Who is let in hears that there is no such kind of report.
        if status != (415 if role in rule.roles else 403):
            wrong.append((role, place, status))
    assert not wrong
    assert post(world.meter, path, b"", api_key="").status == 401


@settings(max_examples=150, deadline=None)
@given(
    role=st.sampled_from(Role),
    place=st.sampled_from(list(PLACES)),
    name=st.sampled_from(sorted(SWAPPED)),
    account=st.sampled_from([*TREE, "nobody"]),
)
def test_access__swapped_ids(
    world: World, *, role: Role, place: str, name: str, account: str
) -> None:
    """Whichever id a caller puts in the place of its own, no scope covers more than before."""
    # Whether there is such an account makes no difference to whoever may not ask for it.
    covered = place == "" or place in TREE.get(account, ())
    with grpc.insecure_channel(world.meter.target) as channel:
        request = SWAPPED[name](account, world.things)
        reason, _ = ask(channel, name, request, world.keys[role, place])
    assert (reason != SCOPE_MISSING) is (role in ACCESS[name].roles and covered)


def test_access__nobody(world: World) -> None:
    """Without an API key no call is let in, but health and reflection."""
    with grpc.insecure_channel(world.meter.target) as channel:
        for name, _, request in calls_of(world):
            assert ask(channel, name, request, None)[0] == "API_KEY_MISSING", name


@pytest.mark.parametrize(
    "request_",
    [
        billing.ImportPriceBookRequest(toml="no", correct_issued=True),
        billing.SetContractRequest(toml="no", correct_issued=True),
    ],
    ids=lambda it: type(it).__name__,
)
def test_access__a_field_that_takes_another_role(
    world: World,
    request_: Any,  # noqa: ANN401
) -> None:
    """Whoever sets prices issues no corrections by it without being a biller."""
    name = f"tokenworks.billing.v1.BillingService/{type(request_).__name__.removesuffix('Request')}"
    session = Session(world.meter)
    request = pb.CreateApiKeyRequest()
    for role in (Role.PRICE_EDITOR, Role.BILLER):
        request.scopes.add(role=pb.Role.ValueType(role))
    both = session.call("CreateApiKey", request).secret
    with grpc.insecure_channel(world.meter.target) as channel:
        alone = world.keys[Role.PRICE_EDITOR, ""]
        assert ask(channel, name, request_, alone)[0] == SCOPE_MISSING
        assert ask(channel, name, request_, both)[0] not in ("", SCOPE_MISSING)


def test_access__events_of_foreign_accounts(world: World) -> None:
    """A producer that is let in reports for its own subtree alone; the rest is set aside."""
    session = Session(world.meter, api_key=world.keys[Role.PRODUCER, OWN])
    at_ms = 1_791_000_000_000
    outcomes = session.record(*(event(it, end_ms=at_ms) for it in (OWN, BELOW, ABOVE, FOREIGN)))
    out_of_scope = 21
    assert outcomes[2:4] == [out_of_scope] * 2
    assert out_of_scope not in outcomes[:2]


def test_door__a_call_without_a_row(database_url: str) -> None:
    """What no row lets in is refused, whoever calls."""
    name = "tokenworks.meter.v1.AccountService/GetAccount"
    access = {key: rule for key, rule in METER_ACCESS.items() if key != name}
    with account_server_on(database_url, clock=FakeClock(NOW), access=access) as server:
        caller = Caller(server, server.api_key)
        caller.create("acme")
        refusal = caller.refusal("GetAccount", pb.GetAccountRequest(account="acme"))
        assert (refusal.reason, refusal.message) == (SCOPE_MISSING, "Nobody may make this call.")
        caller.close()


def test_door__a_servicer_that_does_not_ask(database_url: str) -> None:
    """An answer about accounts does not go out when the door was not asked for any."""
    name = "tokenworks.meter.v1.AccountService/ListAccounts"
    access = {**METER_ACCESS, name: on_account(Role.READER)}
    with account_server_on(database_url, clock=FakeClock(NOW), access=access) as server:
        caller = Caller(server, server.api_key)
        assert caller.refusal("ListAccounts", pb.ListAccountsRequest()).reason == "INTERNAL"
        caller.close()


def test_servicers__name_no_role() -> None:
    """Which role a call takes is in the table and nowhere else."""
    # These speak of roles as what a key has, and of events that are to be counted.
    translators = {"account_messages.py", "intake.py"}
    named = [
        path.name
        for folder in ("meter/wire", "billing/wire")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name not in translators and "Role." in path.read_text("utf-8")
    ]
    assert named == []
