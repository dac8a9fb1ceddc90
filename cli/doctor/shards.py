"""What doctor thinks of the shards of the journal: who holds them, and how far they are counted."""

from collections.abc import Iterator

from cli.doctor.check import Check, Mark, format_age
from meter.health import Health, ShardHealth


def check_shards(health: Health) -> Iterator[Check]:
    """Yield a check for each shard, or one for a journal that has none."""
    if not health.shards:
        yield Check(name="journal", mark=Mark.OK, says="empty: nothing was ever recorded", facts={})
    for shard in health.shards:
        yield _check(shard)


def _check(shard: ShardHealth) -> Check:
    name = f"shard {shard.shard}"
    says = f"{shard.position:,} segments, epoch {shard.epoch}, {_owner(shard)}"
    facts = {
        "shard": shard.shard,
        "position": shard.position,
        "epoch": shard.epoch,
        "counted": shard.counted_position,
        "owner": shard.owner,
        "lease_ms": shard.lease_ms,
    }
    if shard.cut_position > (shard.counted_position or 0):
        return Check(
            name=name,
            mark=Mark.FAIL,
            says=f"{says}; counted behind the cut at {shard.cut_position:,}",
            do="the database was restored in part: restore all of it from one backup",
            facts=facts,
        )
    is_orphan = bool(shard.owner) and shard.lease_ms is not None and shard.lease_ms < 0
    return Check(
        name=name,
        mark=Mark.WARN if is_orphan else Mark.OK,
        says=says,
        do="its process ended without giving it back, and no other takes it over: let a meter run"
        " (tokenworks serve); it adopts the shard and counts what is left within 5 s",
        facts=facts,
    )


def _owner(shard: ShardHealth) -> str:
    if not shard.owner:
        return "held by nobody"
    if shard.lease_ms is None:
        return f"held by {shard.owner}"
    if shard.lease_ms < 0:
        return f"let go by {shard.owner} {format_age(-shard.lease_ms / 1000)} ago"
    return f"held by {shard.owner} for {shard.lease_ms / 1000:.1f} s more"
