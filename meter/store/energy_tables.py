"""The tables of energy, of engines and of the factory, beside those of `meter.store.tables`."""

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Table, Text

metadata = MetaData()
_Time = DateTime(timezone=True)

# Where each device's counter stood when it was last seen to move; `name` is its pool's, of a
# facility's meter its site's.
energy_counters = Table(
    "energy_counters",
    metadata,
    Column("device", Text, primary_key=True),
    Column("boundary", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("counter_mj", BigInteger, nullable=False),
    Column("sample_time", _Time, nullable=False),
)
# What the devices of a pool, or a site's meter, measured in an interval: of `measured_mj`, what is
# estimated, what fell into gaps, and what is of devices that nobody described.
energy_intervals = Table(
    "energy_intervals",
    metadata,
    Column("boundary", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("interval_start", _Time, primary_key=True),
    Column("measured_mj", BigInteger, nullable=False),
    Column("estimated_mj", BigInteger, nullable=False),
    Column("gap_mj", BigInteger, nullable=False),
    Column("unmapped_mj", BigInteger, nullable=False),
    Column("covered_ms", BigInteger, nullable=False),
    Column("gap_ms", BigInteger, nullable=False),
    Column("reset_count", Integer, nullable=False),
    Column("begin_count", Integer, nullable=False),
    Column("end_count", Integer, nullable=False),
)
# What is known of an engine's page from when to when, and where its counters stood then.
engine_replicas = Table(
    "engine_replicas",
    metadata,
    Column("replica", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("first_time", _Time, nullable=False),
    Column("read_time", _Time, nullable=False),
)
engine_counters = Table(
    "engine_counters",
    metadata,
    Column("replica", Text, primary_key=True),
    Column("series", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
)
# What engines counted in an interval; of it, what came between reads too far apart.
engine_intervals = Table(
    "engine_intervals",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("interval_start", _Time, primary_key=True),
    Column("replica", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("gap_tokens", BigInteger, nullable=False),
    Column("reset_count", Integer, nullable=False),
)
# A pool's interval: `version` moves with its energy and with its tokens; its energy is attributed
# as it stood at `attributed_version`. `fault` is why its power is not valid, empty when it is.
pool_intervals = Table(
    "pool_intervals",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("interval_start", _Time, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("attributed_version", BigInteger, nullable=False),
    Column("fault", Text, nullable=False),
)
# Usage by the pool that served it: what its energy is shared out by.
pool_usage = Table(
    "pool_usage",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("interval_start", _Time, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("sku_id", Integer, primary_key=True),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("request_count", BigInteger, nullable=False),
)
# A share is the sum over its revisions. One without a sku is unattributed, and its reason says why;
# the reason of one with a sku is empty, or `idle` for a share of idling.
energy_shares = Table(
    "energy_shares",
    metadata,
    Column("pool", Text, nullable=False),
    Column("interval_start", _Time, nullable=False),
    Column("boundary", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("sku_id", Integer),
    Column("reason", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("energy_mj", BigInteger, nullable=False),
    Column("factory_version", Integer, nullable=False),
)
# Versions of the factory's description, as the files that were taken in.
factory_versions = Table(
    "factory_versions",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("start_time", _Time, nullable=False),
    Column("toml", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("set_time", _Time, nullable=False),
)
# Which software serves a pool from a time on.
software_marks = Table(
    "software_marks",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("mark_time", _Time, primary_key=True),
    Column("software", Text, nullable=False),
    Column("key_id", Text, nullable=False),
)
