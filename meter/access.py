"""Who may call what: the one table, which the server asks before it lets any call in.

A call that has no row here, or in the table of a service that runs beside the meter, is refused.
`docs/reference/access.md` is made from it, and `tests/wire/test_access.py` walks all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from meter.domain.credential import Role


class Place(StrEnum):
    """Where the caller must have the role."""

    # On each account that the request is about, or above it; a request that names none is about the
    # whole installation.
    ACCOUNT = "account"
    INSTALLATION = "installation"
    # Anywhere; what is answered and taken is what the caller's scopes cover. An account that the
    # request names must be among it.
    OWN = "own"
    # Without an API key.
    ANYBODY = "anybody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may make a call: whoever has one of the roles at the place.

    `also` are fields of the request that, when set, take another role at the same place.
    """

    roles: tuple[Role, ...]
    place: Place
    also: Mapping[str, Role] = field(default_factory=dict)


# By full name, package.Service/Method; or by path.
Access: TypeAlias = Mapping[str, Rule]


def rows(service: str, methods: Mapping[str, Rule]) -> dict[str, Rule]:
    """Return the rules of a service by the full names of its calls."""
    return {f"{service}/{method}": rule for method, rule in methods.items()}


def on_account(*roles: Role) -> Rule:
    """Return the rule of a call that is about accounts."""
    return Rule(roles=roles, place=Place.ACCOUNT)


def on_installation(*roles: Role, also: Mapping[str, Role] | None = None) -> Rule:
    """Return the rule of a call that is about everything."""
    return Rule(roles=roles, place=Place.INSTALLATION, also=also or {})


def on_own(*roles: Role) -> Rule:
    """Return the rule of a call that is about what the caller's scopes cover."""
    return Rule(roles=roles, place=Place.OWN)


_ANYBODY: Final = Rule(roles=(), place=Place.ANYBODY)

METER_ACCESS: Final[Access] = {
    **rows(
        "tokenworks.meter.v1.MeterService",
        {
            # Each event is set aside whose account the caller may not report for.
            "StreamUsage": on_own(Role.PRODUCER),
            "RecordUsage": on_own(Role.PRODUCER),
            "CorrectUsage": on_installation(Role.OPERATOR),
            "ListCorrections": on_installation(Role.OPERATOR),
            "ListObservations": on_installation(Role.OPERATOR),
            "QueryUsage": on_account(Role.READER),
            "ListQuarantine": on_installation(Role.OPERATOR),
            "ReleaseQuarantine": on_installation(Role.OPERATOR),
            "RejectQuarantine": on_installation(Role.OPERATOR),
        },
    ),
    **rows(
        "tokenworks.meter.v1.AccountService",
        {
            "CreateAccount": on_account(Role.ADMIN),
            "GetAccount": on_account(Role.READER),
            "ListAccounts": on_own(Role.READER),
            "MoveAccount": on_account(Role.ADMIN),
            "CloseAccount": on_account(Role.ADMIN),
            "CreateApiKey": on_account(Role.ADMIN),
            "ListApiKeys": on_own(Role.ADMIN),
            "RotateApiKey": on_account(Role.ADMIN),
            "RevokeApiKey": on_account(Role.ADMIN),
        },
    ),
    **rows(
        "tokenworks.meter.v1.ProducerService",
        {
            "ListProducers": on_account(Role.READER),
            "RegisterProducer": on_account(Role.OPERATOR),
            "RetireProducer": on_account(Role.OPERATOR),
        },
    ),
    **rows(
        "tokenworks.meter.v1.EnergyService",
        {
            "RecordEnergy": on_installation(Role.PRODUCER),
            "QueryEfficiency": on_installation(Role.READER),
            "ListEnergySources": on_installation(Role.READER),
            "SetFactory": on_installation(Role.OPERATOR),
            "ListFactoryVersions": on_installation(Role.READER),
            "GetFactory": on_installation(Role.READER),
            "MarkSoftware": on_installation(Role.PRODUCER),
            "ListSoftwareMarks": on_installation(Role.READER),
        },
    ),
    **rows(
        "tokenworks.meter.v1.EngineService",
        {"QueryEngineDrift": on_installation(Role.READER)},
    ),
    **rows(
        "tokenworks.meter.v1.AuditService",
        {"ListAuditEntries": on_installation(Role.READER)},
    ),
    **rows(
        "tokenworks.meter.v1.ClockService",
        {"GetClock": on_own(*Role), "AdvanceClock": on_installation(Role.OPERATOR)},
    ),
    # Whose messages are read in the shapes of others; each event is set aside as above.
    **rows(
        "envoy.service.accesslog.v3.AccessLogService",
        {"StreamAccessLogs": on_own(Role.PRODUCER)},
    ),
    **rows(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": on_own(Role.PRODUCER)}
    ),
    **rows("opentelemetry.proto.collector.logs.v1.LogsService", {"Export": on_own(Role.PRODUCER)}),
    **rows("grpc.health.v1.Health", {"Check": _ANYBODY, "Watch": _ANYBODY}),
    **rows(
        "grpc.reflection.v1alpha.ServerReflection",
        {"ServerReflectionInfo": _ANYBODY},
    ),
}

# Reports by HTTP, by the path that they are posted to. Each event is set aside whose account the
# caller may not report for.
HTTP_ACCESS: Final[Access] = {
    path: on_own(Role.PRODUCER)
    for path in ("/api/v1/events", "/v1/litellm", "/v1/traces", "/v1/logs")
}
