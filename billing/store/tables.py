"""Billing's tables, as SQLAlchemy Core; `migrations/` makes them and a test holds both together."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
)

metadata = MetaData()
_Time = DateTime(timezone=True)
_Amount = Numeric()

# One row; its version moves with every change of books and contracts.
terms = Table(
    "terms",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
price_books = Table(
    "price_books",
    metadata,
    Column("book", Text, primary_key=True),
    Column("start_time", _Time, primary_key=True),
    Column("currency", Text, nullable=False),
    Column("toml", Text, nullable=False),
    Column("import_time", _Time, nullable=False),
    Column("imported_by", Text, nullable=False),
    # The version of the terms that it came with.
    Column("terms_version", BigInteger, nullable=False),
)
contracts = Table(
    "contracts",
    metadata,
    Column("contract", Text, primary_key=True),
    Column("start_time", _Time, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("toml", Text, nullable=False),
    Column("set_time", _Time, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("terms_version", BigInteger, nullable=False),
    # The version as it was read from its file; none for those of before there was such a column.
    Column("compiled", Text),
)
# Whom `covers` meant when the contract was set; accounts may move and be renamed afterwards.
contract_covers = Table(
    "contract_covers",
    metadata,
    Column("contract", Text, primary_key=True),
    Column("start_time", _Time, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("written", Text, nullable=False),
    Column("account_id", Text, nullable=False),
)
# Materialised when they open; the times of one that is closed never change.
billing_periods = Table(
    "billing_periods",
    metadata,
    Column("contract", Text, primary_key=True),
    Column("period_start", _Time, primary_key=True),
    Column("period_end", _Time, nullable=False),
    Column("month", Date, nullable=False),
    Column("version_start", _Time, nullable=False),
    Column("zone", Text, nullable=False),
    # Which edition of the time zones its times were made by.
    Column("tzdata", Text, nullable=False),
    Column("open_time", _Time, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    # Why it was closed although somebody was still waited for.
    Column("exception", Text, nullable=False),
    Column("close_time", _Time),
    Column("cut_id", Integer),
    # Up to which cut, and by which terms, all that it comes to was billed or written off.
    Column("settled_cut_id", Integer),
    Column("settled_terms", LargeBinary),
)
period_approvals = Table(
    "period_approvals",
    metadata,
    Column("approval_id", BigInteger, Identity(always=True), primary_key=True),
    Column("contract", Text, nullable=False),
    Column("period_start", _Time, nullable=False),
    Column("total", _Amount, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("approve_time", _Time, nullable=False),
)
# The last number of each series and year, taken in the transaction that issues: no gap, ever.
invoice_numbers = Table(
    "invoice_numbers",
    metadata,
    Column("series", Text, primary_key=True),
    Column("year", Integer, primary_key=True),
    Column("last", Integer, nullable=False),
)
issued_invoices = Table(
    "issued_invoices",
    metadata,
    Column("number", Text, primary_key=True),
    Column("series", Text, nullable=False),
    Column("year", Integer, nullable=False),
    Column("serial", Integer, nullable=False),
    Column("contract", Text, nullable=False),
    Column("version_start", _Time, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("seller", Text, nullable=False),
    Column("buyer", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("period_start", _Time, nullable=False),
    Column("period_end", _Time, nullable=False),
    Column("issue_time", _Time, nullable=False),
    Column("due_date", Date, nullable=False),
    Column("total", _Amount, nullable=False),
    Column("residue", _Amount, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("cut_id", Integer, nullable=False),
    Column("engine", SmallInteger, nullable=False),
    Column("sandbox", Boolean, nullable=False),
    # The canonical JSON; its hash is checked by the database.
    Column("document", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    # Included in the total.
    Column("tax", _Amount, nullable=False),
    Column("refers_to", Text),
    Column("replaces", Text),
    Column("reason", Text, nullable=False),
    Column("terms_version", BigInteger, nullable=False),
    # Rises from document to document: what of a contract's was there when another was issued.
    Column("issue_order", BigInteger, Identity(always=True), nullable=False),
)
issued_lines = Table(
    "issued_lines",
    metadata,
    Column("number", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("token_class", Text, nullable=False),
    Column("above", Integer, nullable=False),
    Column("window_name", Text, nullable=False),
    Column("book", Text, nullable=False),
    Column("price_from", _Time),
    Column("unit_price", _Amount, nullable=False),
    Column("quantity", _Amount, nullable=False),
    Column("exact", _Amount, nullable=False),
    Column("billed", _Amount, nullable=False),
    Column("residue", _Amount, nullable=False),
    Column("kind", Text, nullable=False),
    Column("group_account", Text, nullable=False),
    # Of an adjustment: the period that it is for, and the line there, if there was one; of a
    # credit: the line that it credits.
    Column("origin_start", _Time),
    Column("origin_number", Text, nullable=False),
    Column("origin_line", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("unit", Text, nullable=False),
    # The id of a charge in its contract.
    Column("charge", Text, nullable=False),
    Column("tax_category", Text, nullable=False),
    Column("tax_rate", _Amount, nullable=False),
)
# A void invoice, and the credit note that takes all of it back.
invoice_voids = Table(
    "invoice_voids",
    metadata,
    Column("number", Text, primary_key=True),
    Column("credit_note", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("void_time", _Time, nullable=False),
)
# What was asked for by each credit, so that it is given once; all of a line where both are null.
invoice_credits = Table(
    "invoice_credits",
    metadata,
    Column("credit_id", Text, primary_key=True),
    Column("credit_note", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("token_count", BigInteger),
    Column("amount", _Amount),
    Column("reason", Text, nullable=False),
)
# Documents as they were made when they were issued; never made again.
invoice_papers = Table(
    "invoice_papers",
    metadata,
    Column("number", Text, primary_key=True),
    Column("form", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
)
# Issued documents whose papers are not made yet.
papers_due = Table(
    "papers_due",
    metadata,
    Column("number", Text, primary_key=True),
)
payments = Table(
    "payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("number", Text, nullable=False),
    Column("amount", _Amount, nullable=False),
    Column("receive_date", Date, nullable=False),
    Column("note", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("record_time", _Time, nullable=False),
)
