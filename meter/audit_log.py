"""The audit log: who changed what, written in the transaction of the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from sqlalchemy import Connection

# Who it was, where no API key did it: a job on the database, or the meter itself.
JOB: Final = "job"
METER: Final = "meter"


class Action(StrEnum):
    """What can be done to what the meter keeps; a service beside it has actions of its own.

    `docs/operating/audit-log.md` says of each what its subject and its detail are.
    """

    ACCOUNT_CREATE = "account.create"
    ACCOUNT_MOVE = "account.move"
    ACCOUNT_CLOSE = "account.close"
    KEY_CREATE = "key.create"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    PRODUCER_REGISTER = "producer.register"
    PRODUCER_RETIRE = "producer.retire"
    EVENT_CORRECT = "event.correct"
    QUARANTINE_RELEASE = "quarantine.release"
    QUARANTINE_REJECT = "quarantine.reject"
    FACTORY_SET = "factory.set"
    SOFTWARE_MARK = "software.mark"
    USAGE_RECOUNT = "usage.recount"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change: who (the id of an API key, JOB or METER), when (ms), and what to what.

    `action` is a noun and a verb, of `Action` or of a service's own, such as `contract.set`;
    `subject` an id, a name or a number.
    `detail` is JSON: strings, whole numbers, truths, lists and tables of them; money as strings.
    """

    at_ms: int
    key_id: str
    action: str
    subject: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A change as it is kept; ids count up in the order of writing."""

    entry_id: int
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries: of `[start_ms, end_ms)`, of an action or all that begin with it and a point.

    None and "" stand for all. `before_id` is the entry after which, going back, to go on.
    """

    start_ms: int | None = None
    end_ms: int | None = None
    action: str = ""
    subject: str = ""
    key_id: str = ""
    before_id: int | None = None
    limit: int = 100


class ChangeLog(Protocol):
    """Writes entries, in the transaction of whoever changes something."""

    def write(self, connection: Connection, *changes: Change) -> None:
        """Write entries for changes that this very transaction makes."""
        ...


class AuditReader(Protocol):
    """Reads entries."""

    def entries(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return entries, newest first."""
        ...
