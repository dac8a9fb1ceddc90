"""What the world does wrong: one tree; each class names its reason on the wire.

    MeterError
    ├── Unauthenticated     API_KEY_MISSING · _MALFORMED · _UNKNOWN · _REVOKED
    │                       CERTIFICATE_UNKNOWN · _AMBIGUOUS · _EXPIRED
    ├── PermissionDenied    SCOPE_MISSING
    ├── InvalidArgument     ARGUMENT_INVALID · MESSAGE_UNREADABLE · FACTORY_INVALID
    ├── NotFound            ACCOUNT_NOT_FOUND · API_KEY_NOT_FOUND · QUARANTINE_NOT_FOUND
    │                       EVENT_NOT_FOUND · PRODUCER_NOT_FOUND · FACTORY_NOT_FOUND
    ├── AlreadyExists       ACCOUNT_EXISTS · CERTIFICATE_BOUND
    ├── Refused             a rule says no; sending it again does not help
    ├── Overloaded          OVERLOADED · MESSAGE_TOO_LARGE
    ├── Unavailable         STORE_UNAVAILABLE · SHUTTING_DOWN
    └── StoreRefusal        INTERNAL: the database refuses what was given to it

What a caller sends wrong in an event is no error but an `Outcome`.
"""

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """The closed set of reasons; the values are the wire's names."""

    API_KEY_MISSING = "API_KEY_MISSING"
    API_KEY_MALFORMED = "API_KEY_MALFORMED"
    API_KEY_UNKNOWN = "API_KEY_UNKNOWN"
    API_KEY_REVOKED = "API_KEY_REVOKED"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
    CERTIFICATE_AMBIGUOUS = "CERTIFICATE_AMBIGUOUS"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    SCOPE_MISSING = "SCOPE_MISSING"
    ARGUMENT_INVALID = "ARGUMENT_INVALID"
    MESSAGE_UNREADABLE = "MESSAGE_UNREADABLE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    STREAM_NOT_OPENED = "STREAM_NOT_OPENED"
    PRODUCER_TAKEN_OVER = "PRODUCER_TAKEN_OVER"
    OVERLOADED = "OVERLOADED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    API_KEY_NOT_FOUND = "API_KEY_NOT_FOUND"
    QUARANTINE_NOT_FOUND = "QUARANTINE_NOT_FOUND"
    ACCOUNT_EXISTS = "ACCOUNT_EXISTS"
    CERTIFICATE_BOUND = "CERTIFICATE_BOUND"
    MOVE_REFUSED = "MOVE_REFUSED"
    CLOSE_REFUSED = "CLOSE_REFUSED"
    ROTATION_REFUSED = "ROTATION_REFUSED"
    RELEASE_REFUSED = "RELEASE_REFUSED"
    CLOCK_REFUSED = "CLOCK_REFUSED"
    EVENT_NOT_FOUND = "EVENT_NOT_FOUND"
    CORRECTION_REFUSED = "CORRECTION_REFUSED"
    PRODUCER_NOT_FOUND = "PRODUCER_NOT_FOUND"
    RETIRE_REFUSED = "RETIRE_REFUSED"
    FACTORY_INVALID = "FACTORY_INVALID"
    FACTORY_NOT_FOUND = "FACTORY_NOT_FOUND"
    FACTORY_REFUSED = "FACTORY_REFUSED"
    INTERNAL = "INTERNAL"


class MeterError(Exception):
    """A call failed."""

    retry_seconds: ClassVar[float | None] = None
    cause: str = ""
    """What lies behind it, for the log alone: no caller hears of it."""

    def __init__(self, reason: StrEnum, message: str, **metadata: str) -> None:
        """Take the reason, a sentence that says what to do, and facts for the caller.

        The reason is of `Reason`, or of the closed set of the service that runs beside the meter.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class Unauthenticated(MeterError):
    """The API key is missing or not valid."""


class PermissionDenied(MeterError):
    """The API key's scopes do not allow this."""


class InvalidArgument(MeterError):
    """A field of the request is wrong."""


class NotFound(MeterError):
    """There is no such thing."""


class AlreadyExists(MeterError):
    """The name is taken."""


class Refused(MeterError):
    """A rule says no; sending it again does not help."""


class Overloaded(MeterError):
    """Too much at once; wait and send again."""

    retry_seconds = 1.0


class Unavailable(MeterError):
    """The database is away or the server stops; nothing was acknowledged, send again."""

    retry_seconds = 1.0


class StoreRefusal(MeterError):
    """The database refuses a group's data; the group is split until the culprit is alone."""
