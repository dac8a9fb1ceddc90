"""What billing writes into the audit log, beside what the meter does."""

from enum import StrEnum


class BillingAction(StrEnum):
    """What can be done to terms, months and documents.

    `docs/operating/audit-log.md` says of each what its subject and its detail are.
    """

    BOOK_IMPORT = "book.import"
    CONTRACT_SET = "contract.set"
    PERIOD_CLOSE = "period.close"
    PERIOD_REOPEN = "period.reopen"
    PERIOD_APPROVE = "period.approve"
    INVOICE_ISSUE = "invoice.issue"
    INVOICE_CREDIT = "invoice.credit"
    INVOICE_VOID = "invoice.void"
    INVOICE_CORRECT = "invoice.correct"
    INVOICE_WRITE_OFF = "invoice.write_off"
    PAYMENT_RECORD = "payment.record"
