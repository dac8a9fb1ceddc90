"""AccountService alone, over a real gRPC server and database, at a time that the test sets."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from meter.access import METER_ACCESS, Access
from meter.domain.interval import INTERVAL_MS
from meter.metrics import Metrics
from meter.registry import Registry
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from meter.wire.account_servicer import AccountServicer
from meter.wire.door import DoorInterceptor, RegistryDoor
from meter.wire.status import StatusInterceptor
from tests.clock import FakeClock
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2_grpc as pb_grpc

PEPPER = b"p" * 32
# A moment inside an interval, and that interval's begin.
BEGIN = 2_000_000 * INTERVAL_MS
NOW = BEGIN + 61_000
CALL_SECONDS_MAX = 20
START_SECONDS_MAX = 20


class AccountServer:
    """A running server; `api_key` is one that may do everything."""

    def __init__(
        self, *, target: str, store: AccountStore, registry: Registry, clock: FakeClock
    ) -> None:
        self.target = target
        self.store = store
        self.registry = registry
        self.clock = clock
        self.api_key = store.create_installation_key(os.urandom, pepper=PEPPER, description="first")
        registry.adopt()


class Caller:
    """Calls a server with an API key; None sends none."""

    def __init__(self, server: AccountServer, api_key: str | None) -> None:
        self._channel = grpc.insecure_channel(server.target)
        self._stub = pb_grpc.AccountServiceStub(self._channel)
        self.metadata = [] if api_key is None else [("authorization", f"Bearer {api_key}")]

    def call(self, rpc: str, request: Any) -> Any:  # noqa: ANN401
        """Make a call; raises grpc.RpcError."""
        method = getattr(self._stub, rpc)
        return method(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def refusal(self, rpc: str, request: Any) -> "Refusal":  # noqa: ANN401
        """Make a call that must fail, and return how."""
        try:
            answer = self.call(rpc, request)
        except grpc.RpcError as error:
            return Refusal(error)
        raise AssertionError(f"{rpc} was not refused: {answer}")

    def create(self, path: str) -> str:
        """Create the account of this path, whose id is its handle; return the id."""
        parent, _, handle = path.rpartition("/")
        request = pb.CreateAccountRequest(
            account=handle, handle=handle, parent=parent.rpartition("/")[2]
        )
        account: str = self.call("CreateAccount", request).account.account
        return account

    def create_key(self, owner: str, *scopes: tuple[int, str]) -> pb.CreateApiKeyResponse:
        """Create a key with these roles on these accounts."""
        request = pb.CreateApiKeyRequest(account=owner)
        for role, account in scopes:
            request.scopes.add(role=pb.Role.ValueType(role), account=account)
        answer = self.call("CreateApiKey", request)
        assert isinstance(answer, pb.CreateApiKeyResponse)
        return answer

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


class Refusal:
    """How a call failed; equal when its caller could not tell both apart."""

    def __init__(self, error: Exception) -> None:
        assert isinstance(error, grpc.Call)
        trailing = dict(error.trailing_metadata() or ())
        details = trailing["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        status = status_pb2.Status.FromString(details)
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        self.code = error.code()
        self.reason = info.reason
        self.metadata = dict(info.metadata)
        self.message = error.details()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refusal) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.code, self.reason))

    def __repr__(self) -> str:
        return f"{self.reason}: {self.message} {self.metadata}"


@contextmanager
def account_server_on(
    database_url: str, *, clock: FakeClock, access: Access = METER_ACCESS
) -> Iterator[AccountServer]:
    """A server for the time of the block, which lets in by the meter's table unless told."""
    engine = make_engine(database_url)
    store = AccountStore(engine, clock)
    registry = Registry(store, clock)
    registry.refresh()
    door = RegistryDoor(registry, clock=clock, key_pepper=PEPPER)
    servicer = AccountServicer(
        store=store,
        registry=registry,
        door=door,
        clock=clock,
        key_pepper=PEPPER,
        random_bytes=os.urandom,
    )
    interceptors = [StatusInterceptor(Metrics()), DoorInterceptor(door, access=access)]
    ports: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server(interceptors=interceptors)
        pb_grpc.add_AccountServiceServicer_to_server(servicer, server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        ready.set()
        await stopping.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(START_SECONDS_MAX)
        target = f"127.0.0.1:{ports[0]}"
        yield AccountServer(target=target, store=store, registry=registry, clock=clock)
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        engine.dispose()
