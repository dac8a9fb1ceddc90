"""Who reported for whom: a row has many accounts of a producer, where there was one for each."""

from alembic import op

revision = "0016_pre_reports"
down_revision = "0015_pre_engines"

# Rows are only added, and may name an account again. Thousands of producers report for thousands of
# accounts each: a row and an entry of an index for each pair were most of what counting wrote.
_TABLE = """
CREATE TABLE IF NOT EXISTS producer_reports (
    key_account_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    row_number bigint GENERATED ALWAYS AS IDENTITY,
    account_ids text[] COLLATE "C" NOT NULL CHECK (account_ids <> '{}'),
    PRIMARY KEY (key_account_id, producer, month, row_number)
);
GRANT SELECT, INSERT ON producer_reports TO tokenworks_ingest;
"""

# Servers of before note pair by pair: each of their statements becomes rows here, too.
_FOLLOW = """
CREATE OR REPLACE FUNCTION gather_producer_accounts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO producer_reports (key_account_id, producer, month, account_ids)
    SELECT key_account_id, producer, month, array_agg(account_id ORDER BY account_id)
    FROM noted GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION gather_producer_accounts() FROM PUBLIC;
CREATE OR REPLACE TRIGGER gather_producer_accounts AFTER INSERT ON producer_accounts
    REFERENCING NEW TABLE AS noted
    FOR EACH STATEMENT EXECUTE FUNCTION gather_producer_accounts();
"""

_COPY = """
INSERT INTO producer_reports (key_account_id, producer, month, account_ids)
SELECT key_account_id, producer, month, array_agg(account_id ORDER BY account_id)
FROM producer_accounts GROUP BY 1, 2, 3
"""


def upgrade() -> None:
    """Follow what is noted from now on, then copy what was, beside the traffic.

    What is noted in between is there twice, which changes nothing; so each step may be done again.
    """
    with op.get_context().autocommit_block():
        op.execute(_TABLE)
        op.execute(_FOLLOW)
    op.execute(_COPY)
