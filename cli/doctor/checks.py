"""What doctor thinks of the facts: well, worth a look, or wrong, and what to do about it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from cli.doctor.check import Check, Mark, format_age
from cli.doctor.reports import check_reports
from cli.doctor.shards import check_shards
from meter.domain.outcome import Outcome
from meter.domain.times import to_iso
from meter.health import Health, Login, ShardHealth

_VERSION_MIN: Final = 15
_VERSION_MAX: Final = 18
_SKEW_SECONDS_MAX: Final = 5
_BEHIND_SECONDS_WARN: Final = 60
_BEHIND_SECONDS_FAIL: Final = 3_600
_CUT_SECONDS_WARN: Final = 48 * 3600
_STATES: Final = {1: "registered", 2: "active", 3: "retired"}
# A commit that Postgres calls done before it is on its disk.
_UNSAFE_COMMITS: Final = {"off"}


def check_login(login: Login) -> Check:
    """Return what there is to say before any table is looked at."""
    version = login.version // 10_000
    is_known = _VERSION_MIN <= version <= _VERSION_MAX
    return Check(
        name="database",
        mark=Mark.FAIL if login.is_standby else Mark.OK if is_known else Mark.WARN,
        says=f"Postgres {version}.{login.version % 10_000}, {login.database} as {login.user}"
        + (", a standby: it can only be read" if login.is_standby else ""),
        do="name the primary in TOKENWORKS_DATABASE_URL, or promote this one"
        if login.is_standby
        else f"use Postgres {_VERSION_MIN} to {_VERSION_MAX}: no other is tested",
        facts={"version": login.version, "user": login.user, "database": login.database},
    )


def check_role(login: Login) -> Check:
    """Return whether the login may act as the service, and not as who owns the schema."""
    mark, says, do = Mark.OK, f"{login.user} may act as tokenworks_service", ""
    if not login.may_serve:
        mark = Mark.FAIL
        says = f"{login.user} may not act as tokenworks_service, which owns what the meter writes"
        do = f'as a superuser: GRANT tokenworks_service TO "{login.user}"'
    elif login.may_migrate:
        mark = Mark.WARN
        says += ", and as tokenworks_migrator: it may change and drop what was recorded"
        do = "serve as another login, a member of tokenworks_service alone; migrate as this one"
    return Check(name="role", mark=mark, says=says, do=do, facts={})


def check_schema(missing: Sequence[str], *, left: Sequence[str] = (), newest: str) -> Check:
    """Return whether the schema is this version's.

    `missing` is what its servers need; `left` is what waits until no older one runs any more.
    """
    facts = {"missing": list(missing), "left": list(left)}
    if missing:
        named = missing[0] if len(missing) == 1 else f"{missing[0]} to {missing[-1]}"
        are_missing = "migration is" if len(missing) == 1 else "migrations are"
        return Check(
            name="schema",
            mark=Mark.FAIL,
            says=f"{len(missing)} {are_missing} missing: {named}",
            do="tokenworks db upgrade",
            facts=facts,
        )
    if left:
        return Check(
            name="schema",
            mark=Mark.WARN,
            says=f"as servers of this version need it; {left[-1]} is left",
            do="when no server of an older version runs: tokenworks db upgrade --stage post",
            facts=facts,
        )
    says = f"at {newest}, as this version needs it"
    return Check(name="schema", mark=Mark.OK, says=says, facts=facts)


def check_health(
    health: Health, *, machine_ms: int, durable_standbys: Sequence[str] = ()
) -> Iterator[Check]:
    """Yield all checks of a migrated database, in the order of the page.

    `machine_ms` is this machine's time; what is acknowledged waits for `durable_standbys`.
    """
    yield _clock(health, machine_ms=machine_ms)
    yield _rights(health)
    yield _disk(health)
    yield _standbys(health, needed=durable_standbys)
    yield from check_shards(health)
    yield _counting(health)
    yield _cuts(health)
    yield _producers(health)
    yield _gaps(health)
    yield from check_reports(health)
    yield _quarantine(health)


def _clock(health: Health, *, machine_ms: int) -> Check:
    skew = (machine_ms - health.database_ms) / 1000
    facts = {"is_sandbox": bool(health.is_driven), "now": to_iso(health.now_ms), "skew_s": skew}
    if health.is_driven:
        says = f"SANDBOX, a driven clock that stands at {to_iso(health.now_ms)}"
        return Check(name="clock", mark=Mark.OK, says=says, facts=facts)
    says = "real" if health.is_driven is not None else "not decided: no meter was ever started here"
    if abs(skew) <= _SKEW_SECONDS_MAX:
        return Check(name="clock", mark=Mark.OK, says=says, facts=facts)
    side = "ahead of" if skew > 0 else "behind"
    return Check(
        name="clock",
        mark=Mark.WARN,
        says=f"{says}; this machine's is {format_age(abs(skew))} {side} the database's",
        do="set both machines' clocks by NTP: events are dated by the one, commits by the other",
        facts=facts,
    )


def _rights(health: Health) -> Check:
    parts = (
        (health.wrong_rights, "may", "REVOKE", "FROM"),
        (health.lacking_rights, "may not", "GRANT", "TO"),
    )
    return Check(
        name="rights",
        mark=Mark.FAIL if health.wrong_rights or health.lacking_rights else Mark.OK,
        says="; ".join(
            f"{role} {may} " + ", ".join(f"{it.verb} {it.table}" for it in held)
            for rights, may, _, _ in parts
            for role, held in groupby(rights, key=lambda it: it.role)
        )
        or "each role may do what it is for, and change no fact",
        do="; ".join(
            f"{word} {it.verb} ON {it.table} {joint} {it.role}"
            for rights, _, word, joint in parts
            for it in rights
        ),
        facts={
            "excess": [" ".join(it) for it in health.wrong_rights],
            "lacking": [" ".join(it) for it in health.lacking_rights],
        },
    )


def _disk(health: Health) -> Check:
    settings = health.settings
    wrong = {
        name: settings[name] for name in ("fsync", "full_page_writes") if settings[name] == "off"
    }
    if settings["synchronous_commit"] in _UNSAFE_COMMITS:
        wrong["synchronous_commit"] = settings["synchronous_commit"]
    shown = ", ".join(
        f"{name} {settings[name]}" for name in ("fsync", "full_page_writes", "synchronous_commit")
    )
    return Check(
        name="disk",
        mark=Mark.FAIL if wrong else Mark.OK,
        says=shown + (": what was acknowledged may be lost with the power" if wrong else ""),
        do="; ".join(f"ALTER SYSTEM SET {name} = on" for name in wrong) + "; reload Postgres",
        facts=dict(settings),
    )


def _standbys(health: Health, *, needed: Sequence[str]) -> Check:
    named = health.settings["synchronous_standby_names"]
    facts = {
        "synchronous_standby_names": named,
        "durable_standbys": list(needed),
        "standbys": [
            {"name": it.name, "state": it.state, "sync": it.sync_state, "lag_bytes": it.lag_bytes}
            for it in health.standbys
        ],
    }
    if not named and not needed and not health.standbys:
        says = "none: a backup is all that a lost disk leaves"
        return Check(name="standbys", mark=Mark.OK, says=says, facts=facts)
    shown = ", ".join(
        f"{it.name} {it.state or 'unknown'} ({it.sync_state or 'unknown'}"
        + (f", {it.lag_bytes:,} bytes behind)" if it.lag_bytes is not None else ")")
        for it in health.standbys
    )
    connected = {it.name for it in health.standbys}
    gone = [name for name in needed if name not in connected]
    says = f"{shown or 'none connected'}; synchronous: {named or 'none'}"
    if gone:
        return Check(
            name="standbys",
            mark=Mark.FAIL,
            says=f"{says}; TOKENWORKS_DURABLE_STANDBYS waits for {', '.join(gone)}",
            do="producers keep all batches until it is back: connect it, or take it out of the"
            " setting",
            facts=facts,
        )
    is_waiting = bool(named) and all(it.sync_state == "async" for it in health.standbys)
    return Check(
        name="standbys",
        mark=Mark.FAIL if is_waiting else Mark.OK,
        says=says,
        do="commits wait for a synchronous standby: connect it, or take it out of"
        " synchronous_standby_names",
        facts=facts,
    )


def _counting(health: Health) -> Check:
    waiting = [it for it in health.shards if it.oldest_uncounted_ms is not None]
    seconds = max((_behind_seconds(health, it) for it in waiting), default=0.0)
    facts = {"uncounted_segments": health.uncounted_segments, "behind_seconds": round(seconds, 1)}
    if not waiting:
        return Check(name="counting", mark=Mark.OK, says="up to date", facts=facts)
    segments = f"{health.uncounted_segments:,} segment{'s' * (health.uncounted_segments != 1)}"
    says = f"{segments} to count, the oldest {format_age(seconds)} old"
    if seconds < _BEHIND_SECONDS_WARN:
        return Check(name="counting", mark=Mark.OK, says=says, facts=facts)
    shards = ", ".join(str(it.shard) for it in waiting)
    return Check(
        name="counting",
        mark=Mark.FAIL if seconds >= _BEHIND_SECONDS_FAIL else Mark.WARN,
        says=f"{says}: usage and previews are that old",
        do=f"let a meter run for shard {shards} (TOKENWORKS_SHARD); if one does, its log says why"
        " under counting_waits",
        facts=facts,
    )


def _behind_seconds(health: Health, shard: ShardHealth) -> float:
    assert shard.oldest_uncounted_ms is not None
    return max(0.0, (health.now_ms - shard.oldest_uncounted_ms) / 1000)


def _cuts(health: Health) -> Check:
    facts = {"cut_count": health.cut_count, "newest_cut_ms": health.newest_cut_ms}
    if health.newest_cut_ms is None:
        return Check(name="cuts", mark=Mark.OK, says="none yet: one is taken each day", facts=facts)
    age = (health.now_ms - health.newest_cut_ms) / 1000
    says = f"{health.cut_count:,}, the newest at {to_iso(health.newest_cut_ms)}"
    if age < _CUT_SECONDS_WARN:
        return Check(name="cuts", mark=Mark.OK, says=says, facts=facts)
    return Check(
        name="cuts",
        mark=Mark.WARN,
        says=f"{says}, {format_age(age)} ago",
        do="a meter that runs takes one each day: let one run",
        facts=facts,
    )


def _producers(health: Health) -> Check:
    counts = {_STATES[it]: health.producer_counts.get(it, 0) for it in _STATES}
    says = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    facts = {
        **counts,
        "silent": health.silent_count,
        "backlog_batches": health.backlog_count,
        "longest_silent": [
            {
                "account": it.account_id,
                "producer": it.producer,
                "seen": None if it.seen_ms is None else to_iso(it.seen_ms),
                "backlog_batches": it.backlog_count,
            }
            for it in health.silent
        ],
    }
    if health.backlog_count:
        says += f"; {health.backlog_count:,} batches announced and not here"
    if not health.silent_count:
        return Check(name="producers", mark=Mark.OK, says=says or "none yet", facts=facts)
    named = "; ".join(
        f"{it.producer} ({it.account_id or 'installation'}) "
        + (
            "never heard"
            if it.seen_ms is None
            else f"last heard {format_age((health.now_ms - it.seen_ms) / 1000)} ago"
        )
        + (f", holds {it.backlog_count:,} batches" if it.backlog_count else "")
        for it in health.silent
    )
    more = health.silent_count - len(health.silent)
    return Check(
        name="producers",
        mark=Mark.WARN,
        says=f"{says}; {health.silent_count:,} silent: {named}"
        + (f"; and {more:,} more" if more else ""),
        do="usage since then is unknown, not zero: bring them back, or end one that is gone with"
        " tokenworks producers retire PRODUCER",
        facts=facts,
    )


def _gaps(health: Health) -> Check:
    facts = {
        "missing_batches": health.missing_batches,
        "recent": [
            {
                "account": it.account_id,
                "producer": it.producer,
                "first": it.first_sequence,
                "last": it.last_sequence,
                "found": to_iso(it.found_ms),
            }
            for it in health.recent_gaps
        ],
    }
    if not health.recent_gap_count:
        says = "none"
        if health.missing_batches:
            says = f"{health.missing_batches:,} batches of long ago are missing, none of late"
        return Check(name="gaps", mark=Mark.OK, says=says, facts=facts)
    named = "; ".join(
        f"{it.producer} ({it.account_id or 'installation'}) {it.first_sequence:,}"
        + (f" to {it.last_sequence:,}" if it.last_sequence > it.first_sequence else "")
        + f", found {to_iso(it.found_ms)}"
        for it in health.recent_gaps
    )
    more = health.recent_gap_count - len(health.recent_gaps)
    return Check(
        name="gaps",
        mark=Mark.WARN,
        says=f"batches that never came: {named}" + (f"; and {more:,} more" if more else ""),
        do="report their events from the server's own log with tokenworks usage record, which"
        " takes them for 35 days",
        facts=facts,
    )


def _quarantine(health: Health) -> Check:
    names = {it.value: it.name for it in Outcome}
    held = {names.get(it, str(it)): count for it, count in health.held_by_outcome.items()}
    facts: dict[str, object] = {"held": held}
    if not held:
        return Check(name="quarantine", mark=Mark.OK, says="empty", facts=facts)
    shown = ", ".join(f"{count:,} {name}" for name, count in held.items())
    return Check(
        name="quarantine",
        mark=Mark.WARN,
        says=f"{sum(held.values()):,} wait for a decision and are not counted: {shown}",
        do="tokenworks usage quarantine list, then release or reject",
        facts=facts,
    )
