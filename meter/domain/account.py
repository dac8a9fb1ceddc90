"""Accounts: a tree whose edges are dated, and the rules by which it may change.

An edge holds from its begin, on the 15-minute grid, until the account's next edge begins. Before
its first edge an account has its first parent, so that usage that is late still finds its place.
At no time is an account below itself: an account is created without any below it, and a move is
checked at its date and at each later date at which something moves.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from meter.domain.errors import AlreadyExists, InvalidArgument, NotFound, Reason, Refused
from meter.domain.interval import interval_start_ms, is_on_edge
from meter.domain.limits import ACCOUNT_CHARS_MAX, ACCOUNT_DEPTH_MAX

HANDLE_CHARS_MAX: Final = 64
PATH_SEPARATOR: Final = "/"
_ACCOUNT_ID = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{ACCOUNT_CHARS_MAX - 1}}}")
_HANDLE = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{HANDLE_CHARS_MAX - 1}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentEdge:
    """The parent from `start_ms` on (ms since 1970, UTC, on an edge); None makes it a root."""

    start_ms: int
    parent_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A place that usage is counted for; times in ms since 1970, UTC.

    `close_ms` is None while open. `parents` are its edges, at least one, oldest first.
    """

    account_id: str
    handle: str
    create_ms: int
    close_ms: int | None
    parents: tuple[ParentEdge, ...]

    def parent_at(self, at_ms: int) -> str | None:
        """Return the parent's id at that time; None for a root."""
        parents = self.parents
        # Nearly every account never moves, and this is asked for every event's dimensions.
        if len(parents) == 1:
            return parents[0].parent_id
        for edge in reversed(parents):
            if edge.start_ms <= at_ms:
                return edge.parent_id
        return parents[0].parent_id

    def next_move_ms(self, after_ms: int) -> int | None:
        """Return the begin of its first edge after that time; None when there is none."""
        return next((edge.start_ms for edge in self.parents if edge.start_ms > after_ms), None)

    def is_closed_at(self, at_ms: int) -> bool:
        """Tell whether it was closed at that time."""
        return self.close_ms is not None and self.close_ms <= at_ms


