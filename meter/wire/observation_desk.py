"""ListObservations: what was reported of one request, by whom, and which report is counted."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from meter.arbiter import Report
from meter.corrections import ById, Corrections, Found, Search
from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.errors import NotFound, Reason
from meter.journal.check import is_text
from meter.observations import Claim, CountedEvent, Dispute, KeptOriginal, OriginalKey
from meter.sources.identity import event_key, request_event_id
from meter.wire.arbitration import FIRST, Arbitration, ReportReader, to_message
from meter.wire.correction_desk import to_ms
from meter.wire.status import invalid
from tokenworks.meter.v1 import meter_service_pb2 as pb

_NO_ORIGINAL: Final = KeptOriginal(profile="", usage={})


class Observations(Arbitration, Protocol):
    """Reads what was reported: `meter.store.arbitration.ArbitrationStore`, which blocks."""

    def find_dispute(self, key: bytes) -> Dispute:
        """Return what is known of a request, whether or not anything waits."""
        ...

    def find_originals(self, keys: Sequence[OriginalKey]) -> dict[bytes, KeptOriginal]:
        """Return usage objects as they came, by report key, those that are still kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A report as it is answered, and where its original is looked for."""

    report: Report
    is_counted: bool
    difference_count: int
    profile: str
    original: OriginalKey


class ObservationDesk:
    """Answers those who may look; the servicer has asked who they are."""

    def __init__(self, store: Observations, *, corrections: Corrections, clock: Clock) -> None:
        """Take where reports are kept, and where events are found whose claims are forgotten."""
        self._store = store
        self._corrections = corrections
        self._clock = clock

    async def list(self, request: pb.ListObservationsRequest) -> pb.ListObservationsResponse:
        """Return all reports of a request, in the order in which they came.

        Raises InvalidArgument, NotFound (EVENT_NOT_FOUND), Refused and Unavailable.
        """
        search = _to_search(request, now_ms=self._clock.now_ms())
        return await asyncio.to_thread(self._list, search)

    def _list(self, search: Search) -> pb.ListObservationsResponse:
        assert isinstance(search.event, ById)
        event_id = search.event.event_id
        key = event_key(search.account_id, event_id=event_id)
        dispute = self._store.find_dispute(key)
        claim = dispute.claim
        counted = None
        if claim is not None:
            counted = self._store.find_counted({key: (claim, event_id)}).get(key)
        if claim is None or counted is None:
            found = self._corrections.find_event(search)
            return pb.ListObservationsResponse(observations=[_unclaimed(found)])
        end_ms = counted.recorded.event.end_ms
        if end_ms < search.start_ms or (search.end_ms is not None and end_ms >= search.end_ms):
            raise NotFound(Reason.EVENT_NOT_FOUND, "The request ended at another time.")
        shown = _shown(dispute, claim, counted)
        originals = self._store.find_originals([it.original for it in shown])
        return pb.ListObservationsResponse(
            observations=[
                _to_pb(it, original=originals.get(it.original.report_key, _NO_ORIGINAL))
                for it in shown
            ]
        )


def _shown(dispute: Dispute, claim: Claim, counted: CountedEvent) -> list[_Shown]:
    reports = ReportReader().reports(dispute, claim, counted)
    # What a person has put in its place, or taken away, is no report.
    is_own = counted.correction_id == claim.claimed.correction_id
    is_first_kept = any(it.report_key == claim.first_report_key for it in dispute.reports)
    kept = {it.observation_id: it for it in dispute.reports}
    shown = []
    for report in reports:
        it = kept.get(report.report_id)
        if it is None:
            assert report.report_id == FIRST
            assert not is_first_kept
        is_counted = is_own and (it is None or it.is_counted)
        token_count = sum(report.event.tokens.values())
        shown.append(
            _Shown(
                report=report,
                is_counted=is_counted,
                difference_count=0 if is_counted else token_count - claim.claimed.token_count,
                profile="" if it is None else it.profile,
                original=OriginalKey(
                    report_key=claim.first_report_key if it is None else it.report_key,
                    source=report.source,
                    received_ms=claim.claim_ms if it is None else it.received_ms,
                ),
            )
        )
    return shown


def _to_pb(shown: _Shown, *, original: KeptOriginal) -> pb.Observation:
    message = pb.Observation(
        is_counted=shown.is_counted,
        event=to_message(shown.report.event),
        difference_count=shown.difference_count,
        raw=json.dumps(original.usage) if original.usage else "",
        profile=shown.profile or original.profile,
    )
    message.source = shown.report.source  # type: ignore[assignment]
    message.receive_time.FromMilliseconds(shown.original.received_ms)
    return message


def _unclaimed(found: Found) -> pb.Observation:
    """Return what the journal alone knows: who reported it is forgotten with the claim."""
    is_void = found.last is not None and found.last.after is None
    return pb.Observation(is_counted=not is_void, event=to_message(found.event))


def _to_search(request: pb.ListObservationsRequest, *, now_ms: int) -> Search:
    text = request.request_id
    if not text or not is_text(text, limits.REQUEST_ID_CHARS_MAX):
        raise invalid("request_id", f"1–{limits.REQUEST_ID_CHARS_MAX} printable characters")
    if not 0 <= request.attempt <= limits.ATTEMPT_MAX:
        raise invalid("attempt", f"0–{limits.ATTEMPT_MAX}")
    if not is_text(request.account, limits.ACCOUNT_CHARS_MAX):
        raise invalid("account", f"at most {limits.ACCOUNT_CHARS_MAX} printable characters")
    start_ms = now_ms - limits.CLAIM_KEPT_MS
    if request.HasField("start_time"):
        start_ms = to_ms(request.start_time, "start_time")
    end_ms = to_ms(request.end_time, "end_time") if request.HasField("end_time") else None
    if end_ms is not None and end_ms <= start_ms:
        raise invalid("end_time", "after start_time")
    return Search(
        event=ById(event_id=request_event_id(text, attempt=request.attempt)),
        account_id=request.account,
        start_ms=start_ms,
        end_ms=end_ms,
    )
