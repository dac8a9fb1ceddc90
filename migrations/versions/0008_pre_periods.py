"""Periods and their close, documents that correct others, payments, and who changed what."""

from alembic import op

revision = "0008_pre_periods"
down_revision = "0007_pre_factory"

_CLASSES = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_30m",
    "cache_write_1h",
    "cache_write_12h",
    "output",
    "reasoning",
    "audio_input",
    "audio_cache_read",
    "audio_output",
    "image_input",
    "image_cache_read",
    "image_output",
    "video_input",
    "video_output",
)

# Usage that lies before `folded_until`, added up by parts of months that no zone's month divides.
# Whoever counts says that totals have it too: a server of an older version, which does not, is
# refused, and stops counting until it is upgraded. Who had reported for whom before this is not
# known: of months that began before `since`, a close waits for whoever may have.
_TOTALS = """
CREATE TABLE period_totals (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    cell_start timestamptz NOT NULL,
    sku_id integer NOT NULL REFERENCES skus,
    band smallint NOT NULL,
    {classes},
    request_count bigint NOT NULL,
    unfinished_count bigint NOT NULL,
    delivered_output_count bigint NOT NULL,
    estimated_count bigint NOT NULL,
    last_cut_id integer NOT NULL,
    PRIMARY KEY (account_id, cell_start, sku_id, band)
) WITH (fillfactor = 90);
CREATE TABLE totals_fold (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    folded_until timestamptz NOT NULL
        CHECK (extract(epoch FROM folded_until)::bigint % 900 = 0)
);
INSERT INTO totals_fold VALUES (true, '2000-01-01T00:00:00Z');
CREATE TABLE producer_accounts (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    key_account_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    PRIMARY KEY (account_id, month, key_account_id, producer)
);
CREATE TABLE reports_known (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    since timestamptz NOT NULL
);
INSERT INTO reports_known
SELECT true, CASE WHEN EXISTS (SELECT FROM producers)
             THEN coalesce((SELECT driven_time FROM installation), now())
             ELSE '2000-01-01T00:00:00Z' END;
ALTER TABLE producers ADD COLUMN edge boolean NOT NULL DEFAULT false;
ALTER TABLE counting ADD COLUMN totalled_position bigint NOT NULL DEFAULT 0;
UPDATE counting SET totalled_position = position;
ALTER TABLE counting ADD CONSTRAINT counting_totalled CHECK (totalled_position = position);
GRANT SELECT, INSERT, UPDATE ON period_totals TO tokenworks_service;
GRANT DELETE ON period_totals TO tokenworks_service;
GRANT SELECT, UPDATE ON totals_fold TO tokenworks_service;
GRANT SELECT, INSERT ON producer_accounts TO tokenworks_service;
GRANT SELECT ON reports_known TO tokenworks_service;
"""

_AUDIT = """
CREATE TABLE audit_entries (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_time timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL CHECK (action <> ''),
    subject text NOT NULL,
    detail jsonb NOT NULL
);
CREATE INDEX audit_entries_by_subject ON audit_entries (subject, entry_id);
CREATE VIEW audit_log AS
SELECT entry_id, entry_time, key_id, action, subject, detail FROM audit_entries;
GRANT SELECT, INSERT ON audit_entries TO tokenworks_service;
GRANT SELECT ON audit_log TO tokenworks_reader, tokenworks_service;
"""

# What was known when: an invoice is of the terms up to its `terms_version`. Each change had raised
# it by one, so that those of before are numbered by their times. `compiled` is the version as it
# was read from its file, for whoever reads a hundred thousand of them. What an older version sets
# or issues beside this schema is refused: there is no default for what it leaves out.
_TERMS = """
ALTER TABLE price_books ADD COLUMN terms_version bigint NOT NULL DEFAULT 0;
ALTER TABLE contracts ADD COLUMN terms_version bigint NOT NULL DEFAULT 0;
ALTER TABLE contracts ADD COLUMN compiled text;
CREATE TEMPORARY TABLE former_terms ON COMMIT DROP AS
SELECT *, (SELECT version FROM terms) - count(*) OVER () + row_number() OVER (
    ORDER BY set_time, contract IS NOT NULL, book, contract, start_time, revision
) AS version
FROM (
    SELECT import_time AS set_time, book, CAST(NULL AS text) COLLATE "C" AS contract, start_time,
           1 AS revision
    FROM price_books
    UNION ALL
    SELECT set_time, CAST(NULL AS text) COLLATE "C", contract, start_time, revision
    FROM contracts
) AS changes;
CREATE INDEX ON former_terms (set_time, version);
UPDATE price_books b SET terms_version = f.version FROM former_terms f
WHERE (f.book, f.start_time) = (b.book, b.start_time);
UPDATE contracts c SET terms_version = f.version FROM former_terms f
WHERE (f.contract, f.start_time, f.revision) = (c.contract, c.start_time, c.revision);
ALTER TABLE price_books ALTER COLUMN terms_version DROP DEFAULT;
ALTER TABLE contracts ALTER COLUMN terms_version DROP DEFAULT;
"""

