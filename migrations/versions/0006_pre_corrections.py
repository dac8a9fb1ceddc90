"""Corrections: which recorded event was taken back, and what is counted in its place."""

from alembic import op

revision = "0006_pre_corrections"
down_revision = "0005_pre_producers"

# The key on the corrected row decides races: an event is corrected once.
_CORRECTIONS = """
CREATE TABLE corrections (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard smallint NOT NULL,
    position bigint NOT NULL,
    event_row integer NOT NULL CHECK (event_row >= 0),
    correction_shard smallint NOT NULL,
    correction_position bigint NOT NULL,
    producer text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    event_index integer NOT NULL,
    before jsonb NOT NULL,
    after jsonb,
    key_id text COLLATE "C" NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    correct_time timestamptz NOT NULL,
    UNIQUE (shard, position, event_row),
    UNIQUE (correction_shard, correction_position),
    FOREIGN KEY (shard, position) REFERENCES journal,
    FOREIGN KEY (correction_shard, correction_position) REFERENCES journal
        DEFERRABLE INITIALLY DEFERRED
);
GRANT SELECT, INSERT ON corrections TO tokenworks_service;
CREATE INDEX quarantine_by_batch ON quarantine (producer, sequence) WHERE producer <> '';
"""

# One row for each event that was taken back (sign -1) or counted in its place (1), by token class.
_VIEW = """
CREATE VIEW usage_corrections AS
SELECT c.correction_id, c.correct_time,
       CASE WHEN c.after IS NULL THEN 'void' ELSE 'replace' END AS kind,
       e.sign, e.event ->> 'account' AS account_id, a.handle,
       (e.event ->> 'end_time')::timestamptz AS end_time,
       e.event ->> 'model' AS model, e.event ->> 'tier' AS tier,
       t.token_class, e.sign * coalesce(t.tokens::bigint, 0) AS tokens,
       c.producer, c.sequence, c.event_index, c.key_id, c.reason
FROM corrections c
CROSS JOIN LATERAL (VALUES (-1, c.before), (1, c.after)) AS e (sign, event)
LEFT JOIN accounts a ON a.account_id = e.event ->> 'account'
LEFT JOIN LATERAL jsonb_each_text(e.event -> 'tokens') AS t (token_class, tokens) ON true
WHERE e.event IS NOT NULL;
GRANT SELECT ON usage_corrections TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Create the table, append-only by privilege, and the view that others read."""
    op.execute(_CORRECTIONS)
    op.execute(_VIEW)
