"""The check: whole columns against rules written out for one event at a time."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.credential import Credential, RegistrySnapshot, Role, Scope
from meter.domain.event import Dimensions, DimensionTable, Origin
from meter.domain.interval import INTERVAL_MS
from meter.domain.outcome import Outcome
from meter.journal.check import Verdicts, check
from meter.registry import Registry
from meter.wire.intake import Intake
from tests.clock import FakeClock
from tests.meter.plain_events import BEGIN_MS, PlainEvent, narrowed, to_batch
from tests.wire.session import event

NOW: Final = BEGIN_MS + 5 * 60_000
DAY_MS: Final = 86_400_000
CLASSES: Final = {1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 30, 31, 32, 40, 41}
GENERATED: Final = {7, 8, 22, 32, 41}


def account(account_id: str, *, parent: str | None = None, close_ms: int | None = None) -> Account:
    """Return an account that began long ago."""
    edge = ParentEdge(start_ms=0, parent_id=parent)
    return Account(
        account_id=account_id, handle=account_id, create_ms=0, close_ms=close_ms, parents=(edge,)
    )


TREE: Final = AccountTree(
    [
        account("acme"),
        account("team", parent="acme"),
        account("gone", parent="acme", close_ms=NOW - 1_000),
        account("other"),
    ]
)
CREDENTIAL: Final = Credential(
    key_id="key_1",
    account_id="acme",
    scopes=(
        Scope(role=Role.READER, account_id=None),
        Scope(role=Role.PRODUCER, account_id="acme"),
    ),
    end_ms=None,
)
TEXTS: Final = ["ok", "x" * 64, "x" * 65, "x" * 128, "x" * 129, "", "a\x00", "ü", "\u2028"]
DIMENSIONS: Final = list(
    dict.fromkeys(
        [
            *(
                Dimensions(name, "m", "m", "high", 1, "", "")
                for name in ("acme", "team", "gone", "other")
            ),
            *(Dimensions(name, "m", "m", "high", 1, "", "") for name in ("nobody", *TEXTS)),
            *(Dimensions("acme", text, "m", "high", 1, "", "") for text in TEXTS),
            *(Dimensions("acme", "m", text, "high", 1, "", "") for text in TEXTS),
            *(Dimensions("acme", "m", "m", "high", 1, text, "") for text in TEXTS),
            *(Dimensions("team", "m", "m", "high", 1, "", text) for text in TEXTS),
            *(
                Dimensions("team", "m", "m", tier, 1, "", "")
                for tier in ("gold", "", "x" * 33, "free")
            ),
            *(Dimensions("team", "m", "m", "high", mode, "", "") for mode in (-1, 2, 3)),
            Dimensions("other", "m", "m", "gold", 9, "", ""),
            Dimensions("gone", "m", "m", "gold", 9, "", ""),
        ]
    )
)


def rules_broken(event: PlainEvent, *, any_age: bool) -> set[int]:
    """Return the numbers of all outcomes that apply to one event, by the contract's words."""
    where = DIMENSIONS[event.dimension]
    broken: set[int] = set()

    def rule(outcome: Outcome, *, holds: bool) -> None:
        if not holds:
            broken.add(outcome)

    def extra(name: str, default: int) -> int:
        return event.extra.get(name, default)

    limits = [(where.account, 64), (where.model, 128), (where.served_model, 128)]
    limits += [(where.tier, 32), (where.pool, 64), (where.region, 64), (event.request_id, 128)]
    texts_fit = all(len(text) <= most for text, most in limits)
    printable = all(character.isprintable() for text, _ in limits for character in text)
    named = bool(where.account and where.model)
    rule(Outcome.FIELD_INVALID, holds=texts_fit and printable and named)
    rule(Outcome.FIELD_INVALID, holds=0 <= extra("duration_ms", 0) <= 604_800_000)
    rule(Outcome.FIELD_INVALID, holds=0 <= extra("attempt", 0) <= 1_000)
    rule(Outcome.ACCOUNT_UNKNOWN, holds=where.account in {"acme", "team", "gone", "other"})
    rule(Outcome.ACCOUNT_OUT_OF_SCOPE, holds=where.account in {"acme", "team", "gone"})
    rule(Outcome.ACCOUNT_CLOSED, holds=where.account != "gone" or event.end_ms < NOW - 1_000)
    rule(Outcome.TIER_UNKNOWN, holds=where.tier in {"free", "high"})
    rule(Outcome.MODE_UNKNOWN, holds=where.mode in {1, 2})
    rule(Outcome.FINISH_UNKNOWN, holds=extra("finish", 1) in {1, 2, 3, 4})
    rule(Outcome.QUALITY_UNKNOWN, holds=extra("quality", 1) in {1, 2, 3})
    rule(Outcome.TIME_IN_FUTURE, holds=event.end_ms <= NOW + 5 * 60_000)
    rule(Outcome.TIME_TOO_OLD, holds=event.end_ms >= (0 if any_age else NOW - 35 * DAY_MS))
    reported = {"in": extra("reported_input", -1), "out": extra("reported_output", -1)}
    sums = {"in": 0, "out": 0}
    for number, count in event.tokens.items():
        rule(Outcome.CLASS_UNKNOWN, holds=number in CLASSES or count == 0)
        rule(Outcome.COUNT_NEGATIVE, holds=count >= 0)
        rule(Outcome.COUNT_ABOVE_LIMIT, holds=count <= 1_000_000_000)
        if number in CLASSES:
            sums["out" if number in GENERATED else "in"] += count
    for side, stated in reported.items():
        rule(Outcome.COUNT_NEGATIVE, holds=stated >= -1)
        rule(Outcome.COUNT_MISMATCH, holds=stated < 0 or stated == sums[side])
    return broken


