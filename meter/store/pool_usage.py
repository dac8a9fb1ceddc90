"""Usage by pool and account, added beside usage itself: what energy is shared out by."""

from collections.abc import Collection

from sqlalchemy import Connection, text

from meter.domain.tokens import CACHED_CLASSES, OUTPUT_CLASSES, PROMPT_CLASSES, TokenClass

# Those rows alone whose events name a pool. Their intervals are marked in the order of the key, and
# after all of the rows: whoever attributes locks the intervals first, and then reads the rows. It
# is one statement, for an account and a sku each have a row, and nobody here needs to see them.
_ADD: str = """
WITH added AS (
    INSERT INTO pool_usage AS u
        (pool, interval_start, account_id, sku_id, input_tokens, cached_tokens, output_tokens,
         total_tokens, request_count)
    SELECT d.pool, i.interval_start, d.account_id, d.sku_id, sum({input}), sum({cached}),
           sum({output}), sum({total}), sum(i.request_count)
    FROM incoming_usage i JOIN dimensions d ON d.dimension_id = i.dimension_id AND d.pool <> ''
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (pool, interval_start, account_id, sku_id) DO UPDATE
    SET input_tokens = u.input_tokens + EXCLUDED.input_tokens,
        cached_tokens = u.cached_tokens + EXCLUDED.cached_tokens,
        output_tokens = u.output_tokens + EXCLUDED.output_tokens,
        total_tokens = u.total_tokens + EXCLUDED.total_tokens,
        request_count = u.request_count + EXCLUDED.request_count
    RETURNING pool, interval_start
)
INSERT INTO pool_intervals AS i (pool, interval_start)
SELECT DISTINCT pool, interval_start FROM added ORDER BY 1, 2
ON CONFLICT (pool, interval_start) DO UPDATE SET version = i.version + 1
"""


def add_pool_usage(connection: Connection, *, classes: Collection[TokenClass]) -> None:
    """Add what lies in `incoming_usage`, which has a column for each of these token classes.

    The pools' intervals are marked as changed, and so attributed anew.
    """
    values = {
        "input": _sum((PROMPT_CLASSES - CACHED_CLASSES).intersection(classes)),
        "cached": _sum(CACHED_CLASSES.intersection(classes)),
        "output": _sum(OUTPUT_CLASSES.intersection(classes)),
        "total": _sum(classes),
    }
    connection.execute(text(_ADD.format(**values)))


def _sum(classes: Collection[TokenClass]) -> str:
    return " + ".join(f"i.{it.name.lower()}" for it in sorted(classes)) or "0"
