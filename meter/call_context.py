"""Which call the code at hand works for, so that what it logs says so."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class CallContext:
    """A call, filled in while more of it becomes known; what is not known yet is None.

    `rpc` is like `MeterService/RecordUsage`, `key_id` the API key's, `account` the id of the
    account that is asked for, and `producer` the name that a stream was opened under. `trace_id`
    is that of the trace that it belongs to, in hexadecimal, where calls are traced.
    """

    rpc: str
    key_id: str | None = None
    account: str | None = None
    producer: str | None = None
    trace_id: str | None = None

    def fields(self) -> dict[str, str]:
        """Return what is known, by the names that the log has."""
        known = {
            "rpc": self.rpc,
            "key_id": self.key_id,
            "account": self.account,
            "producer": self.producer,
            "trace_id": self.trace_id,
        }
        return {name: value for name, value in known.items() if value}


# Each call has a task of its own, and what it starts, on threads too, has a copy of its context:
# one call, known to all of them.
_CURRENT: Final[ContextVar[CallContext | None]] = ContextVar("call", default=None)
_TRACE_ID: Final[ContextVar[str | None]] = ContextVar("trace_id", default=None)


def begin_call(method: str) -> CallContext:
    """Begin a call of this full gRPC name (`/tokenworks.meter.v1.MeterService/RecordUsage`)."""
    call = CallContext(method.rpartition(".")[2], trace_id=_TRACE_ID.get())
    _CURRENT.set(call)
    return call


def find_call() -> CallContext | None:
    """Return the call that is worked for, None outside any."""
    return _CURRENT.get()


def note_trace(trace_id: str) -> None:
    """Say which trace the calls belong to that begin here."""
    _TRACE_ID.set(trace_id)


def note_key(key_id: str) -> None:
    """Say whose API key the call came with."""
    call = _CURRENT.get()
    if call is not None:
        call.key_id = key_id


def note_account(account_id: str | None) -> None:
    """Say which account the call asks for; None is the whole installation."""
    call = _CURRENT.get()
    if call is not None:
        call.account = account_id


def note_producer(account_id: str, producer: str) -> None:
    """Say which producer's stream it is; its account is empty for one of the installation."""
    call = _CURRENT.get()
    if call is not None:
        call.account, call.producer = account_id, producer
