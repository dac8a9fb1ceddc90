"""Engines' counts beside usage: which time can be compared, and what differs in it; pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from meter.domain.interval import INTERVAL_MS, interval_start_ms, is_on_edge, next_edge_ms
from meter.engine_drift import EngineDrift, TokenKind

# What is compared of a model that no engine has counted.
_USUAL: Final = (TokenKind.PROMPT, TokenKind.OUTPUT)
_Key: TypeAlias = tuple[str, TokenKind]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTime:
    """What is known of a replica in `[first_ms, last_ms)` (ms since 1970, UTC)."""

    pool: str
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The intervals of a pool in `[start_ms, end_ms)` that are compared: all but `left_out`."""

    pool: str
    start_ms: int
    end_ms: int
    left_out: frozenset[int] = frozenset()

    @property
    def compared_ms(self) -> int:
        """How long they are."""
        return self.end_ms - self.start_ms - INTERVAL_MS * len(self.left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSums:
    """What a pool's engines counted of a model in the time that is compared."""

    pool: str
    model: str
    kind: TokenKind
    tokens: int
    gap_tokens: int
    reset_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredSums:
    """What was metered of a pool and model in that time, signed; `served_model` is never empty."""

    pool: str
    model: str
    served_model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    def of(self, kind: TokenKind) -> int:
        """Return what an engine's counter of this kind should show."""
        if kind is TokenKind.OUTPUT:
            return self.output_tokens
        cached = self.cached_tokens if kind is TokenKind.PROMPT else 0
        return self.input_tokens + cached


def find_windows(replicas: Iterable[ReadTime], *, start_ms: int, end_ms: int) -> list[Window]:
    """Return what of a time can be compared, by pool; both ends are on edges.

    An interval is compared when each replica that was there in it was read over all of it: of one
    that came or went amid the interval, only usage would have the rest. One that nobody can read
    any more is gone: what it goes on to serve is metered and not counted, which is drift.
    """
    by_pool: dict[str, list[ReadTime]] = {}
    for it in replicas:
        if it.first_ms < end_ms and it.last_ms > start_ms:
            by_pool.setdefault(it.pool, []).append(it)
    windows = []
    for pool, known in sorted(by_pool.items()):
        begin_ms = max(start_ms, next_edge_ms(min(it.first_ms for it in known)))
        stop_ms = min(end_ms, interval_start_ms(max(it.last_ms for it in known)))
        amid = (time_ms for it in known for time_ms in (it.first_ms, it.last_ms))
        left_out = frozenset(
            interval_start_ms(time_ms)
            for time_ms in amid
            if begin_ms < time_ms < stop_ms and not is_on_edge(time_ms)
        )
        window = Window(pool=pool, start_ms=begin_ms, end_ms=stop_ms, left_out=left_out)
        if begin_ms < stop_ms and window.compared_ms:
            windows.append(window)
    return windows


def compare(
    windows: Iterable[Window],
    *,
    engines: Sequence[EngineSums],
    metered: Sequence[MeteredSums],
) -> list[EngineDrift]:
    """Return the drift of each pool, model and kind, in their order.

    Usage belongs to the engines' model by the name that it was served under, else by the one that
    is billed. Where a pool has an engine that tells no models, all of the pool is compared at once.
    """
    found: list[EngineDrift] = []
    for window in windows:
        own = [it for it in engines if it.pool == window.pool]
        names = {it.model for it in own}
        drifts: dict[_Key, EngineDrift] = {}
        for sums in own:
            _add_counted(drifts, sums, model="" if "" in names else sums.model, window=window)
        usage = [it for it in metered if it.pool == window.pool]
        _add_metered(drifts, usage, names=names, window=window)
        found.extend(drift for _, drift in sorted(drifts.items()))
    return found


def _add_counted(
    drifts: dict[_Key, EngineDrift], sums: EngineSums, *, model: str, window: Window
) -> None:
    known = drifts.get((model, sums.kind)) or _nothing(window, model=model, kind=sums.kind)
    drifts[model, sums.kind] = replace(
        known,
        engine_tokens=known.engine_tokens + sums.tokens,
        gap_tokens=known.gap_tokens + sums.gap_tokens,
        reset_count=known.reset_count + sums.reset_count,
        models=known.models | {sums.model},
    )


def _add_metered(
    drifts: dict[_Key, EngineDrift],
    usage: Iterable[MeteredSums],
    *,
    names: Collection[str],
    window: Window,
) -> None:
    kinds: Mapping[str, list[TokenKind]] = {
        model: [kind for other, kind in drifts if other == model] for model, _ in drifts
    }
    for sums in usage:
        model = _model_of(sums, names=names)
        for kind in kinds.get(model, _USUAL):
            known = drifts.get((model, kind)) or _nothing(window, model=model, kind=kind)
            drifts[model, kind] = replace(
                known,
                metered_tokens=known.metered_tokens + sums.of(kind),
                models=known.models | {sums.model},
            )


def _model_of(sums: MeteredSums, *, names: Collection[str]) -> str:
    """Return the engines' name of what was metered."""
    if "" in names:
        return ""
    return (
        sums.model
        if sums.served_model not in names and sums.model in names
        else (sums.served_model)
    )


def _nothing(window: Window, *, model: str, kind: TokenKind) -> EngineDrift:
    return EngineDrift(
        pool=window.pool,
        model=model,
        kind=kind,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        compared_ms=window.compared_ms,
        engine_tokens=0,
        metered_tokens=0,
    )
