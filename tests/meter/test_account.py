"""The tree of accounts: where an account is at which time, and which changes are refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.domain.account import (
    Account,
    AccountTree,
    ParentEdge,
    close_account,
    create_account,
    move_account,
)
from meter.domain.errors import (
    AlreadyExists,
    InvalidArgument,
    MeterError,
    NotFound,
    Reason,
    Refused,
)
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import ACCOUNT_DEPTH_MAX

# A moment inside an interval, and the edges around it.
NOW = 1_000 * INTERVAL_MS + 60_000
BEGIN = 1_000 * INTERVAL_MS


def edge(number: int) -> int:
    """The edge that lies so many intervals after the interval of NOW."""
    return BEGIN + number * INTERVAL_MS


def account(
    account_id: str, *parents: tuple[int, str | None], close_ms: int | None = None
) -> Account:
    """An account with these edges, a root from the beginning when there are none."""
    edges = parents or ((edge(-100), None),)
    return Account(
        account_id=account_id,
        handle=account_id,
        create_ms=edges[0][0],
        close_ms=close_ms,
        parents=tuple(ParentEdge(start_ms=start, parent_id=parent) for start, parent in edges),
    )


def chain(length: int, *, name: str = "level") -> list[Account]:
    """Accounts below one another, the root first, named level0, level1 …."""
    return [
        account(f"{name}{depth}", (edge(-100), f"{name}{depth - 1}" if depth else None))
        for depth in range(length)
    ]


TREE = AccountTree(
    [
        account("acme"),
        account("team", (edge(-100), "acme")),
        account("agent", (edge(-100), "team")),
        account("other"),
        account("mover", (edge(-50), "acme"), (edge(-10), None), (edge(10), "other")),
        account("closed", (edge(-100), "acme"), close_ms=NOW - 1),
    ]
)


@pytest.mark.parametrize(
    ("at_ms", "parent"),
    [
        (edge(-60), "acme"),
        (edge(-50), "acme"),
        (edge(-10) - 1, "acme"),
        (edge(-10), None),
        (edge(10) - 1, None),
        (edge(10), "other"),
        (edge(1_000), "other"),
    ],
)
def test_parent_at__each_time(at_ms: int, parent: str | None) -> None:
    """An edge holds from its begin to the next one's; before the first, the first parent holds."""
    assert TREE.parent_at("mover", at_ms) == parent


def test_parent_at__no_such_account() -> None:
    """Asking for the parent of an account that does not exist raises."""
    with pytest.raises(NotFound) as caught:
        TREE.parent_at("nobody", NOW)
    assert caught.value.reason is Reason.ACCOUNT_NOT_FOUND


@pytest.mark.parametrize(
    ("account_id", "root", "at_ms", "expected"),
    [
        ("agent", "agent", NOW, True),
        ("agent", "team", NOW, True),
        ("agent", "acme", NOW, True),
        ("agent", "other", NOW, False),
        ("acme", "agent", NOW, False),
        ("agent", None, NOW, True),
        ("mover", "acme", edge(-11), True),
        ("mover", "acme", NOW, False),
        ("mover", "other", NOW, False),
        ("mover", "other", edge(10), True),
        ("nobody", None, NOW, False),
        ("nobody", "nobody", NOW, False),
        ("agent", "nobody", NOW, False),
    ],
)
def test_is_within__table(account_id: str, root: str | None, at_ms: int, *, expected: bool) -> None:
    """An account is within itself and all above it, at that time; one that is not, nowhere."""
    assert TREE.is_within(account_id, root, at_ms=at_ms) is expected


def test_subtree__follows_moves() -> None:
    """A subtree has who was below its top at that time."""
    assert TREE.subtree("acme", at_ms=edge(-11)) == {"acme", "team", "agent", "mover", "closed"}
    assert TREE.subtree("acme", at_ms=NOW) == {"acme", "team", "agent", "closed"}
    assert TREE.subtree("other", at_ms=edge(10)) == {"other", "mover"}
    assert TREE.subtree(None, at_ms=NOW) == {it.account_id for it in TREE}


