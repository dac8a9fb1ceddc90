"""The arbiter: looks at reports that wait, and corrects what is counted where a better one came.

All servers may do it at the same time: a row of the journal is corrected once, and what one of
them decides without the newest reports is looked at again. That one at a time does it saves work.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from meter.arbiter import (
    Claimed,
    FirstReport,
    Report,
    Settlement,
    Standing,
    choose,
    is_billed_alike,
)
from meter.corrections import CorrectableEvent, NewCorrection, from_batch, to_batch
from meter.domain.errors import Reason, StoreRefusal
from meter.domain.event import DimensionTable
from meter.domain.limits import ARBITRATED_AT_ONCE_MAX, ARBITRATED_CORRECTIONS_MAX
from meter.observations import Claim, CountedEvent, Dispute, KeptReport
from meter.sources.observation import Source, rank
from meter.wire.packed import UnusableBatch
from meter.wire.translate import Translator, to_event
from tokenworks.meter.v1 import usage_pb2

_log = logging.getLogger(__name__)
_SOURCES: Final = frozenset(Source)
# The number of the report that lies in the journal and not beside it.
FIRST: Final = 0


class Arbitration(Protocol):
    """Where reports wait: `meter.store.arbitration.ArbitrationStore`, which blocks.

    All methods raise Unavailable when the database is away.
    """

    def find_disputes(self, *, after_id: int, limit: int) -> tuple[Sequence[Dispute], int]:
        """Return requests of which reports wait, from an id on, oldest first, and the last id."""
        ...

    def find_counted(
        self, claims: Mapping[bytes, tuple[Claim, bytes]]
    ) -> Mapping[bytes, CountedEvent]:
        """Return the events of claims, by event key; each is given with its id in the journal."""
        ...

    def confirm(self, settlements: Sequence[Settlement]) -> None:
        """Keep what was decided without corrections, where the claims have not changed since."""
        ...

    def keep_as_evidence(self, keys: Sequence[bytes], *, seen_id: int) -> None:
        """Decide that nothing is to be decided about these requests' reports, up to an id."""
        ...


class Append(Protocol):
    """Writes a correction and what it settles: `append_correction`, of a server's parts."""

    async def __call__(self, wanted: NewCorrection, *, account_id: str, settles: Settlement) -> int:
        """Return its id; 0 where another correction of the row came first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ruling:
    """A correction that is to be made, and what it settles."""

    correction: NewCorrection
    account_id: str
    settles: Settlement


class Arbiter:
    """Decides about requests that several reported."""

    def __init__(self, append: Append, *, store: Arbitration, is_ours: Callable[[], bool]) -> None:
        """Take what writes corrections; `is_ours` tells whose turn it is."""
        self._append = append
        self._store = store
        self._is_ours = is_ours
        self._reader = ReportReader()

    async def round(self) -> None:
        """Decide about all that waits; raises Unavailable and Overloaded, and goes on next time."""
        after_id = 0
        while self._is_ours():
            rulings, last_id = await asyncio.to_thread(self._look, after_id)
            for first in range(0, len(rulings), ARBITRATED_CORRECTIONS_MAX):
                some = rulings[first : first + ARBITRATED_CORRECTIONS_MAX]
                await asyncio.gather(*(self._correct(ruling) for ruling in some))
            if last_id == after_id:
                return
            after_id = last_id

    async def _correct(self, ruling: _Ruling) -> None:
        try:
            await self._append(
                ruling.correction, account_id=ruling.account_id, settles=ruling.settles
            )
        except StoreRefusal as error:
            # It waits on, seen in the metric, and holds up nobody else.
            _log.warning("arbiter_refused", extra={"fault": str(error)})

    def _look(self, after_id: int) -> tuple[list[_Ruling], int]:
        """Decide about some requests; return what is to be corrected, and where to go on."""
        found, last_id = self._store.find_disputes(after_id=after_id, limit=ARBITRATED_AT_ONCE_MAX)
        # What a newer server's source reports waits for a server that knows it.
        found = [it for it in found if _sources(it) <= _SOURCES]
        wanted = {
            it.event_key: (it.claim, event_id)
            for it in found
            if it.claim is not None and (event_id := self._find_event_id(it))
        }
        counted = self._store.find_counted(wanted) if wanted else {}
        unclaimed = [it for it in found if it.event_key not in counted]
        if unclaimed:
            seen_id = max(it.seen_id for it in unclaimed)
            self._store.keep_as_evidence([it.event_key for it in unclaimed], seen_id=seen_id)
        rulings = []
        settled = []
        for dispute in found:
            event = counted.get(dispute.event_key)
            if event is not None and dispute.claim is not None:
                ruling = self._rule(dispute, dispute.claim, event)
                if isinstance(ruling, Settlement):
                    settled.append(ruling)
                elif ruling is not None:
                    rulings.append(ruling)
        if settled:
            self._store.confirm(settled)
        return rulings, last_id

    def _find_event_id(self, dispute: Dispute) -> bytes:
        """Return the request's id in the journal; nothing where no report can be read."""
        for it in dispute.reports:
            try:
                return self._reader.read(it.event).event_id
            except StoreRefusal as error:
                _log.warning("arbiter_refused", extra={"fault": str(error)})
        return b""

    def _rule(
        self, dispute: Dispute, claim: Claim, counted: CountedEvent
    ) -> _Ruling | Settlement | None:
        """Return the correction that is due, or what is settled without; None: another time."""
        if counted.event is None or counted.correction_id != claim.claimed.correction_id:
            # A person has decided: what is reported from then on is evidence.
            return _unchanged(dispute, claim)
        try:
            standing = choose(self._reader.reports(dispute, claim, counted))
        except StoreRefusal as error:
            _log.warning("arbiter_refused", extra={"fault": str(error)})
            return None
        settlement = _settlement(dispute, claim, counted, standing=standing)
        if is_billed_alike(standing.event, counted.event):
            return settlement
        if not counted.is_settled:
            return None
        newest = max(standing.report_ids)
        keys = {it.observation_id: it.key_id for it in dispute.reports}
        return _Ruling(
            correction=NewCorrection(
                target=counted.target,
                before=counted.event,
                after=replace(
                    standing.event,
                    event_id=counted.event.event_id,
                    request_id=counted.event.request_id,
                ),
                reported=counted.recorded.reported,
                key_id=keys.get(newest, counted.recorded.key_id),
                reason=_reason(claim, standing),
            ),
            account_id=counted.recorded.account_id,
            settles=settlement,
        )