_PERIODS = """
CREATE TABLE billing_periods (
    contract text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL
        CHECK (extract(epoch FROM period_start)::bigint % 900 = 0),
    period_end timestamptz NOT NULL CHECK (period_end > period_start)
        CHECK (extract(epoch FROM period_end)::bigint % 900 = 0),
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    version_start timestamptz NOT NULL,
    zone text COLLATE "C" NOT NULL,
    tzdata text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('open', 'closed')),
    outcome text COLLATE "C" NOT NULL DEFAULT '',
    exception text NOT NULL DEFAULT '',
    close_time timestamptz,
    cut_id integer REFERENCES cuts,
    settled_cut_id integer REFERENCES cuts,
    settled_terms bytea,
    PRIMARY KEY (contract, period_start),
    CHECK ((state = 'closed') = (close_time IS NOT NULL AND cut_id IS NOT NULL))
);
CREATE INDEX billing_periods_by_month ON billing_periods (month, state, contract);
CREATE TABLE period_approvals (
    approval_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contract text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    total numeric NOT NULL,
    reason text NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    approve_time timestamptz NOT NULL,
    FOREIGN KEY (contract, period_start) REFERENCES billing_periods
);
CREATE INDEX period_approvals_by_period ON period_approvals (contract, period_start);
INSERT INTO billing_periods
SELECT contract, period_start, period_end,
       date_trunc('month', period_start AT TIME ZONE zone)::date, version_start, zone, '',
       issue_time, 'closed', 'issued', '', issue_time, cut_id, cut_id, NULL
FROM issued_invoices;
GRANT SELECT, INSERT ON billing_periods, period_approvals TO tokenworks_service;
GRANT UPDATE (period_end, month, zone, tzdata, state, outcome, exception, close_time, cut_id,
              settled_cut_id, settled_terms, version_start)
    ON billing_periods TO tokenworks_service;
"""

_DOCUMENTS = """
ALTER TABLE issued_invoices DROP CONSTRAINT issued_invoices_contract_period_start_key;
ALTER TABLE issued_invoices
    ADD COLUMN terms_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN issue_order bigint;
UPDATE issued_invoices i
SET issue_order = o.issue_order, terms_version = coalesce((
    SELECT f.version FROM former_terms f WHERE f.set_time <= i.issue_time
    ORDER BY f.set_time DESC, f.version DESC LIMIT 1
), 0)
FROM (
    SELECT number, row_number() OVER (ORDER BY issue_time, series, year, serial) AS issue_order
    FROM issued_invoices
) o
WHERE o.number = i.number;
ALTER TABLE issued_invoices
    ALTER COLUMN issue_order SET NOT NULL,
    ALTER COLUMN issue_order ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('issued_invoices', 'issue_order'),
              coalesce(max(issue_order), 0) + 1, false) FROM issued_invoices;
ALTER TABLE issued_invoices
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'invoice'
        CHECK (kind IN ('invoice', 'supplementary_invoice', 'credit_note', 'write_off')),
    ADD COLUMN tax numeric NOT NULL DEFAULT 0,
    ADD COLUMN refers_to text COLLATE "C" REFERENCES issued_invoices,
    ADD COLUMN replaces text COLLATE "C" REFERENCES issued_invoices,
    ADD COLUMN reason text NOT NULL DEFAULT '';
ALTER TABLE issued_invoices
    ALTER COLUMN kind DROP DEFAULT,
    ALTER COLUMN terms_version DROP DEFAULT;
CREATE UNIQUE INDEX issued_invoices_once ON issued_invoices (contract, period_start)
    WHERE kind = 'invoice' AND replaces IS NULL AND refers_to IS NULL;
CREATE UNIQUE INDEX issued_invoices_replaced_once ON issued_invoices (replaces)
    WHERE replaces IS NOT NULL;
CREATE INDEX issued_invoices_by_contract ON issued_invoices (contract, period_start);
CREATE INDEX issued_invoices_by_reference ON issued_invoices (refers_to)
    WHERE refers_to IS NOT NULL;
DROP VIEW invoice_lines;
ALTER TABLE issued_lines
    DROP CONSTRAINT issued_lines_check,
    ALTER COLUMN quantity TYPE numeric,
    ALTER COLUMN price_from DROP NOT NULL,
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'usage'
        CHECK (kind IN ('usage', 'adjustment', 'charge', 'credit', 'write_off')),
    ADD COLUMN group_account text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN origin_start timestamptz,
    ADD COLUMN origin_number text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN origin_line integer NOT NULL DEFAULT 0,
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN unit text NOT NULL DEFAULT '',
    ADD COLUMN charge text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN tax_category text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN tax_rate numeric NOT NULL DEFAULT 0,
    ADD CONSTRAINT issued_lines_product CHECK (
        CASE kind
            WHEN 'charge' THEN exact = quantity * unit_price
            WHEN 'credit' THEN exact = billed
            WHEN 'write_off' THEN true
            ELSE exact * 1000000 = quantity * unit_price AND price_from IS NOT NULL
        END
    );
CREATE INDEX issued_lines_by_origin ON issued_lines (origin_number, origin_line)
    WHERE origin_number <> '';
CREATE TABLE invoice_voids (
    number text COLLATE "C" PRIMARY KEY REFERENCES issued_invoices,
    credit_note text COLLATE "C" NOT NULL UNIQUE REFERENCES issued_invoices,
    reason text NOT NULL CHECK (reason <> ''),
    key_id text COLLATE "C" NOT NULL,
    void_time timestamptz NOT NULL
);
CREATE TABLE invoice_credits (
    credit_id text COLLATE "C" PRIMARY KEY CHECK (credit_id <> ''),
    credit_note text COLLATE "C" NOT NULL UNIQUE REFERENCES issued_invoices,
    number text COLLATE "C" NOT NULL,
    line integer NOT NULL,
    token_count bigint,
    amount numeric,
    reason text NOT NULL,
    FOREIGN KEY (number, line) REFERENCES issued_lines
);
CREATE TABLE invoice_papers (
    number text COLLATE "C" NOT NULL REFERENCES issued_invoices,
    form text COLLATE "C" NOT NULL CHECK (form IN ('html', 'pdf', 'csv')),
    body bytea NOT NULL,
    sha256 bytea NOT NULL CHECK (sha256 = sha256(body)),
    PRIMARY KEY (number, form)
);
CREATE TABLE papers_due (
    number text COLLATE "C" PRIMARY KEY REFERENCES issued_invoices
);
CREATE TABLE payments (
    payment_id text COLLATE "C" PRIMARY KEY CHECK (payment_id <> ''),
    number text COLLATE "C" NOT NULL REFERENCES issued_invoices,
    amount numeric NOT NULL CHECK (amount > 0),
    receive_date date NOT NULL,
    note text NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    record_time timestamptz NOT NULL
);
CREATE INDEX payments_by_invoice ON payments (number);
GRANT SELECT, INSERT ON invoice_voids, invoice_credits, invoice_papers, payments
    TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON papers_due TO tokenworks_service;
"""

