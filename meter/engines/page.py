"""Reads an engine's page: its token counters, each by its name and labels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from meter.domain.limits import ENGINE_PAGE_SERIES_MAX, ENGINE_TOKENS_MAX, MODEL_CHARS_MAX
from meter.energy.sources.page import find_name, read_line
from meter.engine_drift import TokenKind
from meter.engines.profiles import PROFILES, UNKNOWN_MODEL, EngineProfile

_SERIES_BYTES: Final = 16
_PREFIXES: Final = tuple(it.prefix for it in PROFILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounter:
    """A counter of tokens as it stands, ≥ 0; `model` is empty where it tells none."""

    model: str
    kind: TokenKind
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePage:
    """What a page says: counters by series, and how many of them made no sense.

    A series is the digest of a counter's name and labels. `profile` names the engine, or engines,
    whose metrics are on it, by the rows that read them; empty where none's are.
    """

    profile: str
    counters: Mapping[str, EngineCounter]
    unreadable_count: int = 0


def read_page(text: str) -> EnginePage:
    """Read a page in the Prometheus text form; lines of other metrics are passed over unread."""
    counters: dict[str, EngineCounter] = {}
    profiles: set[str] = set()
    unreadable_count = 0
    for line in text.split("\n"):
        if not line.startswith(_PREFIXES):
            continue
        profile = next(it for it in PROFILES if line.startswith(it.prefix))
        profiles.add(profile.name)
        name = find_name(line, profile.counters)
        if name is None:
            continue
        try:
            series, counter = _read_counter(line, name=name, profile=profile)
        except (ValueError, IndexError):
            # The parser of torn lines looks behind their end.
            unreadable_count += 1
            continue
        if series in counters or len(counters) < ENGINE_PAGE_SERIES_MAX:
            counters[series] = counter
        else:
            unreadable_count += 1
    return EnginePage(
        profile=" ".join(sorted(profiles)), counters=counters, unreadable_count=unreadable_count
    )


def _read_counter(line: str, *, name: str, profile: EngineProfile) -> tuple[str, EngineCounter]:
    """Return a series and its counter, rounded down; raises ValueError."""
    sample = read_line(line)
    model = sample.labels.get(profile.model_label, "") if profile.model_label else ""
    if len(model) > MODEL_CHARS_MAX or not model.isprintable():
        raise ValueError("no name of a model")
    value = Decimal(repr(sample.value))
    if not value.is_finite() or not 0 <= value <= ENGINE_TOKENS_MAX:
        raise ValueError("no counter")
    told = json.dumps([name, sorted(sample.labels.items())]).encode()
    series = hashlib.blake2b(told, digest_size=_SERIES_BYTES).hexdigest()
    return series, EngineCounter(
        model="" if model == UNKNOWN_MODEL else model,
        kind=profile.counters[name],
        tokens=int(value),
    )
