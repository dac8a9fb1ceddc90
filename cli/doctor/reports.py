"""What doctor thinks of who reports beside producers: engines that are read, and sources."""

from collections.abc import Iterator
from typing import Final

from cli.doctor.check import Check, Mark, format_age
from meter.domain.times import to_iso
from meter.engine_drift import DRIFT_PPM_MAX, QUIET_SECONDS_MAX, EngineDrift
from meter.health import Health
from meter.sources.observation import Source

_DAY_MS: Final = 24 * 3600 * 1000
# Of the alert on drift, beside how many millionths it is.
_DRIFT_TOKENS_MAX: Final = 10_000
_COMPARED_TENTHS_MIN: Final = 9
# As the alert on sources that fall silent has it: while somebody else was heard just now.
_HEARD_SECONDS_MAX: Final = 300
# A newer server may know more.
_NAMES: Final = {it.value: it.name.lower() for it in Source}


def check_reports(health: Health) -> Iterator[Check]:
    """Yield a check of engines and one of sources, each where there are any."""
    if health.engine_count:
        yield _engines(health)
    if health.sources_heard_ms:
        yield _sources(health)


def _engines(health: Health) -> Check:
    drifts = [it for it in health.drifts if _is_whole(it)]
    far = [it for it in drifts if _is_far(it)]
    facts: dict[str, object] = {
        "read": health.engine_count,
        "unread": health.unread_count,
        "longest_unread": [
            {"pool": it.pool, "replica": it.replica, "read": to_iso(it.read_ms)}
            for it in health.engines
        ],
        "drifts": [
            {
                "pool": it.pool,
                "model": it.model,
                "kind": it.kind.value,
                "tokens": it.tokens,
                "ppm": it.ppm,
            }
            for it in drifts
        ],
    }
    says = [f"{health.engine_count:,} read"]
    if health.unread_count:
        oldest = health.engines[0]
        age = format_age((health.now_ms - oldest.read_ms) / 1000)
        says.append(
            f"{health.unread_count:,} not for 15 min, {oldest.replica} ({oldest.pool}) for {age}"
        )
    if drifts:
        worst = max(far or drifts, key=lambda it: abs(it.ppm))
        says.append(
            f"yesterday they counted {worst.tokens:+,} {worst.kind.value} tokens"
            f" ({worst.ppm / 10_000:+.2f} %) of {worst.model or 'all models'} in {worst.pool}"
        )
    else:
        says.append("no whole day to compare yet")
    return Check(
        name="engines",
        mark=Mark.WARN if far or health.unread_count else Mark.OK,
        says="; ".join(says),
        do="tokenworks usage drift says what was not reported, or twice"
        if far
        else "bring it back, or take it out of TOKENWORKS_ENGINES",
        facts=facts,
    )


def _is_whole(drift: EngineDrift) -> bool:
    return drift.compared_ms * 10 >= _DAY_MS * _COMPARED_TENTHS_MIN


def _is_far(drift: EngineDrift) -> bool:
    return abs(drift.ppm) > DRIFT_PPM_MAX and abs(drift.tokens) > _DRIFT_TOKENS_MAX


def _sources(health: Health) -> Check:
    ages = {
        _NAMES.get(source, str(source)): max(0.0, (health.now_ms - heard_ms) / 1000)
        for source, heard_ms in health.sources_heard_ms.items()
    }
    quiet = [name for name, age in ages.items() if age > QUIET_SECONDS_MAX]
    # Where nobody at all reports, or time leaps, the sources are not what is wrong.
    is_odd = quiet and not health.is_driven and min(ages.values()) < _HEARD_SECONDS_MAX
    return Check(
        name="sources",
        mark=Mark.WARN if is_odd else Mark.OK,
        says=", ".join(f"{name} {format_age(age)} ago" for name, age in ages.items()),
        do=f"others report, and {', '.join(quiet)} not: look at the sender's log",
        facts={name: round(age, 1) for name, age in ages.items()},
    )
