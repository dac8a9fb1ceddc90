"""Requests that several report: the first report is counted, the others are kept as evidence."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from meter.domain.event import Claim, Claims, EventBatch, Evidence, Origin, Reports
from meter.domain.outcome import Outcome
from meter.domain.tokens import Quality
from meter.sources.identity import call_key, call_of, is_same_observer, reused_key
from meter.sources.observation import Source, rank


class Observed(Protocol):
    """What a group's transaction does with requests that are observed."""

    def claim_events(self, claims: dict[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Claim keys; return the hashes of those claimed before."""
        ...

    def claim_requests(self, claims: dict[bytes, Claim], *, now_ms: int) -> dict[bytes, Claim]:
        """Claim requests; return how those are counted that were claimed before."""
        ...

    def observe(self, evidence: Sequence[Evidence], *, now_ms: int) -> dict[bytes, bytes]:
        """Keep reports, each once; return the hashes of those kept before, by event and report."""
        ...

    def keep_originals(self, reports: Reports, *, span_ms: tuple[int, int], now_ms: int) -> None:
        """Keep usage objects as they came, of events that ended in a span, both ends included."""
        ...


class Observing:
    """Decides what becomes of the observed events of one group, within its transaction."""

    def __init__(self, transaction: Observed, *, now_ms: int) -> None:
        """Take the transaction."""
        self._transaction = transaction
        self._now_ms = now_ms
        # By event key: which report is counted. Another of the same key is a repetition.
        self._counted: dict[bytes, Claim] = {}
        # By event and report: the hash of one that was kept before, as evidence or set aside.
        self._kept: dict[bytes, bytes] = {}
        # By event and report: of another call than what its source has said before.
        self._reused: set[bytes] = set()
        self._seen: set[bytes] = set()
        self._first: set[bytes] = set()

    def claim(self, items: Iterable[tuple[Claims | None, Origin, EventBatch]]) -> None:
        """Claim what a group observes, keep what others have claimed, and the originals."""
        observed = [
            (claims, claims.reports, origin, batch)
            for claims, origin, batch in items
            if claims is not None and claims.reports is not None
        ]
        wanted: dict[bytes, Claim] = {}
        for claims, reports, _, _ in observed:
            for key, claim in zip(claims.keys, reports.claims, strict=True):
                if key:
                    wanted.setdefault(key, claim)
        known = self._transaction.claim_requests(wanted, now_ms=self._now_ms) if wanted else {}
        self._counted = {**wanted, **known}
        self._first = wanted.keys() - known.keys()
        others = [
            (key, claim)
            for claims, reports, _, _ in observed
            for key, claim in zip(claims.keys, reports.claims, strict=True)
            if key and claim.report_key != self._counted[key].report_key
        ]
        if others:
            self._find_reused(others)
        evidence = [
            each
            for claims, reports, origin, _ in observed
            for each in self._evidence(claims, reports, key_id=origin.key_id)
        ]
        if evidence:
            self._kept |= self._transaction.observe(evidence, now_ms=self._now_ms)
        for claims, reports, origin, batch in observed:
            if reports.originals and self._is_news(claims, reports):
                times = (origin.received_ms, *batch.end_ms.tolist())
                span_ms = (min(times), max(times))
                self._transaction.keep_originals(reports, span_ms=span_ms, now_ms=self._now_ms)

    def outcomes(self, claims: Claims) -> tuple[list[int], int]:
        """Return the events' outcomes, and how many of those observed differ from what is counted.

        To be asked of each submission once, in the group's order.
        """
        assert claims.reports is not None
        outcomes: list[int] = []
        differing_count = 0
        for key, claim in zip(claims.keys, claims.reports.claims, strict=True):
            if not key:
                outcomes.append(Outcome.RECORDED)
                continue
            counted = self._counted[key]
            if claim.report_key == counted.report_key:
                if key in self._first:
                    # Counted by this very report, unless it comes twice in the group.
                    self._first.discard(key)
                    outcomes.append(Outcome.RECORDED)
                else:
                    outcomes.append(_repeated(claim, counted.billed_hash))
                continue
            name = key + claim.report_key
            before = self._kept.get(name)
            if before is not None:
                outcomes.append(_repeated(claim, before))
                continue
            self._kept[name] = claim.billed_hash
            if name in self._reused:
                outcomes.append(Outcome.REQUEST_ID_REUSED)
                continue
            outcomes.append(Outcome.OBSERVED)
            differing_count += claim.token_count != counted.token_count
        return outcomes, differing_count

    def _find_reused(self, others: Sequence[tuple[bytes, Claim]]) -> None:
        """Find reports of calls whose source has reported another call of the same request.

        The first report of a request says by its key who made it and of which call. Each other
        source claims the request for the call that it reports first, so that two servers agree.
        """
        calls: dict[bytes, bytes] = {}
        places: list[tuple[bytes, Claim, bytes]] = []
        for key, claim in others:
            place = b""
            first = self._counted[key].report_key
            if not is_same_observer(claim.report_key, first):
                place = call_key(key, report=claim.report_key)
                calls.setdefault(place, call_of(claim.report_key))
            elif call_of(claim.report_key) != call_of(first):
                self._reused.add(key + claim.report_key)
            places.append((key, claim, place))
        if calls:
            calls |= self._transaction.claim_events(calls, now_ms=self._now_ms)
        named: dict[bytes, tuple[bytes, bytes]] = {}
        for key, claim, place in places:
            name = key + claim.report_key
            if place and calls[place] != call_of(claim.report_key):
                self._reused.add(name)
            if name in self._reused:
                kept = reused_key(key, report=claim.report_key)
                named.setdefault(kept, (name, claim.billed_hash))
        if named:
            claimed = self._transaction.claim_events(
                {kept: billed_hash for kept, (_, billed_hash) in named.items()},
                now_ms=self._now_ms,
            )
            self._kept |= {named[kept][0]: before for kept, before in claimed.items()}

    def _evidence(self, claims: Claims, reports: Reports, *, key_id: str) -> Iterable[Evidence]:
        """Yield the reports that are not the counted ones, each once in the group."""
        for place, (key, claim) in enumerate(zip(claims.keys, reports.claims, strict=True)):
            if not key or claim.report_key == self._counted[key].report_key:
                continue
            name = key + claim.report_key
            if name in self._seen or name in self._reused:
                continue
            self._seen.add(name)
            yield Evidence(
                event_key=key,
                claim=claim,
                is_settled=_is_settled(claim, self._counted[key]),
                key_id=key_id,
                profile=reports.profile,
                event=claims.payload(claims.indexes[place]),
            )

    def _is_news(self, claims: Claims, reports: Reports) -> bool:
        """Tell whether anything of a submission came for the first time."""
        for key, claim in zip(claims.keys, reports.claims, strict=True):
            if not key or key in self._first:
                return True
            is_counted = claim.report_key == self._counted[key].report_key
            if not is_counted and key + claim.report_key not in self._kept:
                return True
        return not claims.keys


def _is_settled(claim: Claim, counted: Claim) -> bool:
    """Tell whether a report can never be counted: what is counted only becomes better.

    One of several choices may be counted with others of its source that come yet.
    """
    if not claim.is_choice:
        return claim.rank <= counted.rank
    best = rank(Source(claim.source), quality=Quality.FINAL)
    return claim.source != counted.source and best <= counted.rank


def _repeated(claim: Claim, billed_hash: bytes) -> int:
    return Outcome.DUPLICATE if claim.billed_hash == billed_hash else Outcome.CONFLICT
