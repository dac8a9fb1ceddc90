"""The tables, as SQLAlchemy Core; `migrations/` makes them and a test holds both together."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from meter.domain.tokens import TokenClass

metadata = MetaData()
_Time = DateTime(timezone=True)

# One row from the first start on; its time is there and moves where the clock is driven.
installation = Table(
    "installation",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("driven", Boolean, nullable=False),
    Column("driven_time", _Time),
)

# One row; its version moves with every change of accounts and keys.
registry = Table(
    "registry",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("roles_apart", Boolean, nullable=False),
)
accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("handle", Text, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("close_time", _Time),
)
account_parents = Table(
    "account_parents",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("start_time", _Time, primary_key=True),
    Column("parent_id", Text),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("account_id", Text),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("end_time", _Time),
    Column("rotated_from", Text),
    Column("description", Text, nullable=False),
    Column("certificate_name", Text),
)
# Who reads the views of a tenant, by the login of the database: of this account and those below.
reader_logins = Table(
    "reader_logins",
    metadata,
    Column("login", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("grant_time", _Time, nullable=False),
)
api_key_scopes = Table(
    "api_key_scopes",
    metadata,
    Column("key_id", Text, nullable=False),
    Column("permission", SmallInteger, nullable=False),
    Column("account_id", Text),
)
skus = Table(
    "skus",
    metadata,
    Column("sku_id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("served_model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("region", Text, nullable=False),
)
dimensions = Table(
    "dimensions",
    metadata,
    Column("dimension_id", Integer, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("sku_id", Integer, nullable=False),
    Column("pool", Text, nullable=False),
)
# The versions of segments beyond corrections' that every server of the database reads.
segment_versions = Table(
    "segment_versions",
    metadata,
    Column("version", SmallInteger, primary_key=True),
)
# The owner of a shard holds its newest epoch; position is that of the last segment.
shards = Table(
    "shards",
    metadata,
    Column("shard", SmallInteger, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", _Time),
)
# In parts by commit_time, of which each has the key (shard, position); no two of them share one,
# since the row of `shards` gives each position once.
# What one server does for all of them, such as reading energy sources.
task_leases = Table(
    "task_leases",
    metadata,
    Column("task", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("lease_until", _Time, nullable=False),
)
journal = Table(
    "journal",
    metadata,
    Column("shard", SmallInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("first_end_time", _Time, nullable=False),
    Column("last_end_time", _Time, nullable=False),
    Column("commit_time", _Time, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
producers = Table(
    "producers",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("instance", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digests", LargeBinary, nullable=False),
    Column("seen_time", _Time),
    Column("state", SmallInteger, nullable=False),
    Column("announced_sequence", BigInteger, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("create_time", _Time, nullable=False),
    # At the edge of the network: nobody waits for what it may still hold.
    Column("edge", Boolean, nullable=False),
)
# For which accounts a producer has reported, by the month (UTC) in which requests ended: all that
# its rows name. An account may be named by several.
producer_reports = Table(
    "producer_reports",
    metadata,
    Column("key_account_id", Text, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("month", Date, primary_key=True),
    Column("row_number", BigInteger, Identity(always=True), primary_key=True),
    Column("account_ids", ARRAY(Text), nullable=False),
)
# Of months that began before `since` it is not known who has reported for whom.
reports_known = Table(
    "reports_known",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("since", _Time, nullable=False),
)
producer_instances = Table(
    "producer_instances",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("instance", LargeBinary, primary_key=True),
    Column("open_time", _Time, nullable=False),
)
producer_gaps = Table(
    "producer_gaps",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("producer", Text, primary_key=True),
    Column("first_sequence", BigInteger, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("found_time", _Time, nullable=False),
)
event_claims = Table(
    "event_claims",
    metadata,
    Column("event_key", Uuid, primary_key=True),
    Column("content_hash", Uuid, nullable=False),
    Column("claim_time", _Time, nullable=False),
    Column("source", SmallInteger),
    Column("report_rank", SmallInteger),
    Column("billed_hash", Uuid),
    Column("token_count", BigInteger),
    Column("is_choice", Boolean),
    Column("shard", SmallInteger),
    Column("position", BigInteger),
    Column("correction_id", BigInteger),
)
observations = Table(
    "observations",
    metadata,
    Column("observation_id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_key", Uuid, nullable=False),
    Column("report_key", Uuid, nullable=False),
    Column("source", SmallInteger, nullable=False),
    Column("report_rank", SmallInteger, nullable=False),
    Column("billed_hash", Uuid, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("is_choice", Boolean, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("receive_time", _Time, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("event", LargeBinary, nullable=False),
)
usage_originals = Table(
    "usage_originals",
    metadata,
    Column("original_id", BigInteger, Identity(always=True), primary_key=True),
    Column("receive_time", _Time, nullable=False),
    Column("source", SmallInteger, nullable=False),
    Column("profile", Text, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("first_end_time", _Time, nullable=False),
    Column("last_end_time", _Time, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", BigInteger, primary_key=True),
    Column("outcome", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("received_time", _Time, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_index", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("decide_time", _Time),
    Column("decided_by", Text),
    Column("reason", Text),
    Column("source", SmallInteger),
    Column("is_choice", Boolean),
)
# An event is corrected once: the key is its shard, position and row. The segment of the correction
# holds it again, taken back, in row 0, and what is counted in its place in row 1.
corrections = Table(
    "corrections",
    metadata,
    Column("correction_id", BigInteger, primary_key=True),
    Column("shard", SmallInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("event_row", Integer, nullable=False),
    Column("correction_shard", SmallInteger, nullable=False),
    Column("correction_position", BigInteger, nullable=False),
    Column("producer", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_index", Integer, nullable=False),
    Column("before", JSONB, nullable=False),
    Column("after", JSONB(none_as_null=True)),
    Column("key_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("correct_time", _Time, nullable=False),
)
# How far each shard is counted: all segments up to `position` are in `usage`.
counting = Table(
    "counting",
    metadata,
    Column("shard", SmallInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("counted_until", _Time, nullable=False),
    # The same again, by whoever adds to `period_totals` what is late: nobody else may count.
    Column("totalled_position", BigInteger, nullable=False),
)
cuts = Table(
    "cuts",
    metadata,
    Column("cut_id", Integer, primary_key=True),
    Column("cut_time", _Time, nullable=False),
)
cut_positions = Table(
    "cut_positions",
    metadata,
    Column("cut_id", Integer, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
usage = Table(
    "usage",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("interval_start", _Time, primary_key=True),
    Column("sku_id", Integer, primary_key=True),
    Column("band", SmallInteger, primary_key=True),
    Column("finish_class", SmallInteger, primary_key=True),
    # Usage that is counted after cut n was taken carries n + 1.
    Column("cut_id", Integer, primary_key=True),
    *(Column(token_class.name.lower(), BigInteger, nullable=False) for token_class in TokenClass),
    Column("request_count", BigInteger, nullable=False),
    Column("delivered_output_count", BigInteger, nullable=False),
    Column("estimated_count", BigInteger, nullable=False),
)
# Usage before `folded_until`, added up by parts of months; the two change in one transaction.
period_totals = Table(
    "period_totals",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("cell_start", _Time, primary_key=True),
    Column("sku_id", Integer, primary_key=True),
    Column("band", SmallInteger, primary_key=True),
    *(Column(token_class.name.lower(), BigInteger, nullable=False) for token_class in TokenClass),
    Column("request_count", BigInteger, nullable=False),
    Column("unfinished_count", BigInteger, nullable=False),
    Column("delivered_output_count", BigInteger, nullable=False),
    Column("estimated_count", BigInteger, nullable=False),
    # The newest cut among what was added up.
    Column("last_cut_id", Integer, nullable=False),
)
totals_fold = Table(
    "totals_fold",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("folded_until", _Time, nullable=False),
)
# Who changed what, written in the transaction of the change.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("entry_time", _Time, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
)
