"""Whatever bytes come: events, a whole batch kept aside, or no message; never a fault of ours."""

import contextlib
from typing import Any, Final

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from meter import segment
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.credential import Credential, RegistrySnapshot, Role, Scope
from meter.domain.event import Origin
from meter.journal.commit import Submission
from meter.registry import Registry
from meter.wire.intake import Intake
from tests.clock import FakeClock
from tests.meter.plain_events import BEGIN_MS
from tests.wire.session import columns, event, planes, rows, to_columns, to_planes
from tokenworks.meter.v1 import usage_pb2

CREDENTIAL: Final = Credential(
    key_id="key_1",
    account_id=None,
    scopes=(Scope(role=Role.PRODUCER, account_id=None),),
    end_ms=None,
)
ORIGIN: Final = Origin(account_id="", key_id="key_1", received_ms=BEGIN_MS)


class Source:
    """A registry's source with one account, which never changes."""

    known: RegistrySnapshot | None = None

    def version(self) -> int:
        """Return the one version."""
        return 1

    def load(self) -> RegistrySnapshot:
        """Return the one snapshot."""
        acme = Account(
            account_id="acme",
            handle="acme",
            create_ms=0,
            close_ms=None,
            parents=(ParentEdge(start_ms=0, parent_id=None),),
        )
        return RegistrySnapshot(version=1, tree=AccountTree([acme]), credentials={})


def new_intake() -> Intake:
    """Return an intake that knows the account and a tier."""
    registry = Registry(Source(), FakeClock(BEGIN_MS))
    registry.refresh()
    return Intake(registry=registry, tiers=("high",))


INTAKE: Final = new_intake()
EVENTS: Final = [
    event(
        end_ms=BEGIN_MS + step,
        event_id=bytes([step] * 16).hex(),
        request_id="r",
        reported_input_count=3,
        model=f"m{step % 2}",
    )
    for step in range(1, 6)
]
MESSAGES: Final = [
    columns(1, to_columns(EVENTS)).SerializeToString(),
    rows(1, *EVENTS).SerializeToString(),
    planes(1, to_planes(EVENTS)).SerializeToString(),
]


def take(raw: bytes) -> Submission | None:
    """Read bytes as a stream does; None when they are no batch."""
    with contextlib.suppress(DecodeError):
        message = INTAKE.read_stream_message(raw)
        if message.WhichOneof("message") == "batch" and message.batch.WhichOneof("events"):
            return INTAKE.from_batch(message.batch, CREDENTIAL, ORIGIN, raw=raw)[0]
    return None


def assert_usable(submission: Submission) -> None:
    """What was taken can be written, and what was set aside can be read again."""
    if len(submission.batch):
        pairs = [(submission.origin, submission.batch)]
        body = segment.encode(pairs, dimension_ids=lambda it: it.dimension)
        assert len(segment.decode(body)) == len(submission.batch)
    for item in submission.set_aside:
        if item.index >= 0:
            usage_pb2.UsageEvent.FromString(item.payload)


def test_take__undamaged() -> None:
    """What the next tests damage is taken whole."""
    for raw in MESSAGES:
        submission = take(raw)
        assert submission is not None
        assert (len(submission.batch), list(submission.set_aside)) == (5, [])


@settings(max_examples=400)
@given(
    raw=st.sampled_from(MESSAGES),
    damages=st.lists(
        st.tuples(st.integers(0, 2_000), st.integers(0, 255), st.integers(0, 3)), max_size=6
    ),
)
def test_take__damaged_bytes(raw: bytes, damages: list[tuple[int, int, int]]) -> None:
    """Bytes that were changed, lost or doubled on the way lead to an answer, not to a fault."""
    changed = bytearray(raw)
    for place, value, length in damages:
        at = place % (len(changed) + 1)
        changed[at : at + length] = bytes([value]) * (length % 2 + 1)
    submission = take(bytes(changed))
    if submission is not None:
        assert_usable(submission)


NUMBERS: Final = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2, 5))
NAMES: Final = (
    *("dimensions_index", "end_offset_ms", "duration_ms", "finish", "quality", "attempt"),
    *("reported_input_count", "reported_output_count"),
)


@given(data=st.data(), count=st.integers(1, 3))
def test_take__columns_of_any_numbers(data: st.DataObject, count: int) -> None:
    """Any 64-bit numbers in any column, present or not, lead to an answer."""
    raw = usage_pb2.UsageColumns(dimensions=[EVENTS[0].dimensions]).SerializeToString()
    for name in NAMES:
        number = usage_pb2.UsageColumns.DESCRIPTOR.fields_by_name[name].number
        values: Any = NUMBERS
        if name == "dimensions_index":
            values = st.sampled_from([0] * 15 + [1, -1])
        length = count
        if name not in NAMES[:2]:
            length = data.draw(st.sampled_from([0, count, count, count]))
        column = data.draw(st.lists(values, min_size=length, max_size=length))
        packed = usage_pb2.TokenColumn(counts=column).SerializeToString()
        raw += bytes([8 * number + 2]) + packed[1:] if packed else b""
    seconds = data.draw(NUMBERS)
    form = usage_pb2.UsageColumns()
    form.base_time.seconds = seconds
    raw += form.SerializeToString()
    body = b"\x08\x01\x1a" + _length(raw) + raw
    submission = take(b"\x12" + _length(body) + body)
    assert submission is not None
    assert_usable(submission)


def _length(raw: bytes) -> bytes:
    packed = usage_pb2.TokenCount(count=len(raw)).SerializeToString()
    return packed[1:] or b"\x00"


def test_from_events__is_known_again_after_an_upgrade() -> None:
    """An id and its content are hashed as ever: what was claimed before is a duplicate after."""
    known = event(
        end_ms=BEGIN_MS, event_id="known", request_id="r", finish=3, reported_input_count=3
    )
    submission, _ = INTAKE.from_events([known], CREDENTIAL, ORIGIN)
    assert submission.claims is not None
    assert submission.claims.keys[0].hex() == "1509620385e8f970661da5582f7b91ea"
    assert submission.claims.hashes[0].hex() == "800403025dd9415eb0b96045fad78c89"


PLANES: Final = st.builds(
    usage_pb2.PlaneColumn,
    half_bytes=st.integers(-1, 17),
    base=NUMBERS,
    planes=st.binary(max_size=24),
)
FITTING: Final = st.integers(0, 14).flatmap(
    lambda half_bytes: st.builds(
        usage_pb2.PlaneColumn,
        half_bytes=st.just(half_bytes),
        base=st.integers(-(2**60), 2**60),
        planes=st.binary(min_size=half_bytes, max_size=half_bytes),
    )
)


@given(data=st.data(), name=st.sampled_from(["duration_ms", "finish", "quality", "attempt"]))
def test_take__planes_of_any_numbers(data: st.DataObject, name: str) -> None:
    """Planes of any width above any base lead to an answer, whether they fit or not."""
    form = to_planes(EVENTS[:2])
    getattr(form, name).CopyFrom(data.draw(st.one_of(PLANES, FITTING)))
    form.tokens[0].counts.CopyFrom(data.draw(st.one_of(PLANES, FITTING)))
    form.base_time.seconds = data.draw(NUMBERS)
    submission = take(planes(1, form).SerializeToString())
    assert submission is not None
    assert_usable(submission)