def table() -> DimensionTable:
    """Return the dimensions above, each under the number of its place."""
    made = DimensionTable()
    for dimensions in DIMENSIONS:
        made.intern(dimensions)
    return made


COUNTS: Final = st.one_of(
    st.integers(0, 5), st.sampled_from([-(2**63), -1, 10**9, 10**9 + 1, 2**63 - 1])
)
EVENTS: Final = st.builds(
    PlainEvent,
    dimension=st.one_of(st.just(0), st.integers(0, len(DIMENSIONS) - 1)),
    end_ms=st.sampled_from(
        [
            *(NOW, NOW + 300_000, NOW + 300_001, NOW - 1_001, NOW - 1_000, NOW - 999),
            *(NOW - 35 * DAY_MS, NOW - 35 * DAY_MS - 1, 0, -1, -(2**60), 2**60),
        ]
    ),
    tokens=st.dictionaries(st.sampled_from([*CLASSES, 0, 9, 99]), COUNTS, max_size=4),
    extra=st.fixed_dictionaries(
        {},
        optional={
            "duration_ms": st.sampled_from([-1, 0, 604_800_000, 604_800_001]),
            "attempt": st.sampled_from([-1, 0, 1_000, 1_001]),
            "finish": st.integers(-1, 6),
            "quality": st.integers(-1, 5),
            "reported_input": st.integers(-2, 12),
            "reported_output": st.integers(-2, 12),
        },
    ),
    request_id=st.sampled_from(["", "r", "r" * 128, "r" * 129, "a\nb"]),
)


@given(events=st.lists(EVENTS, min_size=1, max_size=20), any_age=st.booleans())
def test_check__equals_the_rules_one_by_one(events: list[PlainEvent], *, any_age: bool) -> None:
    """Each event gets the lowest number of the rules that it breaks, whatever columns' widths."""
    made = table()
    verdicts = Verdicts(made, CREDENTIAL, TREE, frozenset({"free", "high"}))
    batch = to_batch(events, table=made)
    wanted = [min(rules_broken(it, any_age=any_age), default=Outcome.RECORDED) for it in events]
    for columns in (batch, narrowed(batch)):
        found = check(columns, verdicts, now_ms=NOW, any_age=any_age)
        assert found.tolist() == wanted


@given(events=st.lists(EVENTS, min_size=1, max_size=20), slack=st.integers(0, 2**40))
def test_check__spans_change_nothing(events: list[PlainEvent], slack: int) -> None:
    """What is told of a column's numbers, narrowly or widely, changes no outcome."""
    made = table()
    verdicts = Verdicts(made, CREDENTIAL, TREE, frozenset({"free", "high"}))
    batch = to_batch(events, table=made)
    names: list[str | int] = ["end_ms", *batch.extra, *batch.tokens]
    exact = {name: batch.span(name) for name in names}
    spans = {name: (low - slack, high + slack) for name, (low, high) in exact.items()}
    found = check(replace(batch, spans=spans), verdicts, now_ms=NOW)
    assert found.tolist() == check(batch, verdicts, now_ms=NOW).tolist()


