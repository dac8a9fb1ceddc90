"""The check: one outcome for each event, whole columns at a time; pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from meter.domain import limits
from meter.domain.account import AccountTree
from meter.domain.credential import Credential, Role
from meter.domain.event import (
    BoolArray,
    Dimensions,
    DimensionTable,
    EventBatch,
    Int64Array,
    Uint8Array,
)
from meter.domain.outcome import Outcome
from meter.domain.tokens import OUTPUT_CLASSES, PROMPT_CLASSES, Finish, Mode, Quality, TokenClass

_CLASSES: Final = frozenset(TokenClass)
_MODES: Final = frozenset(Mode)
# Of a column's numbers the lowest and the highest, and what becomes of others.
_BOUNDS: Final[Mapping[str, tuple[int, int, Outcome]]] = {
    "duration_ms": (0, limits.DURATION_MS_MAX, Outcome.FIELD_INVALID),
    "attempt": (0, limits.ATTEMPT_MAX, Outcome.FIELD_INVALID),
    "finish": (int(min(Finish)), int(max(Finish)), Outcome.FINISH_UNKNOWN),
    "quality": (int(min(Quality)), int(max(Quality)), Outcome.QUALITY_UNKNOWN),
}
_PLAIN: Final[Mapping[str, tuple[int, int]]] = {
    **{name: bounds[:2] for name, bounds in _BOUNDS.items()},
    **{str(int(number)): (0, limits.TOKEN_COUNT_MAX) for number in TokenClass},
}
_Mark: TypeAlias = Callable[[BoolArray, Outcome], None]
# Looked up once: of an enum that costs as much as a call of numpy.
_RECORDED: Final = int(Outcome.RECORDED)
# Above every outcome: nothing found yet. Not judged: above that.
_FINE: Final = 254
_NOT_JUDGED: Final = 255
_NEVER_MS: Final = 2**62


@dataclass(slots=True)
class Verdicts:
    """What is known of each handle of a table, for one API key and one state of the registry.

    Grows with the table; made anew when the registry moves, so a change of an account or a key
    takes effect with the first batch after it.
    """

    table: DimensionTable
    credential: Credential
    tree: AccountTree
    tiers: frozenset[str]
    outcome: Uint8Array = field(default_factory=lambda: np.empty(0, np.uint8))
    close_ms: np.ndarray[tuple[int], np.dtype[np.int64]] = field(
        default_factory=lambda: np.empty(0, np.int64)
    )
    has_closed: bool = False

    def judge(self, batch: EventBatch, *, now_ms: int) -> Uint8Array:
        """Return each event's outcome by its dimensions."""
        self._grow()
        outcomes = self.outcome.take(batch.dimension)
        if int(outcomes.max(initial=0)) == _NOT_JUDGED:
            unseen = batch.dimension[outcomes == _NOT_JUDGED]
            self._judge_handles(np.unique(unseen), now_ms=now_ms)
            outcomes = self.outcome.take(batch.dimension)
        return outcomes

    def are_fine(self, handles: Int64Array) -> BoolArray:
        """Tell of which handles it is known that they are right at any time; below 0 is none."""
        self._grow()
        if not len(self.outcome):
            return np.zeros(len(handles), np.bool_)
        fine: BoolArray = (self.outcome.take(handles, mode="clip") == _FINE) & (handles >= 0)
        if self.has_closed:
            fine &= self.close_ms.take(handles, mode="clip") == _NEVER_MS
        return fine

    def closed(self, batch: EventBatch) -> BoolArray | None:
        """Return of which events the account was closed by then; None: of none."""
        return batch.end_ms >= self.close_ms[batch.dimension] if self.has_closed else None

    def _grow(self) -> None:
        missing = len(self.table) - len(self.outcome)
        if missing > 0:
            room = missing + len(self.outcome) // 2
            self.outcome = np.append(self.outcome, np.full(room, _NOT_JUDGED, np.uint8))
            self.close_ms = np.append(self.close_ms, np.full(room, _NEVER_MS, np.int64))

    def _judge_handles(self, handles: Iterable[int], *, now_ms: int) -> None:
        for handle in handles:
            dimensions = self.table[handle]
            self.outcome[handle] = self._outcome(dimensions, now_ms=now_ms)
            account = self.tree.find(dimensions.account)
            if account is not None and account.close_ms is not None:
                self.close_ms[handle] = account.close_ms
                self.has_closed = True

    def _outcome(self, dimensions: Dimensions, *, now_ms: int) -> int:
        if not _are_fields_valid(dimensions):
            return Outcome.FIELD_INVALID
        account_id = dimensions.account
        may = self.credential.may(Role.PRODUCER, account_id, tree=self.tree, at_ms=now_ms)
        if self.tree.find(account_id) is None:
            return Outcome.ACCOUNT_UNKNOWN
        if not may:
            return Outcome.ACCOUNT_OUT_OF_SCOPE
        if dimensions.tier not in self.tiers:
            return Outcome.TIER_UNKNOWN
        if dimensions.mode not in _MODES:
            return Outcome.MODE_UNKNOWN
        return _FINE


