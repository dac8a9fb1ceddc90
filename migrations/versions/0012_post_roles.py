"""What only servers of before needed is taken away."""

from alembic import op

revision = "0012_post_roles"
down_revision = "0011_pre_parts"

# What administering came to has rows of its own: from now on a key may have one without the other.
# The registry's version moves, so that each server reads the keys again.
_SCOPES = """
INSERT INTO api_key_scopes (key_id, permission, account_id)
SELECT s.key_id, more.role, s.account_id
FROM api_key_scopes s CROSS JOIN (VALUES (4), (5), (6)) AS more (role)
WHERE s.permission = 3 AND (s.account_id IS NULL OR more.role = 6)
ON CONFLICT DO NOTHING;
UPDATE registry SET roles_apart = true, version = version + 1;
"""

# It may still act as either of its successors; by itself it sees which schema this is, and no more.
_SERVICE = """
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tokenworks_service;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM tokenworks_service;
GRANT SELECT ON alembic_version, schema_history TO tokenworks_service;
DO $$ BEGIN
    FOR tries_left IN REVERSE 20..0 LOOP
        BEGIN
            IF current_setting('server_version_num')::integer >= 160000 THEN
                EXECUTE 'GRANT tokenworks_ingest, tokenworks_billing TO tokenworks_service'
                    ' WITH INHERIT FALSE';
            ELSE
                ALTER ROLE tokenworks_service NOINHERIT;
            END IF;
            EXIT;
        EXCEPTION WHEN OTHERS THEN
            IF tries_left = 0 OR SQLERRM NOT LIKE '%concurrently%' THEN RAISE; END IF;
            PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Take from the older servers' role what it could do, and give each API key its own roles."""
    op.execute(_SCOPES)
    op.execute(_SERVICE)
