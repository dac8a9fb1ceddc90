"""Roles: who may do what, on the wire and in the database."""

from alembic import op

revision = "0010_pre_roles"
down_revision = "0009_pre_leases"

# While older servers go on, roles that they do not know are kept in nobody's scopes: who
# administers has them by the code. See 0012.
_SCOPES = """
ALTER TABLE api_keys ADD COLUMN certificate_name text COLLATE "C" UNIQUE;
ALTER TABLE registry ADD COLUMN roles_apart boolean NOT NULL DEFAULT false;
"""

# Roles live in the cluster, not in the database: another database may have made them, or be at it.
# Whoever may act as tokenworks_service, as all servers of before, may act as either.
_ROLES = """
DO $$ BEGIN
    FOR tries_left IN REVERSE 20..0 LOOP
        BEGIN
            FOR wanted IN 1..3 LOOP
                BEGIN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', (ARRAY['tokenworks_ingest',
                        'tokenworks_billing', 'tokenworks_tenant'])[wanted]);
                EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
                END;
            END LOOP;
            IF NOT pg_has_role('tokenworks_service', 'tokenworks_ingest', 'MEMBER') THEN
                GRANT tokenworks_ingest TO tokenworks_service;
            END IF;
            IF NOT pg_has_role('tokenworks_service', 'tokenworks_billing', 'MEMBER') THEN
                GRANT tokenworks_billing TO tokenworks_service;
            END IF;
            EXIT;
        EXCEPTION WHEN OTHERS THEN
            IF tries_left = 0 OR SQLERRM NOT LIKE '%concurrently%' THEN RAISE; END IF;
            PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$;
DO $$ BEGIN
    -- Which standbys have what: what was granted for TOKENWORKS_DURABLE_STANDBYS goes on.
    IF pg_has_role('tokenworks_service', 'pg_read_all_stats', 'USAGE') THEN
        GRANT pg_read_all_stats TO tokenworks_ingest;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'as a superuser: GRANT pg_read_all_stats TO tokenworks_ingest';
END $$;
GRANT USAGE ON SCHEMA public TO tokenworks_ingest, tokenworks_billing;
"""

_INGEST = """
GRANT SELECT, INSERT ON account_parents, api_key_scopes, skus, dimensions, journal,
    producer_instances, producer_gaps, producer_accounts, cuts, cut_positions, corrections,
    energy_shares, factory_versions, software_marks, audit_entries, installation, quarantine
    TO tokenworks_ingest;
GRANT UPDATE (driven_time) ON installation TO tokenworks_ingest;
GRANT UPDATE (state, decide_time, decided_by, reason) ON quarantine TO tokenworks_ingest;
GRANT SELECT, INSERT, UPDATE ON accounts, api_keys, shards, producers, counting, usage,
    energy_intervals, pool_intervals, pool_usage TO tokenworks_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON energy_counters, period_totals, task_leases
    TO tokenworks_ingest;
GRANT SELECT, INSERT, DELETE ON event_claims TO tokenworks_ingest;
GRANT SELECT, UPDATE ON registry, totals_fold TO tokenworks_ingest;
GRANT SELECT ON reports_known, alembic_version, usage_daily, usage_corrections, efficiency_hourly,
    audit_log TO tokenworks_ingest;
"""

# It reads what was counted and never an API key, and writes of the meter's tables the log alone.
_BILLING = """
GRANT SELECT, INSERT ON price_books, contracts, contract_covers, billing_periods, period_approvals,
    issued_invoices, issued_lines, invoice_voids, invoice_credits, invoice_papers, payments
    TO tokenworks_billing;
GRANT UPDATE (period_end, month, zone, tzdata, state, outcome, exception, close_time, cut_id,
              settled_cut_id, settled_terms, version_start)
    ON billing_periods TO tokenworks_billing;
GRANT SELECT, UPDATE ON terms TO tokenworks_billing;
GRANT SELECT, INSERT, UPDATE ON invoice_numbers TO tokenworks_billing;
GRANT SELECT, INSERT, UPDATE, DELETE ON papers_due TO tokenworks_billing;
GRANT INSERT, SELECT (entry_id) ON audit_entries TO tokenworks_billing;
GRANT SELECT ON accounts, account_parents, skus, dimensions, shards, journal, corrections, counting,
    cuts, cut_positions, usage, period_totals, totals_fold, energy_shares, energy_intervals,
    pool_intervals, pool_usage, factory_versions, installation,
    invoices, invoice_lines, invoice_payments, periods TO tokenworks_billing;
"""

