"""How long ago the longest-ended period of those that are still open has ended."""

from typing import Final

from sqlalchemy import Engine, text

from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults

# By month, which has an index: what has ended is of this month or an earlier one, in any zone of
# the next one's first day at the most.
_OLDEST: Final = text("""
    SELECT min(period_end) FROM billing_periods
    WHERE state = 'open' AND period_end <= :now
      AND month <= CAST(:now AS date) + 1
""")


class OpenMonthStore:
    """Looks at periods; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find_oldest_end_ms(self, *, now_ms: int) -> int | None:
        """Return when it ended, None when all that have ended are closed; raises Unavailable."""
        with store_faults(), self._engine.connect() as connection:
            end = connection.execute(_OLDEST, {"now": to_time(now_ms)}).scalar()
        return None if end is None else to_ms(end)