def test_path__is_found_again() -> None:
    """A path names the account that had it at that time, and no other."""
    assert TREE.path("agent", at_ms=NOW) == "acme/team/agent"
    assert TREE.find_by_path("acme/team/agent", at_ms=NOW) is TREE.get("agent")
    assert TREE.find_by_path("acme/mover", at_ms=edge(-11)) is TREE.get("mover")
    for wrong in ("acme/mover", "team", "", "/acme", "acme/", "acme//team"):
        assert TREE.find_by_path(wrong, at_ms=NOW) is None


@pytest.mark.parametrize(
    ("account_id", "handle", "parent_id", "error", "told"),
    [
        ("", "new", None, InvalidArgument, {"field": "account"}),
        ("New", "new", None, InvalidArgument, {"field": "account"}),
        ("_new", "new", None, InvalidArgument, {"field": "account"}),
        ("a.b", "new", None, InvalidArgument, {"field": "account"}),
        ("new\n", "new", None, InvalidArgument, {"field": "account"}),
        ("a" * 65, "new", None, InvalidArgument, {"field": "account"}),
        ("new", "", None, InvalidArgument, {"field": "handle"}),
        ("new", "a/b", None, InvalidArgument, {"field": "handle"}),
        ("new", ".a", None, InvalidArgument, {"field": "handle"}),
        ("new", "é", None, InvalidArgument, {"field": "handle"}),
        ("new", "a" * 65, None, InvalidArgument, {"field": "handle"}),
        ("new", "new", "nobody", NotFound, {}),
        ("new", "new", "closed", InvalidArgument, {"field": "parent"}),
        ("team", "new", None, AlreadyExists, {"field": "account"}),
        ("new", "acme", None, AlreadyExists, {"field": "handle"}),
        ("new", "team", "acme", AlreadyExists, {"field": "handle"}),
        # A closed account keeps its name: its usage is still asked for by it.
        ("new", "closed", "acme", AlreadyExists, {"field": "handle"}),
        # `mover` will come below `other`.
        ("new", "mover", "other", AlreadyExists, {"field": "handle"}),
    ],
)
def test_create_account__refused(
    account_id: str,
    handle: str,
    parent_id: str | None,
    error: type[MeterError],
    told: dict[str, str],
) -> None:
    """Each fault of a new account has its error, which names the field."""
    with pytest.raises(error) as caught:
        create_account(TREE, account_id, handle=handle, parent_id=parent_id, now_ms=NOW)
    assert caught.value.metadata.items() >= told.items()


@pytest.mark.parametrize(
    ("account_id", "handle", "parent_id"),
    [
        ("a" * 64, "0._-" + "b" * 60, None),
        ("0_-", "team", "team"),
        # `mover` left `acme` long ago.
        ("new", "mover", "acme"),
    ],
)
def test_create_account__begins_with_its_interval(
    account_id: str, handle: str, parent_id: str | None
) -> None:
    """A new account has its parent from the interval's begin in which it was created."""
    new = create_account(TREE, account_id, handle=handle, parent_id=parent_id, now_ms=NOW)
    assert (new.handle, new.create_ms, new.close_ms) == (handle, NOW, None)
    assert new.parents == (ParentEdge(start_ms=BEGIN, parent_id=parent_id),)


def test_create_account__too_deep() -> None:
    """An account may be on the last level, and none may be below it."""
    tree = AccountTree(chain(ACCOUNT_DEPTH_MAX - 1))
    last = f"level{ACCOUNT_DEPTH_MAX - 2}"
    tree = tree.with_account(
        create_account(tree, "last", handle="last", parent_id=last, now_ms=NOW)
    )
    with pytest.raises(InvalidArgument):
        create_account(tree, "below", handle="below", parent_id="last", now_ms=NOW)


def test_create_account__too_deep_after_a_move_to_come() -> None:
    """A new account may not be too deep at any later date that is known already."""
    tree = AccountTree(
        [*chain(ACCOUNT_DEPTH_MAX - 1), account("x", (edge(-9), None), (edge(3), "level14"))]
    )
    with pytest.raises(InvalidArgument):
        create_account(tree, "below", handle="below", parent_id="x", now_ms=NOW)


