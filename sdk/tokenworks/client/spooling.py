"""Where a client's batches lie: in memory, or in a spool that is found, opened and left in time."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokenworks.client.fallback import FallbackHold
from tokenworks.client.hold import Hold, MemoryHold
from tokenworks.client.spool import (
    Folder,
    Fsync,
    Spool,
    SpoolOptions,
    SpoolUnusable,
    WhenFull,
    leftovers,
    open_slot,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A hold, and the name of the producer whose numbers it has."""

    hold: Hold
    producer: str
    spool: FallbackHold | None = None
    """The hold again, where it is on disk."""
    folder: Folder | None = None

    @property
    def memory_event_count(self) -> int:
        """Events that take room in memory."""
        return self.hold.held_event_count if self.spool is None else self.spool.memory_event_count


OpenPlace = Callable[[], Place]
"""Opens a place, on the sender's thread; never raises."""


def in_memory(producer: str) -> OpenPlace:
    """Hold batches in memory."""
    return lambda: Place(hold=MemoryHold(), producer=producer)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPlan:
    """Where a producer's spools lie, and how they behave."""

    root: Path
    producer: str
    options: SpoolOptions = field(default_factory=SpoolOptions)

    @classmethod
    def from_arguments(
        cls,
        spool: str | Path,
        *,
        producer: str,
        fsync: str,
        bytes_max: int,
        retain_bytes: int,
        when_full: str,
    ) -> "SpoolPlan":
        """Read the arguments of `Meter`; raises ValueError that says which is wrong."""
        if producer.strip(".") == "":
            raise ValueError("producer: with a spool it names a folder, so not only dots")
        if fsync not in list(Fsync):
            raise ValueError(f"fsync: one of {', '.join(Fsync)}")
        if when_full not in list(WhenFull):
            raise ValueError(f"when_full: one of {', '.join(WhenFull)}")
        options = SpoolOptions(
            fsync=Fsync(fsync),
            when_full=WhenFull(when_full),
            bytes_max=bytes_max,
            retain_bytes=retain_bytes,
        )
        return cls(root=Path(spool), producer=producer, options=options)

    def open(self) -> Place:
        """Take the first slot that is free. Raises SpoolUnusable."""
        folder, name = open_slot(self.root, self.producer)
        return self._place(folder, name)

    def open_or_memory(self, producer: str) -> Place:
        """Take a slot, or go on in memory under this name, and say so."""
        try:
            return self.open()
        except SpoolUnusable as error:
            _LOG.error(
                "spool_unusable producer=%s reason=%s detail=%s",
                producer,
                error.reason.value,
                error,
            )
            return Place(hold=MemoryHold(), producer=producer)

    def leftovers(self) -> Iterator[Place]:
        """Open, one after the other, what processes of this producer have left that are gone."""
        for folder, name in leftovers(self.root, self.producer):
            try:
                yield self._place(folder, name)
            except SpoolUnusable as error:
                _LOG.error(
                    "spool_unusable producer=%s reason=%s detail=%s",
                    name,
                    error.reason.value,
                    error,
                )

    def _place(self, folder: Folder, name: str) -> Place:
        try:
            spool = Spool.open(folder, producer=name, options=self.options)
        except SpoolUnusable:
            folder.close()
            raise
        _tell_findings(spool, producer=name)
        hold = FallbackHold(spool)
        return Place(
            hold=hold,
            producer=name,
            spool=hold,
            folder=folder,
        )


def _tell_findings(spool: Spool, *, producer: str) -> None:
    findings = spool.findings
    if findings.torn_bytes:
        # The end of what a crash interrupted: it was never acknowledged to anybody.
        _LOG.info("spool_healed producer=%s torn_bytes=%d", producer, findings.torn_bytes)
    if spool.lost_event_count or findings.damaged_batch_count or findings.is_manifest_damaged:
        _LOG.error(
            "spool_damaged producer=%s batches=%d events=%d reports=%d manifest=%s",
            producer,
            findings.damaged_batch_count,
            findings.damaged_event_count,
            findings.damaged_report_count,
            "damaged" if findings.is_manifest_damaged else "whole",
        )


_LOG: Final = logging.getLogger("tokenworks.client")
