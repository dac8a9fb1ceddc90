"""What a meter lends to the services that run in its process, or as a job on its database.

The meter knows no service by name: whoever starts it hands them over, and each gets these.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc
from sqlalchemy import Engine

from meter.access import Access
from meter.audit_log import ChangeLog
from meter.consumption import Consumption
from meter.counted import Counted
from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.engine_drift import EngineDrifts
from meter.evidence import Evidence
from meter.reporters import Reporters
from meter.series import Exposition
from meter.usage import Cuts, UsageFacts, UsageSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The meter's side of a service: its clock, its accounts as last known, and what it may read.

    `engine` connects in the service's role. `tiers` are the names that this installation sells.
    `is_driven` says that the clock is a sandbox's, which stands still until it is moved.
    """

    engine: Engine
    clock: Clock
    is_driven: bool
    tiers: tuple[str, ...]
    tree: Callable[[], AccountTree]
    facts: UsageFacts
    sums: UsageSums
    change_log: ChangeLog
    reporters: Reporters
    cuts: Cuts
    evidence: Evidence
    consumption: Consumption
    engine_drifts: EngineDrifts


class Door(Protocol):
    """Judges the call at hand by its row of the access table; raises PermissionDenied.

    What needs no account was judged before the servicer heard of the call.
    """

    def caller(self) -> Credential:
        """Return what the call's API key stands for."""
        ...

    def admit(self, account_id: str | None) -> Credential:
        """Refuse the call when no scope covers the account; None is the whole installation."""
        ...

    def admit_to_all(self, account_ids: Iterable[str | None]) -> Credential:
        """Refuse the call when no scope covers one of the accounts."""
        ...

    def covers(self, account_id: str | None) -> bool:
        """Tell whether the call may be about the account, without refusing it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A service that runs in the meter's process.

    `name` is its full name on the wire, `access` says who may call it, `add_to` registers it with
    the server. `on_counted` hears what each round of counting added, after its commit, on the
    counting thread. `on_watch` is called every few seconds, on a thread, to look at what it shows;
    it may raise Unavailable.
    """

    name: str
    access: Access
    add_to: Callable[[grpc.aio.Server], None]
    on_counted: Callable[[Counted], None]
    on_watch: Callable[[], None] = lambda: None


MakeResident: TypeAlias = Callable[[Host, Door, Exposition], Resident]