class AccountTree:
    """All accounts at all times; never changes: `with_account` returns another tree."""

    __slots__ = ("_accounts", "_below", "_move_starts", "_named")

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts = {account.account_id: account for account in accounts}
        # Who ever had this parent; and who ever had this name under this parent.
        self._below: dict[str | None, list[str]] = {}
        self._named: dict[tuple[str | None, str], list[str]] = {}
        moves: set[int] = set()
        for account in self._accounts.values():
            for parent_id in _ever_parents(account):
                self._below.setdefault(parent_id, []).append(account.account_id)
                self._named.setdefault((parent_id, account.handle), []).append(account.account_id)
            if len(account.parents) > 1:
                moves.update(edge.start_ms for edge in account.parents[1:])
        self._move_starts = sorted(moves)

    def __len__(self) -> int:
        return len(self._accounts)

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def find(self, account_id: str) -> Account | None:
        """Return the account, or None."""
        return self._accounts.get(account_id)

    def get(self, account_id: str) -> Account:
        """Return the account; raises NotFound (ACCOUNT_NOT_FOUND)."""
        account = self._accounts.get(account_id)
        if account is None:
            raise NotFound(Reason.ACCOUNT_NOT_FOUND, "No account has this id.")
        return account

    def find_by_path(self, path: str, *, at_ms: int) -> Account | None:
        """Return the account that had this path ("acme/team") at that time, or None."""
        found: Account | None = None
        for handle in path.split(PATH_SEPARATOR):
            parent_id = found.account_id if found else None
            named = map(self.get, self._named.get((parent_id, handle), ()))
            found = next((it for it in named if it.parent_at(at_ms) == parent_id), None)
            if found is None:
                return None
        return found

    def parent_at(self, account_id: str, at_ms: int) -> str | None:
        """Return the parent's id at that time, None for a root; raises NotFound."""
        return self.get(account_id).parent_at(at_ms)

    def is_within(self, account_id: str, root: str | None, *, at_ms: int) -> bool:
        """Tell whether the account was `root` or below it; None is the whole installation.

        An account that does not exist is within nothing.
        """
        accounts = self._accounts
        account = accounts.get(account_id)
        if root is None:
            return account is not None
        for _ in accounts:
            if account is None or account.account_id == root:
                break
            parent_id = account.parent_at(at_ms)
            account = None if parent_id is None else accounts[parent_id]
        return account is not None and account.account_id == root

    def ancestry(self, account_id: str, *, at_ms: int) -> list[Account]:
        """Return the account and those above it at that time, root last; raises NotFound."""
        line = [self.get(account_id)]
        while (parent_id := line[-1].parent_at(at_ms)) is not None:
            line.append(self._accounts[parent_id])
            assert len(line) <= len(self._accounts), "no account is below itself"
        return line

    def path(self, account_id: str, *, at_ms: int) -> str:
        """Return the handles from the root down, joined by "/"; raises NotFound."""
        line = self.ancestry(account_id, at_ms=at_ms)
        return PATH_SEPARATOR.join(account.handle for account in reversed(line))

    def children(self, account_id: str | None, *, at_ms: int) -> list[str]:
        """Return the ids right below the account at that time; of the roots for None."""
        return [
            child
            for child in self._below.get(account_id, ())
            if self._accounts[child].parent_at(at_ms) == account_id
        ]

    def subtree(self, root: str | None, *, at_ms: int) -> frozenset[str]:
        """Return the ids of `root` and all below it; of all accounts for None; raises NotFound."""
        if root is None:
            return frozenset(self._accounts)
        return frozenset(it for level in self._levels(root, at_ms=at_ms) for it in level)

    def ever_below(self, root: str) -> frozenset[str]:
        """Return the ids of `root` and all that were below it at any time, or below those were."""
        found: set[str] = set()
        open_ids = [self.get(root).account_id]
        while open_ids:
            each = open_ids.pop()
            if each not in found:
                found.add(each)
                open_ids += self._below.get(each, ())
        return frozenset(found)

    def height(self, root: str, *, at_ms: int) -> int:
        """Return the number of levels of the subtree, 1 without children; raises NotFound."""
        return sum(1 for _ in self._levels(root, at_ms=at_ms))

    def later_moves_ms(self, start_ms: int, *, end_ms: int | None) -> list[int]:
        """Return the dates between both, exclusive, at which any account moves; None: no end."""
        first = bisect_right(self._move_starts, start_ms)
        return [it for it in self._move_starts[first:] if end_ms is None or it < end_ms]

    def named(self, handle: str, *, parent_id: str | None) -> list[Account]:
        """Return the accounts that at any time had this handle under this parent."""
        return [self._accounts[it] for it in self._named.get((parent_id, handle), ())]

    def with_account(self, account: Account) -> "AccountTree":
        """Return a tree in which this account is new, or in the place of the one with its id."""
        tree = AccountTree()
        tree._accounts = {**self._accounts, account.account_id: account}
        tree._below = self._below.copy()
        tree._named = self._named.copy()
        known = self._accounts.get(account.account_id)
        for parent_id in _ever_parents(account) - (_ever_parents(known) if known else set()):
            name = (parent_id, account.handle)
            tree._below[parent_id] = [*tree._below.get(parent_id, ()), account.account_id]
            tree._named[name] = [*tree._named.get(name, ()), account.account_id]
        moves = {edge.start_ms for edge in account.parents[1:]}
        tree._move_starts = sorted(moves.union(self._move_starts)) if moves else self._move_starts
        return tree

    def _levels(self, root: str, *, at_ms: int) -> Iterator[list[str]]:
        level = [self.get(root).account_id]
        count = 0
        while level:
            count += len(level)
            assert count <= len(self._accounts), "no account is below itself"
            yield level
            level = [below for it in level for below in self.children(it, at_ms=at_ms)]


def create_account(
    tree: AccountTree, account_id: str, *, handle: str, parent_id: str | None, now_ms: int
) -> Account:
    """Return a new account that begins with the interval of `now_ms`.

    Raises InvalidArgument for an id or handle of another form and for a parent that is closed or
    too deep, NotFound for a parent that does not exist, AlreadyExists.
    """
    _check_form("account", account_id, _ACCOUNT_ID)
    _check_form("handle", handle, _HANDLE)
    start_ms = interval_start_ms(now_ms)
    if parent_id is not None and tree.get(parent_id).is_closed_at(now_ms):
        raise invalid_argument("parent", "an open account")
    if tree.find(account_id) is not None:
        raise AlreadyExists(Reason.ACCOUNT_EXISTS, "An account has this id.", field="account")
    _check_name(tree, account_id, handle=handle, parent_id=parent_id, span=(start_ms, None))
    for at_ms in [start_ms, *tree.later_moves_ms(start_ms, end_ms=None)]:
        if parent_id and len(tree.ancestry(parent_id, at_ms=at_ms)) >= ACCOUNT_DEPTH_MAX:
            raise invalid_argument("parent", f"at most {ACCOUNT_DEPTH_MAX} levels of accounts")
    return Account(
        account_id=account_id,
        handle=handle,
        create_ms=now_ms,
        close_ms=None,
        parents=(ParentEdge(start_ms=start_ms, parent_id=parent_id),),
    )