class ReportReader:
    """Reads reports as they were kept. One thread at a time."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._translator = Translator()

    def read(self, event: bytes) -> CorrectableEvent:
        """Return what a message of the wire says; raises StoreRefusal where it was damaged."""
        try:
            batch, _ = self._translator.from_rows([usage_pb2.UsageEvent.FromString(event)])
        except (DecodeError, UnusableBatch) as error:
            raise StoreRefusal(Reason.INTERNAL, "A report cannot be read any more.") from error
        return from_batch(batch)

    def reports(self, dispute: Dispute, claim: Claim, counted: CountedEvent) -> list[Report]:
        """Return all reports of a request in the order in which they came."""
        kept = [self._to_report(it) for it in dispute.reports]
        first_key = claim.first_report_key
        for place, it in enumerate(dispute.reports):
            if it.report_key == first_key:
                return [kept[place], *kept[:place], *kept[place + 1 :]]
        return [_first_report(claim, counted), *kept]

    def _to_report(self, kept: KeptReport) -> Report:
        return Report(
            report_id=kept.observation_id,
            source=kept.source,
            rank=kept.rank,
            is_choice=kept.is_choice,
            event=self.read(kept.event),
        )


def _sources(dispute: Dispute) -> set[int]:
    """Return the numbers of all who reported a request."""
    claimed = set() if dispute.claim is None else {dispute.claim.claimed.source}
    return claimed | {it.source for it in dispute.reports}


def _first_report(claim: Claim, counted: CountedEvent) -> Report:
    """Return the report that is in the journal; its source is the claim's while it is counted."""
    event, source = counted.recorded.event, claim.claimed.source
    quality = event.extra.get("quality", 1)
    return Report(
        report_id=FIRST,
        source=source,
        rank=rank(Source(source), quality=quality) if source in _SOURCES else 0,
        is_choice=claim.claimed.is_choice,
        event=event,
    )


def _settlement(
    dispute: Dispute, claim: Claim, counted: CountedEvent, *, standing: Standing
) -> Settlement:
    is_kept = any(it.report_key == claim.first_report_key for it in dispute.reports)
    first = None
    if not is_kept and FIRST not in standing.report_ids:
        first = _kept_first(claim, counted)
    return Settlement(
        event_key=dispute.event_key,
        before=claim.claimed,
        after=Claimed(
            source=standing.source,
            rank=standing.rank,
            token_count=standing.token_count,
            is_choice=standing.is_choice,
            correction_id=claim.claimed.correction_id,
        ),
        counted_ids=sorted(standing.report_ids - {FIRST}),
        seen_id=dispute.seen_id,
        seen_count=dispute.seen_count,
        first=first,
    )


def _unchanged(dispute: Dispute, claim: Claim) -> Settlement:
    return Settlement(
        event_key=dispute.event_key,
        before=claim.claimed,
        after=claim.claimed,
        counted_ids=[it.observation_id for it in dispute.reports if it.is_counted],
        seen_id=dispute.seen_id,
        seen_count=dispute.seen_count,
    )


def _kept_first(claim: Claim, counted: CountedEvent) -> FirstReport:
    report = _first_report(claim, counted)
    return FirstReport(
        report_key=claim.first_report_key,
        source=report.source,
        rank=report.rank,
        billed_hash=claim.billed_hash,
        token_count=sum(report.event.tokens.values()),
        is_choice=report.is_choice,
        received_ms=claim.claim_ms,
        key_id=counted.recorded.key_id,
        # It is kept with the original, which says it.
        profile="",
        event=to_message(report.event).SerializeToString(),
    )


def to_message(event: CorrectableEvent) -> usage_pb2.UsageEvent:
    """Return the event as a message of the wire."""
    return to_event(to_batch([event], table=DimensionTable()), 0)


def _reason(claim: Claim, standing: Standing) -> str:
    name, before = Source(standing.source).name, Source(claim.claimed.source).name
    if standing.is_choice and claim.claimed.is_choice and name == before:
        return f"report of {name} is added: another answer to the same prompt"
    return f"report of {name} takes the place of that of {before}"
