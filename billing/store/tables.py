"""Billing's tables, as SQLAlchemy Core; `migrations/` makes them and a test holds both together."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
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
    Column("price_from", _Time, nullable=False),
    Column("unit_price", _Amount, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("exact", _Amount, nullable=False),
    Column("billed", _Amount, nullable=False),
    Column("residue", _Amount, nullable=False),
)
