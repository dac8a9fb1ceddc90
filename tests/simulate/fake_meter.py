"""A meter as a fleet sees it: answers as the contract says, and keeps the batches."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import grpc

from tokenworks.meter.v1 import account_service_pb2 as account_messages
from tokenworks.meter.v1 import clock_service_pb2 as clock_messages
from tokenworks.meter.v1 import meter_service_pb2 as messages
from tokenworks.meter.v1.usage_pb2 import UsageBatch, UsageColumns

API_KEY = "fake-key"


@dataclass
class FakeMeter:
    """What a fleet calls of the three services."""

    driven_ms: int | None = None
    """Where its clock stands, when it is a sandbox."""
    is_silent: bool = False
    """Never acknowledges."""
    cut_at: int = 0
    """Breaks each producer's stream once, when this batch arrives and before it is kept."""
    truth: Path | None = None
    """When set, every event has to be in a truth file of this folder by the time it arrives."""
    target: str = ""
    accounts: dict[str, account_messages.Account] = field(default_factory=dict)
    batches: dict[str, dict[int, UsageBatch]] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    """By producer: batches that came again."""
    untold: list[str] = field(default_factory=list)
    """Request ids that arrived before they were in a truth file."""
    _cut: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def stream_usage(
        self,
        request_iterator: Iterator[messages.StreamUsageRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[messages.StreamUsageResponse]:
        """Keep each batch once under its number."""
        assert ("authorization", f"Bearer {API_KEY}") in context.invocation_metadata()
        producer = next(request_iterator).open.producer
        with self._lock:
            kept = self.batches.setdefault(producer, {})
        opened = messages.StreamOpened(next_sequence=len(kept) + 1, batches_in_flight_max=4)
        yield messages.StreamUsageResponse(opened=opened)
        for request in request_iterator:
            if request.WhichOneof("message") != "batch":
                continue
            batch = request.batch
            if batch.sequence == self.cut_at and producer not in self._cut:
                self._cut.add(producer)
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            self._keep(batch, producer=producer, kept=kept)
            if not self.is_silent:
                ack = messages.BatchAck(sequence=batch.sequence, durable_sequence=len(kept))
                yield messages.StreamUsageResponse(ack=ack)

    def list_accounts(
        self,
        request: account_messages.ListAccountsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> account_messages.ListAccountsResponse:
        """The account of this path, if there is one."""
        found = [account for account in self.accounts.values() if account.path == request.path]
        return account_messages.ListAccountsResponse(accounts=found)

    def create_account(
        self,
        request: account_messages.CreateAccountRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> account_messages.CreateAccountResponse:
        """An account with a number for its id."""
        parent = self.accounts.get(request.parent)
        account = account_messages.Account(
            account=f"account-{len(self.accounts)}",
            handle=request.handle,
            parent=request.parent,
            path=f"{parent.path}/{request.handle}" if parent else request.handle,
        )
        self.accounts[account.account] = account
        return account_messages.CreateAccountResponse(account=account)

    def get_clock(
        self,
        _: clock_messages.GetClockRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> clock_messages.GetClockResponse:
        """The time of a sandbox, else the machine's."""
        answer = clock_messages.GetClockResponse(driven=self.driven_ms is not None)
        if self.driven_ms is None:
            answer.now.GetCurrentTime()
        else:
            answer.now.FromMilliseconds(self.driven_ms)
        return answer

    def columns(self) -> list[UsageColumns]:
        """What was kept, each batch once."""
        return [batch.columns for kept in self.batches.values() for batch in kept.values()]

    def _keep(self, batch: UsageBatch, *, producer: str, kept: dict[int, UsageBatch]) -> None:
        if batch.sequence in kept:
            assert kept[batch.sequence] == batch, "the same number, other bytes"
            self.repeats[producer] += 1
            return
        assert batch.sequence == len(kept) + 1, "a hole"
        kept[batch.sequence] = batch
        if self.truth is not None:
            told = {event["request_id"] for event in read_truth(self.truth)}
            self.untold += [name for name in batch.columns.request_id if name not in told]


def read_truth(folder: Path) -> list[dict[str, Any]]:
    """All complete lines of the truth files."""
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.jsonl"))]
    return [
        json.loads(line) for text in texts for line in text[: text.rfind("\n") + 1].splitlines()
    ]


@contextmanager
def running(meter: FakeMeter) -> Iterator[FakeMeter]:
    """Serve it on a free port of this machine, for the time of the block."""
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers(_handlers(meter))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    meter.target = f"127.0.0.1:{port}"
    try:
        yield meter
    finally:
        server.stop(grace=None).wait()


def _handlers(meter: FakeMeter) -> tuple[grpc.GenericRpcHandler, ...]:
    return (
        grpc.method_handlers_generic_handler(
            "tokenworks.meter.v1.MeterService",
            {
                "StreamUsage": grpc.stream_stream_rpc_method_handler(
                    meter.stream_usage,
                    request_deserializer=messages.StreamUsageRequest.FromString,
                    response_serializer=messages.StreamUsageResponse.SerializeToString,
                )
            },
        ),
        grpc.method_handlers_generic_handler(
            "tokenworks.meter.v1.AccountService",
            {
                "ListAccounts": grpc.unary_unary_rpc_method_handler(
                    meter.list_accounts,
                    request_deserializer=account_messages.ListAccountsRequest.FromString,
                    response_serializer=account_messages.ListAccountsResponse.SerializeToString,
                ),
                "CreateAccount": grpc.unary_unary_rpc_method_handler(
                    meter.create_account,
                    request_deserializer=account_messages.CreateAccountRequest.FromString,
                    response_serializer=account_messages.CreateAccountResponse.SerializeToString,
                ),
            },
        ),
        grpc.method_handlers_generic_handler(
            "tokenworks.meter.v1.ClockService",
            {
                "GetClock": grpc.unary_unary_rpc_method_handler(
                    meter.get_clock,
                    request_deserializer=clock_messages.GetClockRequest.FromString,
                    response_serializer=clock_messages.GetClockResponse.SerializeToString,
                )
            },
        ),
    )