def check(
    batch: EventBatch, verdicts: Verdicts, *, now_ms: int, any_age: bool = False
) -> Uint8Array:
    """Return one `Outcome` number for each event; RECORDED where nothing is wrong.

    Where several apply, the lowest number wins. `any_age` leaves the late limit out: a person has
    decided to release the event.
    """
    found = verdicts.judge(batch, now_ms=now_ms)

    def mark(where: BoolArray, outcome: Outcome) -> None:
        if where.any():
            found[where & (found > outcome)] = outcome

    closed = verdicts.closed(batch)
    if closed is not None:
        mark(closed, Outcome.ACCOUNT_CLOSED)
    if len(batch):
        _check_numbers(batch, mark)
        _check_time(batch, mark, now_ms=now_ms, any_age=any_age)
        _check_tokens(batch, mark)
        _check_sum(batch, mark, name="reported_input", classes=PROMPT_CLASSES)
        _check_sum(batch, mark, name="reported_output", classes=OUTPUT_CLASSES)
    if int(found.min(initial=_FINE)) == _FINE:
        # Most batches are right in all.
        found.fill(_RECORDED)
    else:
        found[found == _FINE] = _RECORDED
    return found


def plain_bounds(name: str) -> tuple[int, int] | None:
    """Return the lowest and the highest number of a column in which nothing is wrong.

    It is named as in `EventBatch.extra` or, of tokens, by the class's number as text. None where
    that alone does not tell; it may be wrong in a context.
    """
    return _PLAIN.get(name)


def _check_numbers(batch: EventBatch, mark: _Mark) -> None:
    for name, values in batch.extra.items():
        bounds = _BOUNDS.get(name)
        if bounds is None:
            continue
        lowest, highest, outcome = bounds
        low, high = batch.span(name)
        # Where the span tells it, nobody looks at the numbers.
        if low < lowest or high > highest:
            mark((values < lowest) | (values > highest), outcome)
    if batch.request_ids is not None:
        wrong = [not is_text(text, limits.REQUEST_ID_CHARS_MAX) for text in batch.request_ids]
        mark(np.array(wrong, np.bool_), Outcome.FIELD_INVALID)


def _check_time(batch: EventBatch, mark: _Mark, *, now_ms: int, any_age: bool) -> None:
    first, last = batch.span("end_ms")
    latest_ms = now_ms + limits.FUTURE_MS_MAX
    earliest_ms = 0 if any_age else now_ms - limits.LATE_MS_MAX
    if last > latest_ms:
        mark(batch.end_ms > latest_ms, Outcome.TIME_IN_FUTURE)
    if first < earliest_ms:
        mark(batch.end_ms < earliest_ms, Outcome.TIME_TOO_OLD)


def _check_tokens(batch: EventBatch, mark: _Mark) -> None:
    for number, counts in batch.tokens.items():
        if number not in _CLASSES:
            mark(counts != 0, Outcome.CLASS_UNKNOWN)
        low, high = batch.span(number)
        if low < 0:
            mark(counts < 0, Outcome.COUNT_NEGATIVE)
        if high > limits.TOKEN_COUNT_MAX:
            mark(counts > limits.TOKEN_COUNT_MAX, Outcome.COUNT_ABOVE_LIMIT)


def _check_sum(
    batch: EventBatch, mark: _Mark, *, name: str, classes: frozenset[TokenClass]
) -> None:
    reported = batch.extra.get(name)
    if reported is None:
        return
    mark(reported < -1, Outcome.COUNT_NEGATIVE)
    total = np.zeros(len(batch), np.int64)
    for number in classes & batch.tokens.keys():
        # Out-of-range counts have an outcome of their own; clipped, they cannot overflow here.
        counts = batch.tokens[number].astype(np.int64, copy=False)
        total += np.clip(counts, 0, limits.TOKEN_COUNT_MAX + 1)
    mark((reported >= 0) & (reported != total), Outcome.COUNT_MISMATCH)


def _are_fields_valid(dimensions: Dimensions) -> bool:
    return (
        len(dimensions.account) >= 1
        and len(dimensions.model) >= 1
        and is_text(dimensions.account, limits.ACCOUNT_CHARS_MAX)
        and is_text(dimensions.model, limits.MODEL_CHARS_MAX)
        and is_text(dimensions.served_model, limits.MODEL_CHARS_MAX)
        and is_text(dimensions.tier, limits.TIER_CHARS_MAX)
        and is_text(dimensions.pool, limits.POOL_CHARS_MAX)
        and is_text(dimensions.region, limits.REGION_CHARS_MAX)
    )


def is_text(text: str, length_max: int) -> bool:
    """Tell whether a text is short enough and has no control characters; it may be empty."""
    return len(text) <= length_max and (text.isprintable() or not text)
