"""What a meter lends to the services that run in its process, or as a job on its database.

The meter knows no service by name: whoever starts it hands them over, and each gets these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
from sqlalchemy import Engine

from meter.audit_log import ChangeLog
from meter.consumption import Consumption
from meter.counted import Counted
from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.domain.credential import Credential, Role
from meter.evidence import Evidence
from meter.reporters import Reporters
from meter.series import Exposition
from meter.usage import Cuts, UsageFacts, UsageSums

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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


class Door(Protocol):
    """Who calls, and whether they may."""

    def caller(self, context: Context) -> Credential:
        """Return what the call's API key stands for; raises Unauthenticated."""
        ...

    def require(self, credential: Credential, role: Role, account_id: str | None) -> None:
        """Refuse what no scope covers; None is the whole installation. Raises PermissionDenied."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A service that runs in the meter's process.

    `name` is its full name on the wire, `add_to` registers it with the server. `on_counted` hears
    what each round of counting added, after its commit, on the counting thread.
    """

    name: str
    add_to: Callable[[grpc.aio.Server], None]
    on_counted: Callable[[Counted], None]


MakeResident: TypeAlias = Callable[[Host, Door, Exposition], Resident]
