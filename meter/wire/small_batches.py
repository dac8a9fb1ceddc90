"""Small batches in planes: what waits for its commit is read and checked in one pass.

Numpy asks a microsecond or two for each call, whatever it is of, and a batch of a hundred events
makes fifty of them. A batch in which all is known and right comes out of the pass as it would
alone; any other is read alone, with what is to be said of it. Lives on the event loop alone.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import Any, Final, NamedTuple

import numpy as np

from meter.domain import limits
from meter.domain.credential import Credential
from meter.domain.event import DEFAULTS, BoolArray, DimensionTable, EventBatch, Int64Array, Origin
from meter.journal.check import plain_bounds
from meter.journal.commit import Submission
from meter.planes import TOGETHER_MAX, from_runs
from meter.wire.intake import Intake
from meter.wire.packed import UnusableBatch
from meter.wire.planar import PLACE_BYTES, Sheet, read_sheet
from meter.wire.reported import BYTES_PER_EVENT
from meter.wire.translate import id_array, milliseconds

# A batch of more bytes is read at once: what waits is bounded.
_BYTES_MAX: Final = 65_536
# So many wait at most, for all of them share a pass then; and what is new to this server is
# charged to who brought it before others bring more.
WAITING_MAX: Final = 64

# Columns of a sheet before those of numbers.
_INDEXES: Final = 2


class _Waiting(NamedTuple):
    """A batch that is not read yet; `charge` is told how many dimensions of it are new here."""

    submission: Submission
    message: Any
    credential: Credential
    charge: Callable[[int], None]


class _Plain(NamedTuple):
    """What a batch says if nothing of it is wrong: its sheet, and the places of its names."""

    waiting: _Waiting
    event_count: int
    base_ms: int
    sheet: Sheet
    services: bytes
    accounts: bytes


class SmallBatches:
    """Makes submissions of streams' batches; those of few events wait for each other."""

    def __init__(self, intake: Intake) -> None:
        """Take who reads those that are not small, or not all known and right."""
        self._intake = intake
        self._nothing, _ = intake.translator.from_rows([])
        self._waiting: list[_Waiting] = []

    def take(
        self,
        message: Any,  # noqa: ANN401
        credential: Credential,
        origin: Origin,
        *,
        raw: bytes,
        charge: Callable[[int], None],
    ) -> Submission:
        """Return a stream's batch as a submission, which is read at once or has a `read`.

        `charge` is told how many dimensions of it were new to this server, once it is read.
        """
        submission = Submission(origin=origin, batch=self._nothing, whole=raw)
        waiting = _Waiting(submission, message, credential, charge)
        if not _is_small(message, raw):
            return self._read_alone(waiting)
        submission.size_bytes = len(raw) + BYTES_PER_EVENT * message.planes.event_count
        submission.read = self.read
        self._waiting.append(waiting)
        if len(self._waiting) >= WAITING_MAX:
            self.read()
        return submission

    def read(self) -> None:
        """Complete all that wait. What cannot be read for a fault of ours has it as its `fault`."""
        waiting, self._waiting = self._waiting, []
        # Before any name is looked up: a new table forgets them all.
        table = self._intake.translator.room()
        together: dict[tuple[str, ...], list[_Plain]] = {}
        alone: list[_Waiting] = []
        for each in waiting:
            each.submission.read = None
            plain = self._find_plain(each)
            if plain is None:
                alone.append(each)
            else:
                together.setdefault(plain.sheet.names, []).append(plain)
        for batches in together.values():
            alone += self._read_together(batches, table)
        for each in alone:
            try:
                read = self._read_alone(each)
            except Exception as fault:  # noqa: BLE001  it is the answer to its own batch alone
                each.submission.fault = fault
                continue
            each.submission.batch, each.submission.set_aside = read.batch, read.set_aside

    def _read_alone(self, waiting: _Waiting) -> Submission:
        """Return what a batch is if it is read for itself."""
        intake, whole = self._intake, waiting.submission
        met_count = intake.met_count
        submission, _ = intake.from_batch(
            waiting.message, waiting.credential, whole.origin, raw=whole.whole
        )
        waiting.charge(intake.met_count - met_count)
        return submission

    def _find_plain(self, waiting: _Waiting) -> _Plain | None:
        """Return what a batch says; None where its form is wrong, or a name not known."""
        form = waiting.message.planes
        try:
            sheet = read_sheet(form)
        except UnusableBatch:
            return None
        count = form.event_count
        half_size = (count + 1) // 2
        sizes = [(each >> 1) * count + (each & 1) * half_size for each in sheet.half_bytes]
        if list(map(len, sheet.planes)) != sizes:
            return None
        places = self._intake.translator.pairs.find_places(form.services, form.accounts)
        if places is None:
            return None
        return _Plain(waiting, count, milliseconds(form.base_time), sheet, *places)

    def _read_together(self, batches: list[_Plain], table: DimensionTable) -> list[_Waiting]:
        """Complete those of batches, all of the same columns, that are right; return the others."""
        names = batches[0].sheet.names[_INDEXES:]
        bounds = [plain_bounds(name) for name in names[1:]]
        if None in bounds:
            return [it.waiting for it in batches]
        # Those of one API key are judged together.
        batches.sort(key=lambda it: it.waiting.credential.key_id)
        columns = _Columns(batches)
        handles = self._intake.translator.pairs.find_known(
            b"".join([it.services for it in batches]),
            b"".join([it.accounts for it in batches]),
            service=columns.service,
            account=columns.account,
        )
        are_right = columns.are_within([it for it in bounds if it])
        are_right &= self._are_fine(batches, handles, table)
        others = []
        extra_count = sum(name in DEFAULTS for name in names[1:])
        numbers = [int(name) for name in names[1 + extra_count :]]
        for place, (batch, is_right) in enumerate(zip(batches, are_right.tolist(), strict=True)):
            if not is_right:
                others.append(batch.waiting)
                continue
            begin = columns.begins[place]
            end_ms, *values = columns.of_batch(place)
            batch.waiting.submission.batch = EventBatch(
                table=table,
                dimension=handles[begin : begin + batch.event_count],
                end_ms=end_ms,
                tokens=dict(zip(numbers, values[extra_count:], strict=True)),
                extra=dict(zip(names[1 : 1 + extra_count], values[:extra_count], strict=True)),
                event_ids=id_array(batch.sheet.event_ids, batch.event_count),
            )
        return others

    def _are_fine(
        self, batches: Sequence[_Plain], handles: Int64Array, table: DimensionTable
    ) -> BoolArray:
        """Tell of each batch whether all of its dimensions are known to be right."""
        fine: list[BoolArray] = []
        begin = 0
        for _, run in groupby(batches, key=lambda it: it.waiting.credential.key_id):
            of_key = list(run)
            waiting = of_key[-1].waiting
            # The newest: what a key may do is judged by the accounts of now.
            verdicts = self._intake.verdicts_of(
                waiting.credential, table, waiting.submission.origin.received_ms
            )
            counts = [it.event_count for it in of_key]
            end = begin + sum(counts)
            starts = [0, *accumulate(counts[:-1])]
            fine.append(np.logical_and.reduceat(verdicts.are_fine(handles[begin:end]), starts))
            begin = end
        return np.concatenate(fine)


