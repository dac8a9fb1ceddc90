"""Small batches that wait together: each is read as it is alone, whatever comes beside it."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from meter import segment
from meter.domain import limits
from meter.domain.credential import Credential
from meter.domain.event import Dimensions, EventBatch, Int64Array, Origin
from meter.domain.outcome import Outcome
from meter.journal.commit import Submission
from meter.planes import TOGETHER_MAX
from meter.wire import small_batches
from meter.wire.intake import Intake
from meter.wire.small_batches import SmallBatches
from tests.meter.plain_events import BEGIN_MS
from tests.meter.test_intake import CREDENTIAL, INTAKE, ORIGIN, new_intake
from tests.wire.session import event, planes, to_plane, to_planes
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

FROM_BATCH: Final = Intake.from_batch
# Ids of dimensions, the same whoever has met them.
NUMBERS: Final[dict[Dimensions, int]] = {}

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT
OUTPUT: Final = usage_pb2.TOKEN_CLASS_OUTPUT
TOO_OLD_MS: Final = BEGIN_MS - limits.LATE_MS_MAX - 1


def form_of(*events: usage_pb2.UsageEvent) -> usage_pb2.UsagePlanes:
    """Return planes without what keeps a batch from being small: columns of texts and checksums."""
    form = to_planes(events)
    for name in ("request_id", "reported_input_count", "reported_output_count"):
        form.ClearField(name)
    return form


def plain(account: str = "acme", **fields: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401
    """Return an event that ends when the batch comes."""
    return event(account, **{"end_ms": BEGIN_MS, "finish": 1, "quality": 1, **fields})


def hand_in(
    batches: SmallBatches,
    message: meter_service_pb2.StreamUsageRequest,
    *,
    origin: Origin = ORIGIN,
    credential: Credential = CREDENTIAL,
    charge: Callable[[int], None] = lambda _: None,
) -> Submission:
    """Have an intake take a batch as a stream does."""
    raw = message.SerializeToString()
    unread = INTAKE.read_stream_message(raw).batch
    return batches.take(unread, credential, origin, raw=raw, charge=charge)


def take_alone(intake: Intake, message: meter_service_pb2.StreamUsageRequest) -> Submission:
    """Have an intake read a batch for itself."""
    raw = message.SerializeToString()
    unread = intake.read_stream_message(raw).batch
    return intake.from_batch(unread, CREDENTIAL, ORIGIN, raw=raw)[0]


def read(submission: Submission) -> Submission:
    """Return a submission once it is read."""
    if submission.read is not None:
        submission.read()
    assert submission.read is None
    return submission


def said(submission: Submission) -> tuple[object, ...]:
    """Return all that a submission says: the bytes of its journal, and what it sets aside."""

    def numbers_of(batch: EventBatch) -> Int64Array:
        found = [NUMBERS.setdefault(batch.table[it], len(NUMBERS)) for it in batch.dimension]
        return np.array(found, np.int64)

    pairs = [(submission.origin, submission.batch)]
    body = segment.encode(pairs, dimension_ids=numbers_of) if len(submission.batch) else b""
    return (body, list(submission.set_aside), submission.whole)


EVENTS: Final = st.builds(
    plain,
    account=st.sampled_from(["acme"] * 6 + ["nobody", ""]),
    tier=st.sampled_from(["high"] * 6 + ["low"]),
    model=st.sampled_from(["m0", "m1", "m2"]),
    end_ms=st.sampled_from([BEGIN_MS] * 6 + [BEGIN_MS + 60_000, TOO_OLD_MS, BEGIN_MS + 10**7]),
    duration_ms=st.sampled_from([0, 20, 300_000]),
    attempt=st.sampled_from([0, 0, 3, limits.ATTEMPT_MAX + 1]),
    finish=st.sampled_from([1] * 6 + [0, 2, 9]),
    tokens=st.dictionaries(
        st.sampled_from([INPUT, OUTPUT]),
        st.sampled_from([0, 1, 700, 90_000, limits.TOKEN_COUNT_MAX, limits.TOKEN_COUNT_MAX + 1]),
    ),
)
# Half bytes that are too few, and numbers beyond what they are of.
DAMAGES: Final = st.sampled_from(
    [
        {},
        {},
        {},
        {"duration_ms": to_plane([1, 300])},
        {"account_index": to_plane([0, 7, 0])},
        {"service_index": to_plane([-1, 0, 0])},
        {"end_offset_ms": usage_pb2.PlaneColumn(half_bytes=15)},
        {"event_ids": b"x"},
        {"event_count": 4},
        {"source": usage_pb2.SOURCE_LITELLM},
        {"request_id": ["r", "r", "r"]},
    ]
)


@given(
    batches=st.lists(st.tuples(st.lists(EVENTS, min_size=1, max_size=5), DAMAGES), max_size=6),
    is_doubtful=st.booleans(),
)
def test_take__batches_are_what_each_is_alone(
    *, batches: list[tuple[list[usage_pb2.UsageEvent], dict[str, Any]]], is_doubtful: bool
) -> None:
    """Right ones and wrong ones, of any columns: what each says does not depend on the others."""
    forms = []
    for events, damages in batches:
        form = form_of(*events)
        for name in damages:
            form.ClearField(name)  # type: ignore[arg-type]
        form.MergeFrom(usage_pb2.UsagePlanes(**damages))
        forms.append(form)
    messages = [planes(number, form) for number, form in enumerate(forms, 1)]
    if messages:
        messages[-1].batch.is_doubtful = is_doubtful
    together, alone = SmallBatches(new_intake()), new_intake()
    # The second time all names are known.
    for _ in range(2):
        taken = [hand_in(together, message) for message in messages]
        wanted = [take_alone(alone, message) for message in messages]
        assert [said(read(it)) for it in taken] == [said(it) for it in wanted]


@settings(max_examples=400)
@given(
    damages=st.lists(
        st.tuples(st.integers(0, 2_000), st.integers(0, 255), st.integers(0, 3)), max_size=6
    )
)
def test_take__damaged_bytes(*, damages: list[tuple[int, int, int]]) -> None:
    """Bytes that were changed, lost or doubled are judged as they are alone, and harm no other."""
    form = form_of(*[plain(model=f"m{number}", duration_ms=300 * number) for number in range(3)])
    whole = planes(1, form).SerializeToString()
    changed = bytearray(whole)
    for place, value, length in damages:
        at = place % (len(changed) + 1)
        changed[at : at + length] = bytes([value]) * (length % 2 + 1)
    together, alone = SmallBatches(new_intake()), new_intake()
    # What was not damaged is known.
    read(hand_in(together, planes(1, form)))
    raws = [whole, bytes(changed), whole]
    taken = []
    for raw in raws:
        with contextlib.suppress(DecodeError):
            message = INTAKE.read_stream_message(raw)
            if message.batch.WhichOneof("events") == "planes":
                wanted = alone.from_batch(message.batch, CREDENTIAL, ORIGIN, raw=raw)[0]
                one = together.take(
                    message.batch, CREDENTIAL, ORIGIN, raw=raw, charge=lambda _: None
                )
                taken.append((one, wanted))
    assert [said(read(one)) for one, _ in taken] == [said(wanted) for _, wanted in taken]


def test_take__small_ones_are_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of batches that are right and known none is read alone; a wrong one is, and no other."""
    alone: list[int] = []

    def from_batch(self: Intake, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        alone.append(named["origin"].sequence if "origin" in named else arguments[2].sequence)
        return FROM_BATCH(self, *arguments, **named)

    batches = SmallBatches(new_intake())
    forms = [form_of(plain(), plain()), form_of(plain("nobody")), form_of(plain(tokens={INPUT: 9}))]
    for form in forms:
        read(hand_in(batches, planes(1, form)))
    monkeypatch.setattr(Intake, "from_batch", from_batch)
    origins = [ORIGIN._replace(sequence=number) for number in range(3)]
    taken = [
        hand_in(batches, planes(1, form), origin=origin)
        for form, origin in zip(forms, origins, strict=True)
    ]
    assert not alone
    read(taken[2])
    assert [it.read for it in taken] == [None] * 3
    assert alone == [1]
    assert [len(it.batch) for it in taken] == [2, 0, 1]
    assert [it.outcome for it in taken[1].set_aside] == [Outcome.ACCOUNT_UNKNOWN]


@pytest.mark.parametrize("events", [TOGETHER_MAX - 1, TOGETHER_MAX])
def test_take__only_few_events_wait(events: int) -> None:
    """A batch of many events is read at once: it would hold the others up."""
    form = form_of(*[plain()] * events)
    taken = hand_in(SmallBatches(new_intake()), planes(1, form))
    assert (taken.read is None) == (events == TOGETHER_MAX)
    assert len(read(taken).batch) == events


def test_take__what_waits_is_bounded() -> None:
    """When so many wait all are read, and charged, though no commit has asked for them."""
    charged: list[int] = []
    batches = SmallBatches(new_intake())
    taken = [
        hand_in(batches, planes(1, form_of(plain(model=f"m{number}"))), charge=charged.append)
        for number in range(small_batches.WAITING_MAX)
    ]
    assert [it.read for it in taken] == [None] * len(taken)
    assert charged == [1] * len(taken)


def test_take__many_bytes_do_not_wait() -> None:
    """A batch of few events and very many names is read at once."""
    form = form_of(plain())
    form.accounts.extend(["x" * 1_000] * 70)
    assert hand_in(SmallBatches(new_intake()), planes(1, form)).read is None


def test_take__fault_of_ours_is_of_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw in one batch keeps no other from being recorded."""
    batches = SmallBatches(new_intake())
    taken = [
        hand_in(batches, planes(1, form_of(plain("new")))),
        hand_in(batches, planes(1, form_of(plain()))),
    ]
    fault = RuntimeError("nobody foresaw it")

    def from_batch(self: Intake, message: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        if message.planes.accounts[0] == b"new":
            raise fault
        return FROM_BATCH(self, message, *arguments, **named)

    monkeypatch.setattr(Intake, "from_batch", from_batch)
    assert [read(it).fault for it in taken] == [fault, None]
    assert len(taken[1].batch) == 1


def test_take__each_key_by_its_own_scopes() -> None:
    """Two keys' batches wait together, and what one may report the other may not."""
    batches = SmallBatches(new_intake())
    other = replace(CREDENTIAL, key_id="key_0", scopes=())
    for _ in range(2):
        taken = [
            hand_in(batches, planes(1, form_of(plain())), credential=who)
            for who in (CREDENTIAL, other, CREDENTIAL)
        ]
        outcomes = [[it.outcome for it in read(each).set_aside] for each in taken]
        assert outcomes == [[], [Outcome.ACCOUNT_OUT_OF_SCOPE], []]


def test_take__names_that_are_forgotten_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of a table that has grown too large are read anew, whatever place they had."""
    batches = SmallBatches(new_intake())
    many = [plain(model=f"m{number}") for number in range(200)]
    for _ in range(2):
        read(hand_in(batches, planes(1, form_of(*many))))
    monkeypatch.setattr(limits, "DIMENSIONS_INTERNED_MAX", 10)
    taken = hand_in(batches, planes(1, form_of(*many)))
    assert len(read(taken).batch) == len(many)