def move_account(
    tree: AccountTree, account_id: str, *, parent_id: str | None, start_ms: int, now_ms: int
) -> Account:
    """Return the account with one more edge; the same account when it is there at the date anyway.

    Raises InvalidArgument for a date off the grid, NotFound, AlreadyExists for a handle that is
    taken under the new parent, Refused (MOVE_REFUSED).
    """
    account = tree.get(account_id)
    if not is_on_edge(start_ms):
        raise invalid_argument("start_time", "on a 15-minute edge")
    if account.parent_at(start_ms) == parent_id:
        return account
    if start_ms < now_ms:
        raise _move_refused("The date is in the past: usage was counted by then.")
    if any(start_ms == edge.start_ms for edge in account.parents):
        raise _move_refused("The account moves on this date already; choose another one.")
    # Before its first edge it has its first parent: an edge there would change the past.
    if start_ms < account.parents[0].start_ms:
        raise _move_refused("The account did not exist on this date.")
    if account.is_closed_at(now_ms):
        raise _move_refused("The account is closed.")
    if parent_id is not None and tree.get(parent_id).is_closed_at(now_ms):
        raise _move_refused("The new parent is closed.")
    end_ms = account.next_move_ms(start_ms)
    if parent_id is not None:
        for at_ms in [start_ms, *tree.later_moves_ms(start_ms, end_ms=end_ms)]:
            _check_place(tree, account_id, parent_id=parent_id, at_ms=at_ms)
    span = (start_ms, end_ms)
    _check_name(tree, account_id, handle=account.handle, parent_id=parent_id, span=span)
    edges = (*account.parents, ParentEdge(start_ms=start_ms, parent_id=parent_id))
    return replace(account, parents=tuple(sorted(edges, key=lambda edge: edge.start_ms)))


def close_account(tree: AccountTree, account_id: str, *, now_ms: int) -> Account:
    """Return the account, closed now; raises NotFound, Refused (CLOSE_REFUSED)."""
    account = tree.get(account_id)
    if account.is_closed_at(now_ms):
        raise Refused(Reason.CLOSE_REFUSED, "The account is closed already.")
    for at_ms in [now_ms, *tree.later_moves_ms(now_ms, end_ms=None)]:
        for child in tree.children(account_id, at_ms=at_ms):
            if not tree.get(child).is_closed_at(now_ms):
                raise Refused(
                    Reason.CLOSE_REFUSED,
                    "Open accounts are below it, now or by a move to come; close or move them.",
                )
    return replace(account, close_ms=now_ms)


def invalid_argument(field: str, rule: str) -> InvalidArgument:
    """Return the error for a field of a request that breaks a rule."""
    return InvalidArgument(
        Reason.ARGUMENT_INVALID, f"{field} is wrong: {rule}", field=field, rule=rule
    )


def _check_place(tree: AccountTree, account_id: str, *, parent_id: str, at_ms: int) -> None:
    above = tree.ancestry(parent_id, at_ms=at_ms)
    if any(account.account_id == account_id for account in above):
        raise _move_refused("The account would be below itself.")
    if len(above) + tree.height(account_id, at_ms=at_ms) > ACCOUNT_DEPTH_MAX:
        raise _move_refused(f"Accounts would be more than {ACCOUNT_DEPTH_MAX} levels deep.")


def _check_name(
    tree: AccountTree,
    account_id: str,
    *,
    handle: str,
    parent_id: str | None,
    span: tuple[int, int | None],
) -> None:
    """Refuse a handle that another account has under this parent at any time of `span`."""
    start_ms, end_ms = span
    for other in tree.named(handle, parent_id=parent_id):
        ends = [*(edge.start_ms for edge in other.parents[1:]), None]
        for edge, edge_end_ms in zip(other.parents, ends, strict=True):
            begins_before = end_ms is None or edge.start_ms < end_ms
            ends_after = edge_end_ms is None or edge_end_ms > start_ms
            meets = edge.parent_id == parent_id and begins_before and ends_after
            if meets and other.account_id != account_id:
                raise AlreadyExists(
                    Reason.ACCOUNT_EXISTS, "The handle is taken under this parent.", field="handle"
                )


def _check_form(field: str, text: str, form: re.Pattern[str]) -> None:
    if form.fullmatch(text) is None:
        raise invalid_argument(field, f"must match {form.pattern}")


def _ever_parents(account: Account) -> set[str | None]:
    return {edge.parent_id for edge in account.parents}


def _move_refused(message: str) -> Refused:
    return Refused(Reason.MOVE_REFUSED, message)
