"""Usage as it is kept, row by row: for whoever prices it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import ARRAY, Engine, Text, any_, func, literal, select

from meter.domain.times import to_ms, to_time
from meter.domain.tokens import FinishClass, Mode, TokenClass
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.store.tables import counting, shards, skus, usage
from meter.store.usage import select_counted_until_ms
from meter.usage import UsageFact

# Rows that are held at a time.
_ROWS_AT_ONCE: Final = 10_000
_COLUMNS: Final = {token_class: token_class.name.lower() for token_class in TokenClass}


class FactStore:
    """Reads facts in their order, a few thousand rows at a time."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield the facts in `[start_ms, end_ms)`, summed over the cuts up to `cut_id`."""
        names = ("account_id", "interval_start", "sku_id", "band", "finish_class")
        keys = [usage.c[name] for name in names]
        sums = [func.sum(usage.c[name]).label(name) for name in _COLUMNS.values()]
        statement = (
            select(
                *keys,
                *(skus.c.model, skus.c.served_model, skus.c.tier, skus.c.mode, skus.c.region),
                *sums,
                func.sum(usage.c.request_count).label("request_count"),
            )
            .join(skus, skus.c.sku_id == usage.c.sku_id)
            .where(
                usage.c.account_id == any_(literal(list(account_ids), ARRAY(Text))),
                usage.c.interval_start >= to_time(start_ms),
                usage.c.interval_start < to_time(end_ms),
            )
            .group_by(*keys, skus.c.sku_id)
            .order_by(*keys)
        )
        if cut_id is not None:
            statement = statement.where(usage.c.cut_id <= cut_id)
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            # Closed also when whoever asked has seen enough.
            with streamed.execute(statement) as rows:
                for row in rows.mappings():
                    yield _to_fact(row)

    def accounts_with_usage(self, *, start_ms: int, end_ms: int) -> frozenset[str]:
        """Return the ids of the accounts that have any usage in `[start_ms, end_ms)`.

        One whose events were all voided has none.
        """
        statement = (
            select(usage.c.account_id)
            .where(
                usage.c.interval_start >= to_time(start_ms),
                usage.c.interval_start < to_time(end_ms),
            )
            .group_by(usage.c.account_id)
            .having(func.sum(usage.c.request_count) != 0)
        )
        with store_faults(), self._engine.connect() as connection:
            return frozenset(connection.execute(statement).scalars())

    def counted_until_ms(self) -> int:
        """Return until when all that was acknowledged is counted, over all shards."""
        with store_faults(), self._engine.connect() as connection:
            return select_counted_until_ms(connection)

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return the position of the newest segment of each shard of the journal."""
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(select(shards.c.shard, shards.c.position))
            return {row.shard: row.position for row in rows}

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Tell whether each shard is counted up to its position."""
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(select(counting.c.shard, counting.c.position))
            counted = {row.shard: row.position for row in rows}
        return all(counted.get(shard, 0) >= position for shard, position in positions.items())


def _to_fact(row: Mapping[Any, Any]) -> UsageFact:
    return UsageFact(
        account_id=row["account_id"],
        interval_start_ms=to_ms(row["interval_start"]),
        model=row["model"],
        served_model=row["served_model"] or row["model"],
        tier=row["tier"],
        mode=Mode(row["mode"]),
        region=row["region"],
        band=row["band"],
        finish_class=FinishClass(row["finish_class"]),
        tokens={token_class: int(row[name]) for token_class, name in _COLUMNS.items() if row[name]},
        request_count=int(row["request_count"]),
    )
