"""A journal in memory that loses commits, or their answers, and comes back older than it was."""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from meter.arbiter import Settlement
from meter.corrections import NewCorrection
from meter.domain.errors import Reason, Unavailable
from meter.domain.event import (
    Claim,
    EventBatch,
    Evidence,
    Int64Array,
    Origin,
    ProducerKey,
    Reports,
    SetAside,
)
from meter.journal.protocol import ProducerState
from meter.segment import Gathered, decode, pack

BLANK = ProducerState(instance=bytes(16), sequence=0, digests=b"")
# Commits that can be gone back by; what is older is on a standby, or on tape.
_COMMITS_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is on disk; never changed in place."""

    producers: dict[ProducerKey, ProducerState] = field(default_factory=dict)
    announced: dict[ProducerKey, int] = field(default_factory=dict)
    instances: frozenset[tuple[ProducerKey, bytes]] = frozenset()
    gaps: tuple[tuple[ProducerKey, int, int], ...] = ()
    bodies: tuple[bytes, ...] = ()
    set_aside: tuple[tuple[Origin, SetAside], ...] = ()


class SimulatedTransaction:
    """A draft of the contents."""

    def __init__(self, contents: Contents) -> None:
        """Begin from what is there."""
        self.draft = contents

    def lock_producers(self, keys: Collection[ProducerKey]) -> dict[ProducerKey, ProducerState]:
        """Return their states; there is no other server here."""
        known = self.draft.producers
        return {key: known[key] for key in keys if key in known}

    def save_producers(self, states: dict[ProducerKey, ProducerState], *, now_ms: int) -> None:
        """Write them."""
        del now_ms
        self.draft = replace(self.draft, producers={**self.draft.producers, **states})

    def claim_events(self, claims: dict[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Nobody calls by event id here."""
        raise NotImplementedError

    def claim_requests(self, claims: dict[bytes, Claim], *, now_ms: int) -> dict[bytes, Claim]:
        """Nobody else reports here."""
        raise NotImplementedError

    def observe(self, evidence: Sequence[Evidence], *, now_ms: int) -> dict[bytes, bytes]:
        """Nobody else reports here."""
        raise NotImplementedError

    def keep_originals(self, reports: Reports, *, span_ms: tuple[int, int], now_ms: int) -> None:
        """Nobody else reports here."""
        raise NotImplementedError

    def append(self, part: Gathered) -> None:
        """Append a segment."""
        self.draft = replace(self.draft, bodies=(*self.draft.bodies, pack(part)))

    def set_aside(self, items: Sequence[tuple[Origin, SetAside]]) -> list[int]:
        """Keep them, a whole batch once however often it comes."""
        kept = list(self.draft.set_aside)
        places = {_name(origin, item): place for place, (origin, item) in enumerate(kept)}
        ids = []
        for origin, item in items:
            name = _name(origin, item)
            if name not in places:
                places[name] = len(kept)
                kept.append((origin, item))
            ids.append(places[name] + 1)
        self.draft = replace(self.draft, set_aside=tuple(kept))
        return ids

    def release(self, quarantine_id: int, *, key_id: str, now_ms: int) -> bool:
        """Nobody decides here."""
        raise NotImplementedError

    def correct(self, correction: NewCorrection, *, now_ms: int) -> int | None:
        """Nobody corrects here."""
        raise NotImplementedError

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Nobody corrects here."""
        raise NotImplementedError


class SimulatedStore:
    """The database: a commit takes effect, or not, and its answer arrives, or not."""

    def __init__(self, random: Random, *, reached: Counter[str]) -> None:
        """Take the source of chance, and where to note what happened."""
        self._random = random
        self._reached = reached
        self._history: deque[Contents] = deque(maxlen=_COMMITS_KEPT)
        self.contents = Contents()
        self.fault_chance = 0.0
        self.commit_number = 0
        """Of the last commit; what a standby has is counted in it."""

    @contextmanager
    def transaction(self) -> Iterator[SimulatedTransaction]:
        """Open a group's transaction."""
        transaction = SimulatedTransaction(self.contents)
        yield transaction
        self.commit(transaction.draft)

    def commit(self, draft: Contents) -> None:
        """Put a draft in force, or lose it; raises Unavailable where the answer is lost."""
        fate = self._random.random() / self.fault_chance if self.fault_chance else 1.0
        if fate < 0.5:
            self._reached["commits lost"] += 1
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The database is away.")
        self._history.append(self.contents)
        self.contents = draft
        self.commit_number += 1
        if fate < 1.0:
            self._reached["commits unknown"] += 1
            raise Unavailable(Reason.STORE_UNAVAILABLE, "Its fate is not known.")

    def roll_back(self, *, commits_max: int) -> None:
        """Become what it was some commits ago, as after a restore."""
        count = min(self._random.randint(1, max(commits_max, 1)), len(self._history), commits_max)
        for _ in range(count):
            self.contents = self._history.pop()
        self._history.clear()
        if count:
            self._reached["rollbacks"] += 1

    def open_producer(
        self, key: ProducerKey, instance: bytes, first: int, missing_from: int
    ) -> ProducerState:
        """Make an instance the newest one, as the store in Postgres does."""
        contents = self.contents
        before = contents.producers.get(key, BLANK)
        is_known = (key, instance) in contents.instances
        if is_known and before.instance != instance:
            return before
        after = before.opened(instance=instance, first_sequence=first, missing_from=missing_from)
        gaps = contents.gaps
        if after.sequence > before.sequence:
            self._reached["gaps"] += 1
            gaps = (*gaps, (key, before.sequence + 1, after.sequence))
        self.commit(
            replace(
                contents,
                producers={**contents.producers, key: after},
                instances=contents.instances | {(key, instance)},
                gaps=gaps,
            )
        )
        return after

    def ensure_dimensions(self, batches: Sequence[EventBatch]) -> Sequence[int]:
        """There is one dimension."""
        return [0] * len(batches)

    def dimension_ids(self, batch: EventBatch) -> Int64Array:
        """Its id is 1."""
        return np.ones(len(batch), np.int64)

    def counted(self) -> Counter[bytes]:
        """Return how often each event id lies in the journal."""
        return Counter(
            body_ids[place : place + 16]
            for body_ids in (decode(body).event_ids for body in self.contents.bodies)
            for place in range(0, len(body_ids), 16)
        )


def _name(origin: Origin, item: SetAside) -> tuple[str, int, int, bytes]:
    return (origin.producer, origin.sequence, item.index, item.payload)
