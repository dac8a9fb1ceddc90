"""Who may call what of the billing service; see `meter.access`."""

from typing import Final

from meter.access import Access, on_account, on_installation, rows
from meter.domain.credential import Role

# Taking terms in may issue what closed months come to beyond what was billed: that is billing.
_CORRECTS: Final = {"correct_issued": Role.BILLER}

BILLING_ACCESS: Final[Access] = rows(
    "tokenworks.billing.v1.BillingService",
    {
        "ImportPriceBook": on_installation(Role.PRICE_EDITOR, also=_CORRECTS),
        "ListPriceVersions": on_installation(Role.READER, Role.PRICE_EDITOR),
        "GetPriceBook": on_installation(Role.READER, Role.PRICE_EDITOR),
        "ExplainPrice": on_installation(Role.READER, Role.PRICE_EDITOR),
        "SetContract": on_installation(Role.PRICE_EDITOR, also=_CORRECTS),
        "ListContracts": on_installation(Role.READER, Role.PRICE_EDITOR),
        "GetContract": on_installation(Role.READER, Role.PRICE_EDITOR),
        "PreviewTerms": on_installation(Role.READER, Role.PRICE_EDITOR),
        "DiffPrices": on_installation(Role.READER, Role.PRICE_EDITOR),
        "PreviewInvoice": on_account(Role.READER, Role.BILLER),
        "CloseMonth": on_installation(Role.BILLER),
        "ListInvoices": on_account(Role.READER, Role.BILLER),
        "GetInvoice": on_account(Role.READER, Role.BILLER),
        "ExplainInvoiceLine": on_account(Role.READER, Role.BILLER),
        "ListLineEvents": on_account(Role.READER, Role.BILLER),
        "QueryRevenue": on_installation(Role.READER),
        "ListPeriods": on_installation(Role.READER, Role.BILLER),
        "ApproveInvoice": on_installation(Role.BILLER),
        "ReopenPeriod": on_installation(Role.BILLER),
        "CorrectPeriod": on_installation(Role.BILLER),
        "CreditInvoice": on_installation(Role.BILLER),
        "VoidInvoice": on_installation(Role.BILLER),
        "RecordPayment": on_installation(Role.BILLER),
    },
)
