"""Whatever bytes come: events, a whole batch kept aside, or no message; never a fault of ours."""

import contextlib
from dataclasses import replace
from typing import Any, Final

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from meter import segment
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.credential import Credential, RegistrySnapshot, Role, Scope
from meter.domain.errors import InvalidArgument, Reason
from meter.domain.event import DimensionTable, Origin
from meter.domain.outcome import Outcome
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
    """A registry's source with one account; `number` is its version."""

    known: RegistrySnapshot | None = None
    number = 1

    def version(self) -> int:
        """Return the version."""
        return self.number

    def load(self) -> RegistrySnapshot:
        """Return its snapshot."""
        acme = Account(
            account_id="acme",
            handle="acme",
            create_ms=0,
            close_ms=None,
            parents=(ParentEdge(start_ms=0, parent_id=None),),
        )
        return RegistrySnapshot(version=self.number, tree=AccountTree([acme]), credentials={})


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
    submission, _ = INTAKE.from_events([known.SerializeToString()], CREDENTIAL, ORIGIN)
    assert submission.claims is not None
    assert submission.claims.keys[0].hex() == "1509620385e8f970661da5582f7b91ea"
    assert submission.claims.hashes[0].hex() == "800403025dd9415eb0b96045fad78c89"


@pytest.mark.parametrize("count", [3, 100])
def test_from_events__without_an_id(count: int) -> None:
    """An event without an id is wrong, and one whose id is a UUID of zeros alone has one."""
    none, zeros = "", "00000000-0000-0000-0000-000000000000"
    for other in (zeros, "f" * 32):
        named = [event(end_ms=BEGIN_MS, event_id=name) for name in (none, zeros, other)]
        raw = [it.SerializeToString() for it in (named * count)[:count]]
        submission, outcomes = INTAKE.from_events(raw, CREDENTIAL, ORIGIN)
        wanted = [Outcome.FIELD_INVALID, Outcome.RECORDED, Outcome.RECORDED]
        assert outcomes.tolist() == (wanted * count)[:count]
        assert [raw[it.index] for it in submission.set_aside] == [
            it.payload for it in submission.set_aside
        ]
    nobody = [event(end_ms=BEGIN_MS, event_id="").SerializeToString()] * count
    assert set(INTAKE.from_events(nobody, CREDENTIAL, ORIGIN)[1].tolist()) == {
        Outcome.FIELD_INVALID
    }


@pytest.mark.parametrize("count", [1, 100])
def test_from_events__that_are_no_messages(count: int) -> None:
    """A call with an event that is no message is refused as a message that is none."""
    raw = [event(end_ms=BEGIN_MS, event_id="e").SerializeToString()] * count
    for broken in (b"\xff", raw[0][:-1], b"\x0a\x02\xff\xfe"):
        with pytest.raises(InvalidArgument) as caught:
            INTAKE.from_events([*raw, broken], CREDENTIAL, ORIGIN)
        assert caught.value.reason is Reason.MESSAGE_UNREADABLE


def key_of(account_id: str) -> Credential:
    """Return a key that reports for an account and what is below it."""
    scopes = (Scope(role=Role.PRODUCER, account_id=account_id),)
    return replace(CREDENTIAL, key_id=f"key of {account_id}", scopes=scopes)


KEYS: Final = [key_of(f"account{number}") for number in range(300)]


def test_verdicts_of__three_hundred_rights_in_turn() -> None:
    """More keys than were ever remembered at once are each judged once, not once a batch."""
    intake, table = new_intake(), DimensionTable()
    turns = [[intake.verdicts_of(key, table, BEGIN_MS) for key in KEYS] for _ in range(3)]
    for again in turns[1:]:
        assert all(a is b for a, b in zip(again, turns[0], strict=True))


def test_verdicts_of__keys_of_the_same_rights_share_them() -> None:
    """What a key may report for decides, not its name or what else it may; others have theirs."""
    intake, table = new_intake(), DimensionTable()
    reader = Scope(role=Role.READER, account_id="other")
    twin = replace(KEYS[0], key_id="twin", scopes=(reader, *KEYS[0].scopes))
    mine, his, another = (
        intake.verdicts_of(key, table, BEGIN_MS) for key in (KEYS[0], twin, KEYS[1])
    )
    assert mine is his
    assert mine is not another


def test_verdicts_of__another_registry_or_table_is_judged_anew() -> None:
    """Nothing is said of a later registry, or of another table's handles, that was said before."""
    source = Source()
    registry = Registry(source, FakeClock(BEGIN_MS))
    registry.refresh()
    intake, table = Intake(registry=registry, tiers=("high",)), DimensionTable()
    of_table = intake.verdicts_of(KEYS[0], table, BEGIN_MS)
    other = DimensionTable()
    assert intake.verdicts_of(KEYS[0], other, BEGIN_MS).table is other
    of_registry = intake.verdicts_of(KEYS[0], table, BEGIN_MS)
    assert of_registry is not of_table
    source.number = 2
    registry.refresh()
    assert intake.verdicts_of(KEYS[0], table, BEGIN_MS).tree is registry.snapshot.tree
    assert registry.snapshot.tree is not of_registry.tree


class LongTable(DimensionTable):
    """A table that says that it is so long that three rights' verdicts of it may be kept."""

    def __len__(self) -> int:
        """Return how many dimensions there would be."""
        return 1_300_000


def test_verdicts_of__longest_unused_is_forgotten_first() -> None:
    """Of a long table few verdicts are kept, those that were used last."""
    intake, table = new_intake(), LongTable()
    first, second, third = (intake.verdicts_of(key, table, BEGIN_MS) for key in KEYS[:3])
    assert intake.verdicts_of(KEYS[0], table, BEGIN_MS) is first
    fourth = intake.verdicts_of(KEYS[3], table, BEGIN_MS)
    for key, known in ((KEYS[0], first), (KEYS[2], third), (KEYS[3], fourth)):
        assert intake.verdicts_of(key, table, BEGIN_MS) is known
    assert intake.verdicts_of(KEYS[1], table, BEGIN_MS) is not second


def test_verdicts_of__of_a_short_table_not_all_are_kept() -> None:
    """Rights without end do not fill the memory, however short the table."""
    intake, table = new_intake(), DimensionTable()
    first = intake.verdicts_of(KEYS[0], table, BEGIN_MS)
    for number in range(4_096):
        intake.verdicts_of(key_of(f"more{number}"), table, BEGIN_MS)
    assert intake.verdicts_of(KEYS[0], table, BEGIN_MS) is not first


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