@pytest.mark.parametrize(
    ("account_id", "parent_id", "start_ms", "error", "reason"),
    [
        ("nobody", "acme", edge(1), NotFound, Reason.ACCOUNT_NOT_FOUND),
        ("team", "nobody", edge(1), NotFound, Reason.ACCOUNT_NOT_FOUND),
        ("team", "other", edge(1) + 1, InvalidArgument, Reason.ARGUMENT_INVALID),
        ("team", "other", edge(0), Refused, Reason.MOVE_REFUSED),
        ("team", "other", edge(-200), Refused, Reason.MOVE_REFUSED),
        ("team", "team", edge(1), Refused, Reason.MOVE_REFUSED),
        ("team", "agent", edge(1), Refused, Reason.MOVE_REFUSED),
        ("acme", "agent", edge(1), Refused, Reason.MOVE_REFUSED),
        # A cycle only once `mover` is below `other`.
        ("other", "mover", edge(1), Refused, Reason.MOVE_REFUSED),
        # It moves on this date already.
        ("mover", "acme", edge(10), Refused, Reason.MOVE_REFUSED),
        ("closed", "other", edge(1), Refused, Reason.MOVE_REFUSED),
        ("team", "closed", edge(1), Refused, Reason.MOVE_REFUSED),
    ],
)
def test_move_account__refused(
    account_id: str, parent_id: str, start_ms: int, error: type[MeterError], reason: Reason
) -> None:
    """Each move that would make a cycle, change the past or end nowhere is refused."""
    with pytest.raises(error) as caught:
        move_account(TREE, account_id, parent_id=parent_id, start_ms=start_ms, now_ms=NOW)
    assert caught.value.reason is reason


def test_move_account__on_the_edge_of_now() -> None:
    """The interval that begins just now is not the past."""
    moved = move_account(TREE, "team", parent_id="other", start_ms=BEGIN, now_ms=BEGIN)
    assert moved.parent_at(BEGIN) == "other"
    assert moved.parent_at(BEGIN - 1) == "acme"


def test_move_account__between_two_edges() -> None:
    """A move holds until the next one that was known before."""
    moved = move_account(TREE, "mover", parent_id="team", start_ms=edge(5), now_ms=NOW)
    assert [moved.parent_at(edge(at)) for at in (4, 5, 9, 10)] == [None, "team", "team", "other"]


def test_move_account__is_there_anyway() -> None:
    """Repeating a move changes nothing, even when its date has passed."""
    moved = move_account(TREE, "mover", parent_id="other", start_ms=edge(10), now_ms=edge(11))
    assert moved is TREE.get("mover")


def test_move_account__before_it_existed() -> None:
    """An edge before the first would change where an account has always been."""
    tree = AccountTree([account("early"), account("late", (edge(9), None))])
    with pytest.raises(Refused):
        move_account(tree, "late", parent_id="early", start_ms=edge(5), now_ms=NOW)


def test_move_account__no_cycle_while_apart() -> None:
    """Two accounts may be below each other one after the other."""
    tree = AccountTree([account("a", (edge(-9), "b"), (edge(5), None)), account("b")])
    moved = move_account(tree, "b", parent_id="a", start_ms=edge(5), now_ms=NOW)
    assert tree.with_account(moved).path("b", at_ms=edge(5)) == "a/b"
    with pytest.raises(Refused):
        move_account(tree, "b", parent_id="a", start_ms=edge(4), now_ms=NOW)


def test_move_account__too_deep() -> None:
    """A move counts the levels above the new parent and those that come along."""
    tree = AccountTree([*chain(ACCOUNT_DEPTH_MAX - 2), *chain(3, name="b")])
    last = f"level{ACCOUNT_DEPTH_MAX - 3}"
    moved = move_account(tree, "b1", parent_id=last, start_ms=edge(1), now_ms=NOW)
    assert len(tree.with_account(moved).ancestry("b2", at_ms=edge(1))) == ACCOUNT_DEPTH_MAX
    with pytest.raises(Refused) as caught:
        move_account(tree, "b0", parent_id=last, start_ms=edge(1), now_ms=NOW)
    assert caught.value.reason is Reason.MOVE_REFUSED


