"""What is sent: dimensions, token lengths, batches, all drawn from a seed."""

import csv
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from meter.planes import half_bytes_of, to_planes
from tokenworks.meter.v1 import usage_pb2

ACCOUNTS: Final = 1_000
MODELS: Final = ("kimi-k2.6", "glm-5.1-fp8", "llama-405b", "qwen3-coder")
TIERS: Final = ("free", "medium", "high", "premium", "ultra")
_TRACES: Final = Path(__file__).parents[2] / "shared" / "data" / "azure-llm-2023"


def account_name(number: int) -> str:
    """Return the id of an account."""
    return f"acct-{number:06d}"


def lengths() -> tuple[list[tuple[int, int]], str]:
    """Return (context, generated) pairs and where they come from."""
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


class Batches:
    """Batches of one producer, built before the clock starts; the sequence is put in at the end."""

    def __init__(
        self,
        *,
        seed: int,
        events: int,
        model: str,
        pairs: Sequence[tuple[int, int]],
        count: int,
        has_ids: bool = False,
    ) -> None:
        """Build `count` different batches of `events` events each; `has_ids` gives each an id."""
        self.events = events
        random_numbers = np.random.default_rng(seed)
        table = np.array(pairs, np.int64)
        self._planes: list[bytes] = []
        self.tokens: list[int] = []
        for _ in range(count):
            form, tokens = _planes(random_numbers, events=events, model=model, table=table)
            if has_ids:
                form.event_ids = random_numbers.bytes(16 * events)
            self._planes.append(form.SerializeToString())
            self.tokens.append(tokens)

    @property
    def payloads(self) -> list[bytes]:
        """The batches as UsagePlanes."""
        return self._planes

    def message(self, sequence: int) -> bytes:
        """Return the StreamUsageRequest of a number; batch contents repeat in turn."""
        planes = self._planes[sequence % len(self._planes)]
        # The fields `sequence` and `planes` of a batch.
        head = b"\x08" + _varint(sequence) + b"\x2a" + _varint(len(planes))
        return b"\x12" + _varint(len(head) + len(planes)) + head + planes

    def tokens_of(self, sequence: int) -> int:
        """Return the tokens in the batch of a number."""
        return self.tokens[sequence % len(self._planes)]


def _planes(
    random_numbers: np.random.Generator,
    *,
    events: int,
    model: str,
    table: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> tuple[usage_pb2.UsagePlanes, int]:
    accounts, account = np.unique(random_numbers.integers(0, ACCOUNTS, events), return_inverse=True)
    drawn = table[random_numbers.integers(0, len(table), events)]
    cached = (drawn[:, 0] * random_numbers.random(events) * 0.5).astype(np.int64)
    form = usage_pb2.UsagePlanes(
        event_count=events,
        accounts=[account_name(number) for number in accounts.tolist()],
        services=[usage_pb2.Dimensions(model=model, tier=tier, pool="h200-a") for tier in TIERS],
        account_index=_column(account),
        service_index=_column(random_numbers.integers(0, len(TIERS), events)),
        end_offset_ms=_column(np.sort(random_numbers.integers(0, 200, events))),
        duration_ms=_column(20 * drawn[:, 1] + 200),
    )
    form.base_time.FromMilliseconds(time.time_ns() // 10**6 - 1_000)
    classes = (
        (usage_pb2.TOKEN_CLASS_INPUT, drawn[:, 0] - cached),
        (usage_pb2.TOKEN_CLASS_CACHE_READ, cached),
        (usage_pb2.TOKEN_CLASS_OUTPUT, drawn[:, 1]),
    )
    for token_class, counts in classes:
        form.tokens.add(token_class=token_class, counts=_column(counts))
    return form, int(drawn.sum())


def _column(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> usage_pb2.PlaneColumn:
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