_VIEWS = """
CREATE VIEW invoice_lines AS
SELECT number, line, model, tier, mode, token_class, above, window_name, book, price_from,
       unit_price, quantity, exact, billed, residue, kind, group_account, origin_start,
       origin_number, origin_line, description, unit, charge, tax_category, tax_rate
FROM issued_lines;
DROP VIEW invoices;
CREATE VIEW invoices AS
SELECT i.number, i.series, i.year, i.contract, i.account_id, i.seller, i.buyer, i.currency, i.zone,
       i.period_start, i.period_end, i.issue_time, i.due_date, i.total, i.residue, i.line_count,
       i.cut_id, i.sandbox, encode(i.sha256, 'hex') AS sha256, i.kind, i.total - i.tax AS net,
       i.tax, i.refers_to, i.replaces, v.credit_note AS voided_by, c.credited, p.paid,
       CASE
           WHEN v.number IS NOT NULL THEN 'void'
           WHEN i.total > 0 AND p.paid >= i.total - c.credited THEN 'paid'
           ELSE 'issued'
       END AS state
FROM issued_invoices i
LEFT JOIN invoice_voids v ON v.number = i.number
CROSS JOIN LATERAL (
    SELECT coalesce(-sum(n.total), 0) AS credited FROM issued_invoices n
    WHERE n.refers_to = i.number AND n.kind = 'credit_note'
) c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS paid FROM payments WHERE number = i.number
) p;
CREATE VIEW invoice_payments AS
SELECT payment_id, number, amount, receive_date, note, key_id, record_time FROM payments;
CREATE VIEW periods AS
SELECT contract, period_start, period_end, month, version_start, zone, tzdata, open_time, state,
       outcome, exception, close_time, cut_id
FROM billing_periods;
GRANT SELECT ON invoices, invoice_lines, invoice_payments, periods
    TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Only add, but for views that are made anew and the rule of one invoice a period."""
    classes = ",\n    ".join(f"{name} bigint NOT NULL DEFAULT 0" for name in _CLASSES)
    # Last what counting waits for: all before it may take minutes, where there are many documents.
    op.execute(_TERMS)
    op.execute(_DOCUMENTS)
    op.execute(_PERIODS)
    op.execute(_AUDIT)
    op.execute(_TOTALS.format(classes=classes))
    op.execute(_VIEWS)
