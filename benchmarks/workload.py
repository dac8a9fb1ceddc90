"""What is sent: dimensions, token lengths, batches, all drawn from a seed."""

import csv
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from meter.planes import half_bytes_of, to_planes
from tokenworks.meter.v1 import usage_pb2

ACCOUNTS: Final = 1_000
MODELS: Final = ("kimi-k2.6", "glm-5.1-fp8", "llama-405b", "qwen3-coder")
POOL: Final = "h200-a"
TIERS: Final = ("free", "medium", "high", "premium", "ultra")
# Events of which a producer's batches are built, unless it is told another number.
DISTINCT_EVENTS: Final = 60_000
_BATCHES_MAX: Final = 64
_CLASSES: Final = (
    usage_pb2.TOKEN_CLASS_INPUT,
    usage_pb2.TOKEN_CLASS_CACHE_READ,
    usage_pb2.TOKEN_CLASS_OUTPUT,
)
_Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
_TRACES: Final = Path(__file__).parents[2] / "shared" / "data" / "azure-llm-2023"


def account_name(number: int) -> str:
    """Return the id of an account."""
    return f"acct-{number:06d}"


@cache
def lengths() -> tuple[list[tuple[int, int]], str]:
    """Return (context, generated) pairs and where they come from; read once a process."""
    pairs = [
        (int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for path in sorted(_TRACES.glob("*.csv"))
        for row in csv.DictReader(path.read_text("utf-8").splitlines())
    ]
    if pairs:
        return pairs, "Azure 2023 lengths"
    draw = random.Random(2023)
    drawn = [
        (min(14_050, int(draw.lognormvariate(6.9, 1.1))), int(draw.lognormvariate(4.6, 1.0)))
        for _ in range(28_000)
    ]
    return drawn, "generated lengths of the Azure 2023 shape"


class Form(StrEnum):
    """The form of a batch's events."""

    ROWS = "rows"
    PLANES = "planes"


# The field of a batch that holds them, as its tag is on the wire.
_TAGS: Final = {Form.ROWS: b"\x12", Form.PLANES: b"\x2a"}


class Batches:
    """Batches of one producer, built before the clock starts; the sequence is put in at the end."""

    def __init__(
        self,
        *,
        seed: int,
        events: int,
        model: str,
        pairs: Sequence[tuple[int, int]],
        count: int | None = None,
        has_ids: bool = False,
        form: Form = Form.PLANES,
        accounts: int = ACCOUNTS,
        distinct_events: int = DISTINCT_EVENTS,
    ) -> None:
        """Build `count` different batches of `events` events each.

        Without a count it is as many as `distinct_events` make up, from 2 to 64. `has_ids` gives
        each event in planes an id of 16 bytes; accounts are drawn evenly from so many.
        """
        self.events = events
        random_numbers = np.random.default_rng(seed)
        table = np.array(pairs, np.int64)
        self._tag = _TAGS[form]
        self._payloads: list[bytes] = []
        self.tokens: list[int] = []
        for _ in range(count or min(max(2, distinct_events // events), _BATCHES_MAX)):
            drawn = _draw(random_numbers, events=events, accounts=accounts, table=table)
            ids = random_numbers.bytes(16 * events) if has_ids else b""
            make = _rows if form is Form.ROWS else _planes
            self._payloads.append(make(drawn, model=model, ids=ids).SerializeToString())
            self.tokens.append(sum(int(counts.sum()) for counts in drawn.counts))

    @property
    def payloads(self) -> list[bytes]:
        """The batches as messages of their form."""
        return self._payloads

    def message(self, sequence: int) -> bytes:
        """Return the StreamUsageRequest of a number; batch contents repeat in turn."""
        payload = self._payloads[sequence % len(self._payloads)]
        # The fields `sequence` and that of the form of a batch.
        head = b"\x08" + _varint(sequence) + self._tag + _varint(len(payload))
        return b"\x12" + _varint(len(head) + len(payload)) + head + payload

    def tokens_of(self, sequence: int) -> int:
        """Return the tokens in the batch of a number."""
        return self.tokens[sequence % len(self._payloads)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The events of a batch, each array of as many entries; `counts` as `_CLASSES` has them."""

    base_ms: int
    account: _Numbers
    tier: _Numbers
    end_offset_ms: _Numbers
    duration_ms: _Numbers
    counts: tuple[_Numbers, ...]


def _draw(
    random_numbers: np.random.Generator,
    *,
    events: int,
    accounts: int,
    table: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> _Drawn:
    account = random_numbers.integers(0, accounts, events)
    drawn = table[random_numbers.integers(0, len(table), events)]
    cached = (drawn[:, 0] * random_numbers.random(events) * 0.5).astype(np.int64)
    return _Drawn(
        base_ms=time.time_ns() // 10**6 - 1_000,
        account=account,
        tier=random_numbers.integers(0, len(TIERS), events),
        end_offset_ms=np.sort(random_numbers.integers(0, 200, events)),
        duration_ms=20 * drawn[:, 1] + 200,
        counts=(drawn[:, 0] - cached, cached, drawn[:, 1]),
    )


def _planes(drawn: _Drawn, *, model: str, ids: bytes) -> usage_pb2.UsagePlanes:
    accounts, account = np.unique(drawn.account, return_inverse=True)
    form = usage_pb2.UsagePlanes(
        event_count=len(drawn.account),
        accounts=[account_name(number) for number in accounts.tolist()],
        services=[usage_pb2.Dimensions(model=model, tier=tier, pool=POOL) for tier in TIERS],
        account_index=_column(account),
        service_index=_column(drawn.tier),
        end_offset_ms=_column(drawn.end_offset_ms),
        duration_ms=_column(drawn.duration_ms),
        event_ids=ids,
    )
    form.base_time.FromMilliseconds(drawn.base_ms)
    for token_class, counts in zip(_CLASSES, drawn.counts, strict=True):
        form.tokens.add(token_class=token_class, counts=_column(counts))
    return form


def _rows(drawn: _Drawn, *, model: str, ids: bytes) -> usage_pb2.UsageRows:
    assert not ids, "no row of the benchmark is of rows with ids"
    form = usage_pb2.UsageRows()
    for place, account in enumerate(drawn.account.tolist()):
        event = form.events.add(
            dimensions=usage_pb2.Dimensions(
                account=account_name(account),
                model=model,
                tier=TIERS[drawn.tier[place]],
                pool=POOL,
            ),
            duration_ms=int(drawn.duration_ms[place]),
        )
        event.end_time.FromMilliseconds(drawn.base_ms + int(drawn.end_offset_ms[place]))
        for token_class, counts in zip(_CLASSES, drawn.counts, strict=True):
            event.tokens.add(token_class=token_class, count=int(counts[place]))
    return form


def _column(values: _Numbers) -> usage_pb2.PlaneColumn:
    base = int(values.min())
    half_bytes = half_bytes_of(int(values.max()) - base)
    planes = to_planes(values - base, half_bytes)
    return usage_pb2.PlaneColumn(half_bytes=half_bytes, base=base, planes=planes)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
