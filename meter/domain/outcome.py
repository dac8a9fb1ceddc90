"""What the meter did with an event. Values in precedence order are in `PRECEDENCE`."""

from enum import IntEnum
from typing import Final


class Outcome(IntEnum):
    """Closed and numbered as on the wire; from 10 the event is kept in quarantine."""

    RECORDED = 1
    DUPLICATE = 2
    OBSERVED = 3
    BATCH_CHANGED = 10
    BATCH_MALFORMED = 11
    BATCH_TOO_LARGE = 12
    FIELD_INVALID = 13
    BATCH_DOUBTFUL = 14
    REPORT_DOUBTFUL = 15
    ACCOUNT_UNKNOWN = 20
    ACCOUNT_OUT_OF_SCOPE = 21
    ACCOUNT_CLOSED = 22
    TIER_UNKNOWN = 30
    MODE_UNKNOWN = 31
    FINISH_UNKNOWN = 32
    QUALITY_UNKNOWN = 33
    CLASS_UNKNOWN = 34
    TIME_IN_FUTURE = 40
    TIME_TOO_OLD = 41
    COUNT_NEGATIVE = 50
    COUNT_ABOVE_LIMIT = 51
    COUNT_MISMATCH = 52
    CONFLICT = 60
    REQUEST_ID_REUSED = 61

    @property
    def is_quarantined(self) -> bool:
        """Tell whether the event is kept aside instead of counted."""
        return self >= FIRST_QUARANTINED


FIRST_QUARANTINED: Final = 10
# The numbers ascend in the order in which the check answers.
PRECEDENCE: Final = tuple(Outcome)