class _Columns:
    """The numbers of batches, all of the same columns.

    The indexes of each kind lie behind each other, as places among the names of all batches;
    behind them, batch by batch, all other columns.
    """

    def __init__(self, batches: Sequence[_Plain]) -> None:
        sheets = [it.sheet for it in batches]
        counts = [it.event_count for it in batches]
        self._batches = batches
        self._width = len(sheets[0].names) - _INDEXES
        self._accounts = [0, *accumulate(len(it.accounts) // PLACE_BYTES for it in batches)]
        self._services = [0, *accumulate(len(it.services) // PLACE_BYTES for it in batches)]
        self._counts = [*counts, *counts, *(n for n in counts for _ in range(self._width))]
        firsts = (
            [first + it.bases[0] for first, it in zip(self._accounts, sheets, strict=False)],
            [first + it.bases[1] for first, it in zip(self._services, sheets, strict=False)],
        )
        rest = [
            base
            for it, own in zip(batches, sheets, strict=True)
            for base in (it.base_ms + own.bases[_INDEXES], *own.bases[_INDEXES + 1 :])
        ]
        self._values = from_runs(
            _by_kind([it.planes for it in sheets]),
            half_bytes=_by_kind([it.half_bytes for it in sheets]),
            bases=[*firsts[0], *firsts[1], *rest],
            counts=self._counts,
        )
        self.begins = [0, *accumulate(counts)]
        total = self.begins[-1]
        self.account = self._values[:total]
        self.service = self._values[total : 2 * total]
        self._rest = self._values[2 * total :]

    def of_batch(self, place: int) -> Sequence[Int64Array]:
        """Return the columns of a batch but the indexes: the ends, then as they are named."""
        count, begin = self._batches[place].event_count, self.begins[place] * self._width
        return list(self._rest[begin : begin + count * self._width].reshape(self._width, count))

    def are_within(self, bounds: Sequence[tuple[int, int]]) -> BoolArray:
        """Tell of each batch whether all its numbers lie between their bounds, by column.

        Those of the ends and the indexes are its own.
        """
        received = [it.waiting.submission.origin.received_ms for it in self._batches]
        lows, highs = [low for low, _ in bounds], [high for _, high in bounds]
        lowest = [
            *self._accounts[:-1],
            *self._services[:-1],
            *(low for now in received for low in (now - limits.LATE_MS_MAX, *lows)),
        ]
        highest = [
            *(end - 1 for end in self._accounts[1:]),
            *(end - 1 for end in self._services[1:]),
            *(high for now in received for high in (now + limits.FUTURE_MS_MAX, *highs)),
        ]
        starts = [0, *accumulate(self._counts[:-1])]
        within = (np.minimum.reduceat(self._values, starts) >= lowest) & (
            np.maximum.reduceat(self._values, starts) <= highest
        )
        count = len(self._batches)
        return (
            within[:count]
            & within[count : 2 * count]
            & within[2 * count :].reshape(count, self._width).all(axis=1)
        )


def _is_small(message: Any, raw: bytes) -> bool:  # noqa: ANN401
    """Tell whether a batch's message is of few events in planes, and of nothing else."""
    if message.WhichOneof("events") != "planes" or message.is_doubtful or len(raw) > _BYTES_MAX:
        return False
    form = message.planes
    return 0 < form.event_count < TOGETHER_MAX and not (
        form.source or form.usage or form.request_id
    )


def _by_kind(columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Return what batches have of each column, in the order of `_Columns`."""
    return [
        *(it[0] for it in columns),
        *(it[1] for it in columns),
        *(each for it in columns for each in it[_INDEXES:]),
    ]
