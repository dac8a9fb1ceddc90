"""Billing: price books, contracts, invoices and their lines."""

from alembic import op

revision = "0002_pre_billing"
down_revision = "0001_pre_meter"

_TERMS = """
CREATE TABLE terms (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version bigint NOT NULL DEFAULT 1
);
INSERT INTO terms DEFAULT VALUES;
CREATE TABLE price_books (
    book text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL
        CHECK (extract(epoch FROM start_time)::bigint % 900 = 0),
    currency text COLLATE "C" NOT NULL,
    toml text NOT NULL,
    import_time timestamptz NOT NULL,
    imported_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (book, start_time)
);
CREATE TABLE contracts (
    contract text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL
        CHECK (extract(epoch FROM start_time)::bigint % 900 = 0),
    revision integer NOT NULL CHECK (revision > 0),
    toml text NOT NULL,
    set_time timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (contract, start_time, revision)
);
CREATE TABLE contract_covers (
    contract text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL,
    revision integer NOT NULL,
    place integer NOT NULL,
    written text NOT NULL,
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    PRIMARY KEY (contract, start_time, revision, place),
    FOREIGN KEY (contract, start_time, revision) REFERENCES contracts
);
"""

_INVOICES = """
CREATE TABLE invoice_numbers (
    series text COLLATE "C" NOT NULL,
    year integer NOT NULL,
    last integer NOT NULL CHECK (last > 0),
    PRIMARY KEY (series, year)
);
CREATE TABLE issued_invoices (
    number text COLLATE "C" PRIMARY KEY,
    series text COLLATE "C" NOT NULL,
    year integer NOT NULL,
    serial integer NOT NULL CHECK (serial > 0),
    contract text COLLATE "C" NOT NULL,
    version_start timestamptz NOT NULL,
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    seller text NOT NULL,
    buyer text NOT NULL,
    currency text COLLATE "C" NOT NULL,
    zone text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL CHECK (period_end > period_start),
    issue_time timestamptz NOT NULL,
    due_date date NOT NULL,
    total numeric NOT NULL,
    residue numeric NOT NULL,
    line_count integer NOT NULL,
    cut_id integer NOT NULL REFERENCES cuts,
    engine smallint NOT NULL,
    sandbox boolean NOT NULL,
    document bytea NOT NULL,
    sha256 bytea NOT NULL CHECK (sha256 = sha256(document)),
    UNIQUE (series, year, serial),
    UNIQUE (contract, period_start)
);
CREATE INDEX issued_invoices_by_account ON issued_invoices (account_id, period_start);
CREATE TABLE issued_lines (
    number text COLLATE "C" NOT NULL REFERENCES issued_invoices,
    line integer NOT NULL CHECK (line > 0),
    model text NOT NULL,
    tier text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    token_class text COLLATE "C" NOT NULL,
    above integer NOT NULL,
    window_name text NOT NULL,
    book text COLLATE "C" NOT NULL,
    price_from timestamptz NOT NULL,
    unit_price numeric NOT NULL CHECK (unit_price >= 0),
    quantity bigint NOT NULL,
    exact numeric NOT NULL CHECK (exact * 1000000 = quantity * unit_price),
    billed numeric NOT NULL,
    residue numeric NOT NULL CHECK (residue = exact - billed),
    PRIMARY KEY (number, line)
);
CREATE VIEW invoices AS
SELECT number, series, year, contract, account_id, seller, buyer, currency, zone, period_start,
       period_end, issue_time, due_date, total, residue, line_count, cut_id, sandbox,
       encode(sha256, 'hex') AS sha256
FROM issued_invoices;
CREATE VIEW invoice_lines AS
SELECT number, line, model, tier, mode, token_class, above, window_name, book, price_from,
       unit_price, quantity, exact, billed, residue
FROM issued_lines;
"""

_PRIVILEGES = """
GRANT SELECT, INSERT ON price_books, contracts, contract_covers, issued_invoices, issued_lines
    TO tokenworks_service;
GRANT SELECT, UPDATE ON terms TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE ON invoice_numbers TO tokenworks_service;
GRANT SELECT ON invoices, invoice_lines TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Create all of it; what was issued can be added to and not changed, by privilege."""
    op.execute(_TERMS)
    op.execute(_INVOICES)
    op.execute(_PRIVILEGES)
