"""Batches of a site's servers, built before the clock starts: planes, and what is in them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from cli.simulate.site.size import MODELS, TIERS, Size, Tier
from cli.simulate.trace import Arrival
from cli.simulate.workload import duration_ms
from tokenworks.meter.v1 import usage_pb2

Int64Array: TypeAlias = npt.NDArray[np.int64]
# Tokens by account and class.
Tokens: TypeAlias = dict[str, dict[str, int]]

# What a server serves swells and ebbs: a batch of each level, the lowest first.
LEVELS: Final = 12
SWELL: Final = 0.15
# Of what boards may draw, what they take at rest, and for an average second of serving.
IDLE_PERCENT: Final = 40
SERVING_PERCENT: Final = 50
# What a token weighs in a batch's energy, beside one that is generated, in hundredths.
_PROMPT_WEIGHT: Final = 10
_CACHED_WEIGHT: Final = 1
_OUTPUT_WEIGHT: Final = 100
_CACHE_HIT_SHARE: Final = 0.4
_REASONING_SHARE: Final = 0.25
_CACHE_BLOCK_TOKENS: Final = 64
_SECOND_MS: Final = 1_000
EVENTS_MAX: Final = 10_000

# Fields of the wire, as bytes: a message's tag, of a length behind it or of a number.
_BATCH: Final = b"\x12"
_SEQUENCE: Final = b"\x08"
_PLANES: Final = b"\x2a"
_BASE_TIME: Final = b"\x0a"
_SECONDS: Final = b"\x08"
_NANOS: Final = b"\x10"
_SEVEN_BITS: Final = 0x7F
_HALF_BYTE_BITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch that any server of its tier and model may send at any second.

    `planes` lack their base time. `energy_mj` is what serving it takes, beside idling.
    """

    tier: str
    model: str
    event_count: int
    energy_mj: int
    tokens: Tokens
    planes: bytes


def prepare(
    size: Size, *, arrivals: Sequence[Arrival], accounts: Sequence[str], seed: int
) -> list[Prepared]:
    """Build the batches; that of tier t, model m and level l is number `place(t, m, l)`."""
    numbers = np.random.default_rng(seed)
    table = np.array(
        [(it.context_count, it.generated_count, duration_ms(it)) for it in arrivals], np.int64
    )
    prepared = []
    for tier in TIERS:
        # A batch as heavy as the average takes what is meant for an average second.
        second_mj = size.board_milliwatts * SERVING_PERCENT // 100
        weight = _mean_weight(table) * float(size.server_events(tier))
        for model in MODELS:
            for level in range(LEVELS):
                events = _event_count(size, tier, level)
                requests = _draw(numbers, table=table, events=events, account_count=len(accounts))
                energy_mj = int(second_mj * _weigh(requests) / weight)
                prepared.append(
                    _pack(requests, tier=tier, model=model, accounts=accounts, energy_mj=energy_mj)
                )
    return prepared


def place(tier_index: int, model_index: int, level: int) -> int:
    """Return the number of a prepared batch."""
    return (tier_index * len(MODELS) + model_index) * LEVELS + level


def message(sequence: int, planes: bytes, *, base_ms: int) -> bytes:
    """Return the bytes of the StreamUsageRequest with this batch: the same arguments, the same."""
    seconds, rest_ms = divmod(base_ms, _SECOND_MS)
    time = _SECONDS + _varint(seconds) + _NANOS + _varint(rest_ms * 1_000_000)
    base = _BASE_TIME + _varint(len(time)) + time
    head = _SEQUENCE + _varint(sequence) + _PLANES + _varint(len(base) + len(planes)) + base
    return _BATCH + _varint(len(head) + len(planes)) + head + planes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requests:
    """Requests of a second, a number for each in each column."""

    account: Int64Array
    classes: dict[str, Int64Array]
    end_offset_ms: Int64Array
    duration_ms: Int64Array


def _event_count(size: Size, tier: Tier, level: int) -> int:
    swell = 1 - SWELL + 2 * SWELL * level / (LEVELS - 1)
    events = round(float(size.server_events(tier)) * swell)
    assert events <= EVENTS_MAX, "a server's second fits a batch"
    return max(1, events)


