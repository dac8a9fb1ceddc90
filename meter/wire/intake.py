"""From messages to submissions: read, check, and keep apart what must not be counted."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from meter.corrections import NewCorrection
from meter.domain import limits
from meter.domain.credential import Credential, Role, Scope
from meter.domain.event import (
    BoolArray,
    DimensionTable,
    EventBatch,
    Origin,
    SetAside,
    Uint8Array,
)
from meter.domain.interval import interval_start_ms
from meter.domain.outcome import FIRST_QUARANTINED, Outcome
from meter.journal.check import Verdicts, check
from meter.journal.commit import Release, Submission
from meter.registry import Registry
from meter.sources.observation import Observation, Source
from meter.wire.event_claims import claim_events, ids_of
from meter.wire.packed import UnusableBatch, unread_message_class
from meter.wire.reported import (
    BYTES_PER_EVENT,
    EVENTS_PROFILE,
    SOURCES,
    claim_stream,
    event_report_key,
    observation_keys,
    report_submission,
    stream_originals,
)
from meter.wire.status import invalid, unreadable
from meter.wire.translate import Translator, to_event
from tokenworks.meter.v1 import usage_pb2

# So many verdicts are kept, of 9 to 14 bytes each: one of each dimension for all rights that are
# remembered, and what is beside them weighs as much as so many.
_VERDICTS_REMEMBERED: Final = 4_194_304
_RIGHTS_WEIGHT: Final = 1_024
# Looked up once: of an enum that costs as much as a call of numpy.
_RECORDED: Final = int(Outcome.RECORDED)


class Intake:
    """Makes submissions of what producers send. Runs on the event loop alone."""

    def __init__(self, *, registry: Registry, tiers: Sequence[str]) -> None:
        """Take the registry and the tiers that are sold."""
        self._registry = registry
        self._tiers = frozenset(tiers)
        self.translator = Translator()
        # By the tops of what a key may report for, so that keys of the same rights share them; the
        # least recently used first. They hold of this registry, interval and table alone.
        self._verdicts: OrderedDict[tuple[str | None, ...], Verdicts] = OrderedDict()
        self._held_of: tuple[object, int, object] = (None, 0, None)
        self._message = unread_message_class("StreamUsageRequest")
        self.read_stream_message = self._message.FromString

    @property
    def met_count(self) -> int:
        """How many dimensions were new to this server so far, right or wrong ones."""
        return self.translator.met_count

    def from_batch(
        self,
        message: Any,  # noqa: ANN401
        credential: Credential,
        origin: Origin,
        *,
        raw: bytes,
        any_age: bool = False,
        releases: Release | None = None,
        source: int = 0,
        first_index: int = 0,
    ) -> tuple[Submission, Uint8Array]:
        """Return a stream's batch as a submission, and each event's outcome.

        A batch that cannot be read as events goes to quarantine as a whole, under its number.
        `source` and `first_index` are of an event that was released, of its own batch. Raises
        DecodeError when a row is no message, which the whole is not then.
        """
        kind = message.WhichOneof("events")
        form = getattr(message, kind)
        usage = b"" if kind == "rows" else form.usage
        if usage:
            raw = self._without_usage(message)
        try:
            batch, wrong = self._read(kind, form)
        except UnusableBatch as error:
            # Refused, such a batch would come again without end: kept, the stream goes on.
            return self._kept_whole(origin, error.outcome, raw=raw)
        if message.is_doubtful and releases is None:
            return self._kept_whole(origin, Outcome.BATCH_DOUBTFUL, raw=raw)
        source = source or form.source
        if source not in SOURCES:
            return self._kept_whole(origin, Outcome.BATCH_MALFORMED, raw=raw)
        outcomes = self._check(
            batch, credential, wrong=wrong, now_ms=origin.received_ms, any_age=any_age
        )
        # None is below it. Most batches are right in all, which takes one look.
        is_right = int(outcomes.max(initial=_RECORDED)) == _RECORDED
        aside = () if is_right else _set_aside(batch, outcomes, source=source)
        kept = batch if is_right else batch.take(outcomes == _RECORDED)
        claims = None
        if source and kept.request_ids is not None:
            kept, claims = claim_stream(
                kept,
                origin=origin,
                source=Source(source),
                indexes=np.flatnonzero(outcomes == _RECORDED).tolist(),
                first_index=first_index,
                originals=stream_originals(
                    usage, batch=batch, origin=origin, source=Source(source)
                ),
            )
        submission = Submission(
            origin=origin,
            batch=kept,
            set_aside=aside,
            claims=claims,
            whole=raw,
            releases=releases,
            size_bytes=len(raw) + len(usage) + BYTES_PER_EVENT * len(batch),
        )
        return submission, outcomes

    def from_events(
        self,
        events: Sequence[bytes],
        credential: Credential,
        origin: Origin,
        *,
        any_age: bool = False,
        releases: Release | None = None,
        size_bytes: int = 0,
        source: int = 0,
        choices: Sequence[bool] = (),
        places: Sequence[int] | None = None,
    ) -> tuple[Submission, Uint8Array]:
        """Return serialized events that are counted by their ids, and outcomes before claiming.

        `size_bytes` is that of the call. With a `source` they are reports, which are counted by
        request; `choices` as in `Reports`, or none. `places` are the events' places in their own
        calls, where several calls are taken together. Raises InvalidArgument for too many token
        classes, and where one is no message.
        """
        try:
            batch, wrong = self.translator.from_unread_rows(events)
        except UnusableBatch as error:
            rule = f"of at most {limits.BATCH_CLASSES_MAX} token classes in one call"
            raise invalid("events", rule) from error
        except DecodeError as error:
            raise unreadable() from error
        wrong |= _nameless(batch, events)
        outcomes = self._check(
            batch, credential, wrong=wrong, now_ms=origin.received_ms, any_age=any_age
        )
        if source:
            who, is_kept = Source(source), bool(releases)
            ids = ids_of(batch)
            reported = report_submission(
                origin,
                batch=batch,
                outcomes=outcomes,
                source=who,
                profile=EVENTS_PROFILE,
                report_keys=[event_report_key(who, event_id=it, is_kept=is_kept) for it in ids],
                choices=choices or [False] * len(events),
                releases=releases,
            )
            return reported, outcomes
        keep = outcomes < FIRST_QUARANTINED
        kept = batch if keep.all() else batch.take(keep)
        submission = Submission(
            origin=origin,
            batch=kept,
            set_aside=[
                SetAside(
                    index=i if places is None else places[i],
                    outcome=int(outcomes[i]),
                    payload=events[i],
                )
                for i in np.flatnonzero(~keep).tolist()
            ],
            claims=claim_events(events, kept, origin, keep=keep, places=places),
            releases=releases,
            size_bytes=2 * size_bytes + 2 * BYTES_PER_EVENT * len(events),
        )
        return submission, outcomes

    def from_observations(
        self,
        observations: Sequence[Observation],
        credential: Credential,
        origin: Origin,
        *,
        source: Source,
        profile: str,
    ) -> tuple[Submission, Uint8Array]:
        """Return what a source saw, counted by request, and each one's outcome before claiming.

        At most `BATCH_EVENTS_MAX`.
        """
        keys = observation_keys(observations, source=source, profile=profile)
        batch = self.translator.from_observations(observations, keys=keys)
        outcomes = self._check(
            batch,
            credential,
            wrong=np.array([not it.report_id for it in observations], np.bool_),
            now_ms=origin.received_ms,
            any_age=False,
        )
        doubtful = np.array([it.is_doubtful for it in observations], np.bool_)
        if doubtful.any():
            # Before all that a release checks again: a person has to decide about it first.
            later = (outcomes < FIRST_QUARANTINED) | (outcomes > Outcome.REPORT_DOUBTFUL)
            outcomes[doubtful & later] = Outcome.REPORT_DOUBTFUL
        choices = [it.is_choice for it in observations]
        submission = report_submission(
            origin,
            batch=batch,
            outcomes=outcomes,
            source=source,
            profile=profile,
            report_keys=keys,
            choices=choices,
            originals=[it.original for it in observations],
        )
        return submission, outcomes

    def check_replacement(
        self, event: usage_pb2.UsageEvent, credential: Credential, *, now_ms: int
    ) -> tuple[EventBatch, Outcome]:
        """Return an event that is to replace another, of any age, and its outcome.

        Whoever may correct may do so for every account.
        """
        try:
            batch, wrong = self.translator.from_rows([event])
        except UnusableBatch as error:
            empty, _ = self.translator.from_rows([])
            return empty, error.outcome
        everywhere = replace(credential, scopes=(Scope(role=Role.PRODUCER, account_id=None),))
        # Not remembered: the credential's own verdicts are others.
        verdicts = Verdicts(batch.table, everywhere, self._registry.snapshot.tree, self._tiers)
        if wrong[0]:
            return batch, Outcome.FIELD_INVALID
        return batch, Outcome(int(check(batch, verdicts, now_ms=now_ms, any_age=True)[0]))

    def correction(self, correction: NewCorrection, origin: Origin) -> Submission:
        """Return a correction as a submission."""
        empty, _ = self.translator.from_rows([])
        batch = correction.to_batch(empty.table)
        return Submission(
            origin=origin,
            batch=batch,
            corrects=correction,
            size_bytes=BYTES_PER_EVENT * len(batch),
        )

    def _without_usage(self, message: Any) -> bytes:  # noqa: ANN401
        """Return a batch's message as it may be kept: in usage objects anything might stand."""
        kept = self._message()
        kept.batch.CopyFrom(message)
        getattr(kept.batch, kept.batch.WhichOneof("events")).ClearField("usage")
        return bytes(kept.SerializeToString())

    def _kept_whole(
        self, origin: Origin, outcome: Outcome, *, raw: bytes
    ) -> tuple[Submission, Uint8Array]:
        empty, _ = self.translator.from_rows([])
        whole = SetAside(index=-1, outcome=outcome, payload=raw)
        submission = Submission(
            origin=origin, batch=empty, set_aside=(whole,), whole=raw, size_bytes=len(raw)
        )
        return submission, np.empty(0, np.uint8)

    def _read(self, kind: str, form: Any) -> tuple[EventBatch, BoolArray | None]:  # noqa: ANN401
        """Return a batch's events and, of rows, which are wrong in themselves."""
        if kind == "rows":
            return self.translator.from_unread_rows(form.events)
        read = self.translator.from_columns if kind == "columns" else self.translator.from_planes
        try:
            return read(form), None
        except DecodeError as error:
            raise UnusableBatch(Outcome.BATCH_MALFORMED) from error

    def _check(
        self,
        batch: EventBatch,
        credential: Credential,
        *,
        wrong: BoolArray | None,
        now_ms: int,
        any_age: bool,
    ) -> Uint8Array:
        verdicts = self.verdicts_of(credential, batch.table, now_ms)
        outcomes = check(batch, verdicts, now_ms=now_ms, any_age=any_age)
        if wrong is not None:
            # No outcome of a single event comes before this one.
            outcomes[wrong] = Outcome.FIELD_INVALID
        return outcomes

    def verdicts_of(self, credential: Credential, table: DimensionTable, now_ms: int) -> Verdicts:
        """Return what is known of a table's dimensions for an API key, at this time."""
        # A dated move takes effect on an edge, without any change of the registry.
        snapshot, interval_ms = self._registry.snapshot, interval_start_ms(now_ms)
        seen, since_ms, of = self._held_of
        if seen is not snapshot or since_ms != interval_ms or of is not table:
            self._verdicts.clear()
            self._held_of = (snapshot, interval_ms, table)
        rights = tuple(credential.roots(Role.PRODUCER))
        verdicts = self._verdicts.get(rights)
        if verdicts is None:
            verdicts = Verdicts(table, credential, snapshot.tree, self._tiers)
            self._verdicts[rights] = verdicts
        self._verdicts.move_to_end(rights)
        weight = len(table) + _RIGHTS_WEIGHT
        while len(self._verdicts) > 1 and len(self._verdicts) * weight > _VERDICTS_REMEMBERED:
            self._verdicts.popitem(last=False)
        return verdicts


def _nameless(batch: EventBatch, events: Sequence[bytes]) -> BoolArray:
    """Tell which have no id; among ids there may be one whose 16 bytes are zeros as well."""
    ids = batch.event_ids
    nameless: BoolArray = np.full(len(batch), ids is None)
    if ids is not None:
        nameless = np.logical_not(ids.any(axis=1))
    for place in np.flatnonzero(nameless).tolist():
        nameless[place] = not usage_pb2.UsageEvent.FromString(events[place]).event_id
    return nameless


def _set_aside(batch: EventBatch, outcomes: Uint8Array, *, source: int) -> list[SetAside]:
    """Return a stream's events that are not to be counted."""
    return [
        SetAside(
            index=place,
            outcome=int(outcomes[place]),
            payload=to_event(batch, place).SerializeToString(),
            source=source,
        )
        for place in np.flatnonzero(outcomes != Outcome.RECORDED).tolist()
    ]
