"""What a page's counters gained since it was read last, by interval; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from meter.domain.interval import interval_start_ms
from meter.domain.limits import COUNTER_KEPT_MS, COUNTER_SLACK_MS, ENGINE_TOKENS_PER_MS_MAX
from meter.energy.attribute import apportion
from meter.energy.counters import gain_of
from meter.energy.delta import interval_lengths
from meter.engine_drift import TokenKind
from meter.engines.page import EngineCounter, EnginePage

# Model, kind and begin of the interval (ms since 1970, UTC).
TokenKey: TypeAlias = tuple[str, TokenKind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRead:
    """A replica's page as it was read at a time (ms since 1970, UTC); `replica` is its URL."""

    replica: str
    pool: str
    time_ms: int
    page: EnginePage


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownReplica:
    """How a replica stood when it was last read: in whose pool, by which profile, and where."""

    pool: str
    profile: str
    time_ms: int
    standing: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class EngineTokens:
    """Tokens that an engine counted; of them, those between reads too far apart."""

    tokens: int = 0
    gap_tokens: int = 0
    reset_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a read adds. `is_new`: the replica's time begins with it, and it adds nothing."""

    tokens: Mapping[TokenKey, EngineTokens] = field(default_factory=dict)
    is_new: bool = False


def count(read: EngineRead, *, known: KnownReplica | None, gap_ms: int) -> Counted | None:
    """Return what a read adds to what is known of its replica; None when it is not newer.

    A counter that is new on a page that was read before began at 0 since then: some engines show a
    counter once they have counted something. Of a replica that is new, that moved to another pool,
    that is read by another profile, or that was silent for too long, nothing is known but where its
    counters stand. Reads more than `gap_ms` apart do not tell when tokens were made.
    """
    if known is None:
        return Counted(is_new=True)
    if read.time_ms <= known.time_ms:
        return None
    passed_ms = read.time_ms - known.time_ms
    is_other = (known.pool, known.profile) != (read.pool, read.page.profile)
    if is_other or passed_ms > COUNTER_KEPT_MS:
        return Counted(is_new=True)
    tokens: dict[TokenKey, EngineTokens] = {}
    lengths = interval_lengths(known.time_ms, read.time_ms)
    for series, counter in read.page.counters.items():
        gain = gain_of(
            known.standing.get(series, 0),
            counter.tokens,
            gain_max=ENGINE_TOKENS_PER_MS_MAX * (passed_ms + COUNTER_SLACK_MS),
        )
        _add(tokens, counter, amounts=apportion(gain.amount, lengths), is_gap=passed_ms > gap_ms)
        if gain.is_reset:
            # Wherever in between it was, it is noticed at the end.
            key = (counter.model, counter.kind, interval_start_ms(read.time_ms - 1))
            tokens[key].reset_count += 1
    return Counted(tokens=tokens)


def _add(
    tokens: dict[TokenKey, EngineTokens],
    counter: EngineCounter,
    *,
    amounts: Mapping[int, int],
    is_gap: bool,
) -> None:
    for start_ms, amount in amounts.items():
        sums = tokens.setdefault((counter.model, counter.kind, start_ms), EngineTokens())
        sums.tokens += amount
        sums.gap_tokens += amount if is_gap else 0
