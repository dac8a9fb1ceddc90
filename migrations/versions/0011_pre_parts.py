"""The journal lies in parts by the month, and what is archived is known."""

from alembic import op

revision = "0011_pre_parts"
down_revision = "0010_pre_roles"

# What was applied, by name: a server of an older version sees by it whether what it does not know
# took anything away. Those of before the list have no time.
_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_history (
    name text COLLATE "C" PRIMARY KEY,
    apply_time timestamptz DEFAULT now()
);
INSERT INTO schema_history (name, apply_time)
SELECT name, NULL FROM unnest(ARRAY[
    '0001_pre_meter', '0002_pre_billing', '0003_pre_energy', '0004_pre_installation',
    '0005_pre_producers', '0006_pre_corrections', '0007_pre_factory', '0008_pre_periods',
    '0009_pre_leases', '0010_pre_roles'
]) AS name
ON CONFLICT DO NOTHING;
GRANT SELECT ON schema_history TO tokenworks_service;
"""

# The parts of the journal: `[start_time, end_time)` of commits; the first has no start. The
# segments of a part that was dropped lie in files; what is asked of them without a body is kept.
_TABLES = """
CREATE TABLE IF NOT EXISTS journal_parts (
    part text COLLATE "C" PRIMARY KEY,
    start_time timestamptz,
    end_time timestamptz NOT NULL CHECK (end_time > start_time)
);
CREATE TABLE IF NOT EXISTS journal_archives (
    archive_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    part text COLLATE "C" NOT NULL,
    file text COLLATE "C" NOT NULL UNIQUE,
    file_sha256 bytea NOT NULL,
    size_bytes bigint NOT NULL,
    shard smallint NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    segment_count bigint NOT NULL,
    event_count bigint NOT NULL,
    archive_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    drop_time timestamptz
);
CREATE TABLE IF NOT EXISTS archived_segments (
    shard smallint NOT NULL,
    position bigint NOT NULL,
    event_count integer NOT NULL,
    first_end_time timestamptz NOT NULL,
    last_end_time timestamptz NOT NULL,
    commit_time timestamptz NOT NULL,
    archive_id integer NOT NULL REFERENCES journal_archives,
    place integer NOT NULL,
    sha256 bytea NOT NULL,
    PRIMARY KEY (shard, position)
);
"""

# The table that is there becomes the first part as it lies: a promise about its times, given and
# then proved beside the traffic, spares the lock under which they would be looked through. It ends
# one to two months from now, so that a change that is put off meanwhile stops nobody.
_PROMISE = """
DO $$
DECLARE
    now timestamptz := coalesce((SELECT driven_time FROM installation), clock_timestamp());
    until timestamptz := (date_trunc('month', now AT TIME ZONE 'UTC') + interval '2 months')
        AT TIME ZONE 'UTC';
BEGIN
    IF EXISTS (SELECT FROM journal_parts) THEN RETURN; END IF;
    until := greatest(until, (
        SELECT (date_trunc('month', max(commit_time) AT TIME ZONE 'UTC') + interval '1 month')
            AT TIME ZONE 'UTC' FROM journal
    ));
    EXECUTE format(
        'ALTER TABLE journal ADD CONSTRAINT journal_before CHECK (commit_time < %L) NOT VALID',
        until
    );
    INSERT INTO journal_parts VALUES ('journal_first', NULL, until);
END $$;
"""
_PROOF = """
ALTER TABLE journal VALIDATE CONSTRAINT journal_before;
"""

# Each part has the key (shard, position) of its own: that of the whole would have to have the time
# in it. Across parts the row of `shards` gives each position once. What a correction refers to is
# looked up when it is written.
_SWAP = """
LOCK TABLE journal, corrections IN ACCESS EXCLUSIVE MODE;
DO $$
DECLARE
    reference record;
