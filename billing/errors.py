"""Why billing refuses: its own closed set of reasons, under the meter's classes of error."""

from enum import StrEnum


class BillingReason(StrEnum):
    """The closed set of reasons; the values are the wire's names."""

    BOOK_INVALID = "BOOK_INVALID"
    BOOK_NOT_FOUND = "BOOK_NOT_FOUND"
    BOOK_CHANGED = "BOOK_CHANGED"
    CONTRACT_INVALID = "CONTRACT_INVALID"
    CONTRACT_NOT_FOUND = "CONTRACT_NOT_FOUND"
    COVER_TAKEN = "COVER_TAKEN"
    PERIOD_ISSUED = "PERIOD_ISSUED"
    MONTH_NOT_ENDED = "MONTH_NOT_ENDED"
    ACCOUNT_NOT_COVERED = "ACCOUNT_NOT_COVERED"
    INVOICE_NOT_FOUND = "INVOICE_NOT_FOUND"
    LINE_NOT_FOUND = "LINE_NOT_FOUND"