# One rule at a time, at its edges, on an event that is right in all else.
EDGES: Final[list[tuple[Outcome, dict[str, Any]]]] = [
    (Outcome.RECORDED, {}),
    (Outcome.RECORDED, {"duration_ms": 604_800_000, "attempt": 1_000}),
    (Outcome.FIELD_INVALID, {"duration_ms": 604_800_001}),
    (Outcome.FIELD_INVALID, {"duration_ms": -1}),
    (Outcome.FIELD_INVALID, {"attempt": 1_001}),
    (Outcome.FIELD_INVALID, {"attempt": -1}),
    *((Outcome.RECORDED, {"finish": finish}) for finish in (1, 2, 3, 4)),
    *((Outcome.FINISH_UNKNOWN, {"finish": finish}) for finish in (-1, 5)),
    *((Outcome.RECORDED, {"quality": quality}) for quality in (1, 2, 3)),
    *((Outcome.QUALITY_UNKNOWN, {"quality": quality}) for quality in (-1, 4)),
    *((Outcome.RECORDED, {"tokens": {number: 1}}) for number in CLASSES),
    *((Outcome.CLASS_UNKNOWN, {"tokens": {number: 1}}) for number in (-1, 0, 9, 23, 42)),
    (Outcome.RECORDED, {"tokens": {9: 0}}),
    (Outcome.RECORDED, {"tokens": {1: 1_000_000_000}}),
    (Outcome.COUNT_ABOVE_LIMIT, {"tokens": {1: 1_000_000_001}}),
    (Outcome.COUNT_NEGATIVE, {"tokens": {1: -1}}),
    (Outcome.RECORDED, {"tokens": {1: 2, 2: 3, 7: 4}, "reported_input": 5}),
    (Outcome.COUNT_MISMATCH, {"tokens": {1: 2, 2: 3, 7: 4}, "reported_input": 4}),
    (Outcome.COUNT_MISMATCH, {"tokens": {1: 2}, "reported_input": 0}),
    (Outcome.RECORDED, {"tokens": {}, "reported_input": 0, "reported_output": 0}),
    (Outcome.RECORDED, {"tokens": {1: 2, 7: 3, 8: 4}, "reported_output": 7}),
    (Outcome.COUNT_MISMATCH, {"tokens": {1: 2, 7: 3, 8: 4}, "reported_output": 9}),
    (Outcome.COUNT_MISMATCH, {"tokens": {7: 3}, "reported_output": 0}),
    (Outcome.COUNT_NEGATIVE, {"reported_output": -2}),
]


@pytest.mark.parametrize(("outcome", "changes"), EDGES)
def test_check__one_rule_at_its_edge(outcome: Outcome, changes: dict[str, Any]) -> None:
    """Each rule holds up to its edge and is broken right behind it."""
    extra = {name: value for name, value in changes.items() if name != "tokens"}
    item = PlainEvent(dimension=0, end_ms=NOW, tokens=changes.get("tokens", {1: 1}), extra=extra)
    made = table()
    verdicts = Verdicts(made, CREDENTIAL, TREE, frozenset({"high"}))
    assert check(to_batch([item], table=made), verdicts, now_ms=NOW).tolist() == [outcome]


@given(events=st.lists(EVENTS, min_size=1, max_size=20))
def test_check__same_verdicts_on_the_second_look(events: list[PlainEvent]) -> None:
    """What was remembered of a dimension does not change what is said of it."""
    made = table()
    verdicts = Verdicts(made, CREDENTIAL, TREE, frozenset({"free", "high"}))
    batch = to_batch(events, table=made)
    first = check(batch, verdicts, now_ms=NOW)
    assert np.array_equal(first, check(batch, verdicts, now_ms=NOW))
    alone = [check(to_batch([it], table=made), verdicts, now_ms=NOW)[0] for it in events]
    assert first.tolist() == alone


def test_check__table_that_grows() -> None:
    """Dimensions that come later are judged when they come."""
    made = DimensionTable()
    verdicts = Verdicts(made, CREDENTIAL, TREE, frozenset({"high"}))
    for number in range(50):
        handle = made.intern(Dimensions("team", f"m{number}", "m", "high", 1, "", ""))
        batch = to_batch([PlainEvent(dimension=handle, end_ms=NOW, tokens={})], table=made)
        assert check(batch, verdicts, now_ms=NOW).tolist() == [Outcome.RECORDED]


class Source:
    """A registry's source that never changes."""

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self.known: RegistrySnapshot | None = snapshot
        self._snapshot = snapshot

    def version(self) -> int:
        """Return the one version."""
        return self._snapshot.version

    def load(self) -> RegistrySnapshot:
        """Return the one snapshot."""
        return self._snapshot


@pytest.mark.parametrize(("step_ms", "outcome"), [(-1, 1), (0, 21), (INTERVAL_MS, 21)])
def test_intake__dated_move_holds_from_its_edge_on(step_ms: int, outcome: int) -> None:
    """A key of a subtree stops covering an account when its move begins, with no other change."""
    edge = BEGIN_MS + INTERVAL_MS
    moving = Account(
        account_id="team",
        handle="team",
        create_ms=0,
        close_ms=None,
        parents=(
            ParentEdge(start_ms=0, parent_id="acme"),
            ParentEdge(start_ms=edge, parent_id="other"),
        ),
    )
    snapshot = RegistrySnapshot(
        version=1, tree=AccountTree([account("acme"), account("other"), moving]), credentials={}
    )
    registry = Registry(Source(snapshot), FakeClock(BEGIN_MS))
    registry.refresh()
    intake = Intake(registry=registry, tiers=("high",))
    for now_ms in (BEGIN_MS, edge + step_ms):
        origin = Origin(account_id="acme", key_id="key_1", received_ms=now_ms)
        sent = event("team", end_ms=now_ms).SerializeToString()
        _, outcomes = intake.from_events([sent], CREDENTIAL, origin)
    assert outcomes.tolist() == [outcome]