def _draw(
    numbers: np.random.Generator, *, table: Int64Array, events: int, account_count: int
) -> _Requests:
    drawn = table[numbers.integers(0, len(table), events)]
    prompt, answer = drawn[:, 0], drawn[:, 1]
    blocks = (numbers.random(events) * (prompt // _CACHE_BLOCK_TOKENS + 1)).astype(np.int64)
    cached = np.where(numbers.random(events) < _CACHE_HIT_SHARE, blocks * _CACHE_BLOCK_TOKENS, 0)
    thought = (numbers.random(events) * (answer + 1)).astype(np.int64)
    reasoning = np.where(numbers.random(events) < _REASONING_SHARE, thought, 0)
    weights = 1 / np.arange(1, account_count + 1)
    return _Requests(
        account=numbers.choice(account_count, events, p=weights / weights.sum()),
        classes={
            "input": prompt - cached,
            "cache_read": cached,
            "output": answer - reasoning,
            "reasoning": reasoning,
        },
        end_offset_ms=np.sort(numbers.integers(0, _SECOND_MS, events)),
        duration_ms=drawn[:, 2],
    )


def _pack(
    requests: _Requests, *, tier: Tier, model: str, accounts: Sequence[str], energy_mj: int
) -> Prepared:
    present, index = np.unique(requests.account, return_inverse=True)
    names = [accounts[each] for each in present.tolist()]
    form = usage_pb2.UsagePlanes(
        event_count=len(index),
        accounts=names,
        services=[usage_pb2.Dimensions(model=model, tier=tier.name, pool=tier.pool)],
        account_index=_column(index),
        service_index=_column(np.zeros_like(index)),
        end_offset_ms=_column(requests.end_offset_ms),
        duration_ms=_column(requests.duration_ms),
    )
    tokens: Tokens = {name: {} for name in names}
    for word, counts in requests.classes.items():
        if not counts.any():
            continue
        token_class = usage_pb2.TokenClass.Value(f"TOKEN_CLASS_{word.upper()}")
        form.tokens.add(token_class=token_class, counts=_column(counts))
        sums = Counter[str]()
        for name, count in zip(index.tolist(), counts.tolist(), strict=True):
            sums[names[name]] += count
        for name, count in (+sums).items():
            tokens[name][word] = count
    return Prepared(
        tier=tier.name,
        model=model,
        event_count=len(index),
        energy_mj=energy_mj,
        tokens=tokens,
        planes=form.SerializeToString(),
    )


def _weigh(requests: _Requests) -> int:
    sums = {word: int(counts.sum()) for word, counts in requests.classes.items()}
    return (
        sums["input"] * _PROMPT_WEIGHT
        + sums["cache_read"] * _CACHED_WEIGHT
        + (sums["output"] + sums["reasoning"]) * _OUTPUT_WEIGHT
    )


def _mean_weight(table: Int64Array) -> float:
    """Return what an average request weighs; caches are left out, so it is a little too much."""
    return float((table[:, 0] * _PROMPT_WEIGHT + table[:, 1] * _OUTPUT_WEIGHT).mean())


def _column(values: Int64Array) -> usage_pb2.PlaneColumn:
    """Return numbers as `usage.proto` has them: planes of bytes, and one of half bytes."""
    base = int(values.min())
    half_bytes = math.ceil(int(values.max() - base).bit_length() / _HALF_BYTE_BITS)
    whole, rest = divmod(half_bytes, 2)
    octets = (values - base).astype("<u8").view(np.uint8).reshape(len(values), 8)
    planes = [octets[:, plane].tobytes() for plane in range(whole)]
    if rest:
        low, high = octets[0::2, whole].copy(), octets[1::2, whole]
        low[: len(high)] |= high << _HALF_BYTE_BITS
        planes.append(low.tobytes())
    return usage_pb2.PlaneColumn(half_bytes=half_bytes, base=base, planes=b"".join(planes))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > _SEVEN_BITS:
        parts.append(number & _SEVEN_BITS | _SEVEN_BITS + 1)
        number >>= 7
    parts.append(number)
    return bytes(parts)