# What a customer's own tools read: the views of finance, cut down to the subtree of the account
# that the login is for. `session_user` is whoever logged in, whatever role was taken since.
_TENANT = """
CREATE TABLE reader_logins (
    login text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    grant_time timestamptz NOT NULL DEFAULT now()
);
CREATE SCHEMA tenant;
CREATE VIEW tenant.own WITH (security_barrier) AS
WITH RECURSIVE edges AS (
    SELECT account_id, start_time, parent_id,
           lead(start_time, 1, 'infinity') OVER (PARTITION BY account_id ORDER BY start_time)
               AS end_time
    FROM account_parents
), own (account_id, start_time, end_time) AS (
    SELECT account_id, '-infinity'::timestamptz, 'infinity'::timestamptz
    FROM reader_logins WHERE login = session_user
    UNION ALL
    SELECT e.account_id, greatest(e.start_time, o.start_time), least(e.end_time, o.end_time)
    FROM own o JOIN edges e ON e.parent_id = o.account_id
        AND e.start_time < o.end_time AND e.end_time > o.start_time
)
SELECT account_id, start_time, end_time FROM own;
CREATE VIEW tenant.accounts WITH (security_barrier) AS
SELECT account_id, handle, create_time, close_time FROM accounts
WHERE account_id IN (
    SELECT account_id FROM tenant.own WHERE start_time <= now() AND end_time > now()
);
CREATE VIEW tenant.usage_daily WITH (security_barrier) AS
SELECT at::date AS day, account_id, handle, model, served_model, tier,
       CASE mode WHEN 1 THEN 'online' WHEN 2 THEN 'batch' END AS mode, region,
       {classes}, request_count, delivered_output_count, estimated_count, energy_mj
FROM (
    SELECT (min(first) AT TIME ZONE 'UTC')::date AS first,
           (max(last) AT TIME ZONE 'UTC')::date AS last
    FROM (SELECT DISTINCT account_id FROM tenant.own) AS mine
    CROSS JOIN LATERAL (
        SELECT min(interval_start) AS first, max(interval_start) AS last
        FROM usage u WHERE u.account_id = mine.account_id
    ) AS each
) AS bounds
CROSS JOIN LATERAL generate_series(first::timestamp, last::timestamp, interval '1 day') AS days (at)
CROSS JOIN LATERAL (
    SELECT used.*, energy_mj
    FROM (
        SELECT u.account_id, u.sku_id,
               {sums},
               sum(u.request_count)::bigint AS request_count,
               sum(u.delivered_output_count)::bigint AS delivered_output_count,
               sum(u.estimated_count)::bigint AS estimated_count
        FROM tenant.own o JOIN usage u ON u.account_id = o.account_id
            AND u.interval_start >= o.start_time AND u.interval_start < o.end_time
        WHERE u.interval_start >= at AT TIME ZONE 'UTC'
          AND u.interval_start < (at + interval '1 day') AT TIME ZONE 'UTC'
        GROUP BY 1, 2
    ) AS used
    LEFT JOIN (
        SELECT e.account_id, e.sku_id, nullif(sum(e.energy_mj), 0)::bigint AS energy_mj
        FROM tenant.own o JOIN energy_shares e ON e.account_id = o.account_id
            AND e.interval_start >= o.start_time AND e.interval_start < o.end_time
        WHERE e.interval_start >= at AT TIME ZONE 'UTC'
          AND e.interval_start < (at + interval '1 day') AT TIME ZONE 'UTC'
          AND e.boundary = 'board' AND e.sku_id IS NOT NULL
        GROUP BY 1, 2
    ) AS energy USING (account_id, sku_id)
    OFFSET 0
) AS within
JOIN accounts USING (account_id)
JOIN skus USING (sku_id);
CREATE VIEW tenant.invoices WITH (security_barrier) AS
SELECT i.* FROM invoices i JOIN issued_invoices d USING (number)
WHERE EXISTS (SELECT FROM contract_covers c
              WHERE (c.contract, c.start_time) = (d.contract, d.version_start))
  AND NOT EXISTS (
    SELECT FROM contract_covers c
    WHERE (c.contract, c.start_time) = (d.contract, d.version_start)
      AND c.account_id NOT IN (
        SELECT account_id FROM tenant.own WHERE start_time <= now() AND end_time > now()
      )
  );
CREATE VIEW tenant.invoice_lines WITH (security_barrier) AS
SELECT * FROM invoice_lines WHERE number IN (SELECT number FROM tenant.invoices);
CREATE VIEW tenant.invoice_payments WITH (security_barrier) AS
SELECT * FROM invoice_payments WHERE number IN (SELECT number FROM tenant.invoices);
CREATE VIEW tenant.usage_corrections WITH (security_barrier) AS
SELECT c.* FROM usage_corrections c JOIN tenant.own o ON o.account_id = c.account_id
    AND c.end_time >= o.start_time AND c.end_time < o.end_time;
GRANT USAGE ON SCHEMA tenant TO tokenworks_tenant;
GRANT SELECT ON tenant.accounts, tenant.usage_daily, tenant.invoices, tenant.invoice_lines,
    tenant.invoice_payments, tenant.usage_corrections TO tokenworks_tenant;
"""

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


def upgrade() -> None:
    """Only add: roles beside the one that older servers act as, and views for customers."""
    op.execute(_SCOPES)
    op.execute(_ROLES)
    op.execute(_INGEST)
    op.execute(_BILLING)
    op.execute(
        _TENANT.format(
            classes=", ".join(_CLASSES),
            sums=",\n               ".join(f"sum(u.{it})::bigint AS {it}" for it in _CLASSES),
        )
    )