BEGIN
    FOR reference IN
        SELECT conrelid::regclass AS of, conname FROM pg_constraint
        WHERE contype = 'f' AND (confrelid = 'journal'::regclass OR conrelid = 'journal'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', reference.of, reference.conname);
    END LOOP;
    ALTER TABLE journal RENAME TO journal_first;
    CREATE TABLE journal (
        LIKE journal_first INCLUDING DEFAULTS INCLUDING STORAGE,
        CONSTRAINT journal_position_check CHECK (position > 0),
        CONSTRAINT journal_event_count_check CHECK (event_count >= 0)
    ) PARTITION BY RANGE (commit_time);
    EXECUTE format(
        'ALTER TABLE journal ATTACH PARTITION journal_first FOR VALUES FROM (MINVALUE) TO (%L)',
        (SELECT end_time FROM journal_parts WHERE part = 'journal_first')
    );
    ALTER TABLE journal_first DROP CONSTRAINT journal_before;
    CREATE TABLE journal_rest PARTITION OF journal DEFAULT;
    ALTER TABLE journal_rest ADD PRIMARY KEY (shard, position);
END $$;
"""

# Who keeps the journal has no right to change it: these two do it, for whoever may call them.
_MAKE = """
CREATE FUNCTION make_journal_parts() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    now timestamptz := coalesce((SELECT driven_time FROM installation), clock_timestamp());
    month timestamp := date_trunc('month', now AT TIME ZONE 'UTC');
    first timestamptz;
    last timestamptz;
    name text;
    made integer := 0;
BEGIN
    FOR ahead IN 0..3 LOOP
        first := (month + ahead * interval '1 month') AT TIME ZONE 'UTC';
        last := (month + (ahead + 1) * interval '1 month') AT TIME ZONE 'UTC';
        CONTINUE WHEN EXISTS (SELECT FROM journal_parts p
                              WHERE p.end_time > first AND (p.start_time < last) IS NOT false);
        LOCK TABLE journal_parts IN SHARE ROW EXCLUSIVE MODE;
        CONTINUE WHEN EXISTS (SELECT FROM journal_parts p
                              WHERE p.end_time > first AND (p.start_time < last) IS NOT false);
        name := 'journal_' || to_char(first AT TIME ZONE 'UTC', 'YYYY_MM');
        EXECUTE format(
            'CREATE TABLE %I (LIKE journal INCLUDING ALL, PRIMARY KEY (shard, position))', name
        );
        IF EXISTS (SELECT FROM journal_rest WHERE commit_time >= first AND commit_time < last) THEN
            LOCK TABLE journal_rest IN ACCESS EXCLUSIVE MODE;
            EXECUTE format(
                'WITH moved AS (DELETE FROM journal_rest WHERE commit_time >= $1'
                ' AND commit_time < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved', name
            ) USING first, last;
        END IF;
        EXECUTE format(
            'ALTER TABLE journal ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, first, last
        );
        INSERT INTO journal_parts VALUES (name, first, last);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
"""

# Returns why a part stays; empty when it is gone. Late events come for 35 days, and a month that is
# open is still to be billed by what the journal has: it can be looked into as it lies.
_DROP = """
CREATE FUNCTION drop_journal_part(wanted text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    now timestamptz := coalesce((SELECT driven_time FROM installation), clock_timestamp());
    held record;
    kept record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM journal_parts WHERE part = wanted AND end_time <= now - interval '35 days'
    ) THEN
        RETURN 'young';
    END IF;
    EXECUTE format('LOCK TABLE %I IN SHARE MODE', wanted);
    IF NOT EXISTS (SELECT FROM pg_inherits
                   WHERE inhrelid = wanted::regclass AND inhparent = 'journal'::regclass) THEN
        RETURN 'no part';
    END IF;
    EXECUTE format(
        'SELECT count(*) AS segments, coalesce(sum(event_count), 0)::bigint AS events,'
        ' coalesce(min(first_end_time), %L) AS first, coalesce(max(last_end_time), %L) AS last,'
        ' count(*) FILTER (WHERE NOT EXISTS (SELECT FROM archived_segments s'
        ' JOIN journal_archives a USING (archive_id) WHERE (s.shard, s.position) ='
        ' (j.shard, j.position) AND a.part = %L AND s.event_count = j.event_count)) AS unknown,'
        ' count(*) FILTER (WHERE position > coalesce((SELECT c.position FROM counting c'
        ' WHERE c.shard = j.shard), 0)) AS uncounted FROM %I j',
        '-infinity', '-infinity', wanted, wanted
    ) INTO held;
    IF held.uncounted > 0 THEN RETURN 'uncounted'; END IF;
    SELECT coalesce(sum(segment_count), 0) AS segments, coalesce(sum(event_count), 0) AS events
    INTO kept FROM journal_archives WHERE part = wanted;
    IF held.unknown > 0 OR (kept.segments, kept.events) <> (held.segments, held.events) THEN
        RETURN 'not archived';
    END IF;
    IF held.segments > 0 AND (
        EXISTS (SELECT FROM billing_periods WHERE state = 'open'
                AND period_start <= held.last AND period_end > held.first)
        OR EXISTS (SELECT FROM contracts WHERE start_time <= held.last)
           AND coalesce((SELECT max(period_end) FROM billing_periods), '-infinity') <= held.last
    ) THEN
        RETURN 'open month';
    END IF;
    EXECUTE format('DROP TABLE %I', wanted);
    UPDATE journal_archives SET drop_time = clock_timestamp() WHERE part = wanted;
    DELETE FROM journal_parts WHERE part = wanted;
    RETURN '';
END $$;
"""

# All segments that were ever recorded, without their bodies; those in files have an `archive_id`.
_VIEW = """
CREATE VIEW journal_segments AS
SELECT shard, position, event_count, first_end_time, last_end_time, commit_time,
       NULL::integer AS archive_id, NULL::integer AS place, NULL::bytea AS sha256
FROM journal
UNION ALL
SELECT s.shard, s.position, s.event_count, s.first_end_time, s.last_end_time, s.commit_time,
       s.archive_id, s.place, s.sha256
FROM archived_segments s JOIN journal_archives a USING (archive_id)
WHERE a.drop_time IS NOT NULL;
"""

# Whoever read the table reads the whole and what is in files; whoever wrote it keeps it as well.
_RIGHTS = """
REVOKE EXECUTE ON FUNCTION make_journal_parts(), drop_journal_part(text) FROM PUBLIC;
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT quote_ident(r.rolname) AS role, bool_or(a.privilege_type = 'INSERT') AS writes
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'journal_first'::regclass AND r.oid <> c.relowner GROUP BY 1
    LOOP
        EXECUTE format('GRANT SELECT ON journal, journal_parts, journal_archives,'
                       ' archived_segments, journal_segments TO %s', held.role);
        EXECUTE format('REVOKE ALL ON journal_first FROM %s', held.role);
        CONTINUE WHEN NOT held.writes;
        EXECUTE format('GRANT INSERT ON journal, journal_archives, archived_segments TO %s',
                       held.role);
        EXECUTE format('GRANT EXECUTE ON FUNCTION make_journal_parts(), drop_journal_part(text)'
                       ' TO %s', held.role);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Make the journal the first of its parts, beside the traffic; each step may be done again."""
    with op.get_context().autocommit_block():
        op.execute(_HISTORY)
        op.execute(_TABLES)
        op.execute(_PROMISE)
        op.execute(_PROOF)
    op.execute(_SWAP)
    op.execute(_MAKE)
    op.execute(_DROP)
    op.execute(_VIEW)
    op.execute(_RIGHTS)
    op.execute("SELECT make_journal_parts()")