@pytest.mark.parametrize(
    ("start", "taken"), [(1, True), (4, True), (5, False)], ids=["now", "last_interval", "free"]
)
def test_move_account__handle_taken(start: int, *, taken: bool) -> None:
    """A handle is taken under a parent as long as somebody has it there."""
    named = replace(account("second", (edge(-9), "other"), (edge(5), None)), handle="team")
    tree = TREE.with_account(named)
    move: Callable[[], Account] = lambda: move_account(  # noqa: E731
        tree, "team", parent_id="other", start_ms=edge(start), now_ms=NOW
    )
    if taken:
        with pytest.raises(AlreadyExists):
            move()
    else:
        assert move().parent_at(edge(5)) == "other"


def test_move_account__gone_before_the_handle_is_taken() -> None:
    """A handle that is taken only after the account has moved on is free until then."""
    guest = account("mover2", (edge(-9), None), (edge(10), "acme"))
    tree = TREE.with_account(replace(guest, handle="mover"))
    moved = move_account(tree, "mover", parent_id="acme", start_ms=edge(5), now_ms=NOW)
    assert moved.parent_at(edge(9)) == "acme"


@pytest.mark.parametrize("account_id", ["acme", "team", "closed", "other"])
def test_close_account__refused(account_id: str) -> None:
    """An account with open ones below it, now or later, stays open; one closes once."""
    with pytest.raises(Refused) as caught:
        close_account(TREE, account_id, now_ms=NOW)
    assert caught.value.reason is Reason.CLOSE_REFUSED


def test_close_account__leaf() -> None:
    """A closed account is closed from now on, and its parent can be closed after it."""
    closed = close_account(TREE, "agent", now_ms=NOW)
    assert closed.is_closed_at(NOW)
    assert not closed.is_closed_at(NOW - 1)
    tree = TREE.with_account(closed)
    assert close_account(tree, "team", now_ms=NOW + 1).close_ms == NOW + 1


IDS = ["a", "b", "c", "d", "e", "f"]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.one_of(st.none(), st.sampled_from(IDS)),
        st.integers(0, 6),
        st.integers(0, 2),
    ),
    max_size=40,
)


def naive_line(tree: AccountTree, account_id: str, at_ms: int) -> list[str]:
    """The account and those above it, by nothing but its edges; fails on a cycle."""
    line: list[str] = []
    walk: str | None = account_id
    while walk is not None:
        assert walk not in line, f"{walk} is below itself at {at_ms}"
        line.append(walk)
        edges = tree.get(walk).parents
        begun = [it for it in edges if it.start_ms <= at_ms]
        walk = (begun[-1] if begun else edges[0]).parent_id
    return line


@given(moves=MOVES)
@settings(max_examples=300, deadline=None)
def test_move_account__never_makes_a_cycle(
    moves: list[tuple[str, str | None, int, int]],
) -> None:
    """Whatever is created and moved when, no account is ever below itself, and all walks agree."""
    tree = AccountTree(map(account, IDS[:4]))
    now_ms = NOW
    for account_id, parent_id, ahead, passed in moves:
        now_ms += passed * INTERVAL_MS // 2
        start_ms = now_ms // INTERVAL_MS * INTERVAL_MS + ahead * INTERVAL_MS
        try:
            if tree.find(account_id) is None:
                changed = create_account(
                    tree, account_id, handle=account_id, parent_id=parent_id, now_ms=now_ms
                )
            else:
                changed = move_account(
                    tree, account_id, parent_id=parent_id, start_ms=start_ms, now_ms=now_ms
                )
        except MeterError:
            continue
        tree = tree.with_account(changed)
    times = sorted({it.start_ms for each in tree for it in each.parents} | {0, now_ms})
    fresh = AccountTree(tree)
    assert tree.later_moves_ms(0, end_ms=None) == fresh.later_moves_ms(0, end_ms=None)
    for at_ms in times:
        lines = {it.account_id: naive_line(tree, it.account_id, at_ms) for it in tree}
        for root in IDS:
            below = {it for it, line in lines.items() if root in line}
            assert {it for it in IDS if tree.is_within(it, root, at_ms=at_ms)} == below
            if below:
                assert tree.subtree(root, at_ms=at_ms) == below
                assert fresh.subtree(root, at_ms=at_ms) == below
        for account_id, line in lines.items():
            path = tree.path(account_id, at_ms=at_ms)
            assert path == "/".join(reversed(line))
            assert tree.find_by_path(path, at_ms=at_ms) is tree.get(account_id)
            assert fresh.find_by_path(path, at_ms=at_ms) is tree.get(account_id)
