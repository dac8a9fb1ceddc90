"""The tree of accounts as the oracle sees it; instants in ms since 1970, UTC."""

from collections.abc import Mapping
from typing import NamedTuple


class Account(NamedTuple):
    """An account's handle, and its parents from an instant on, oldest first; None is no parent."""

    handle: str
    parents: tuple[tuple[int, str | None], ...]


Tree = Mapping[str, Account]  # by id


def parent_at(tree: Tree, account: str, *, at_ms: int) -> str | None:
    """Return the parent at that instant; before its first edge an account has its first parent."""
    if account not in tree:
        return None
    edges = tree[account].parents
    for start_ms, parent in reversed(edges):
        if start_ms <= at_ms:
            return parent
    return edges[0][1]


def find_account(tree: Tree, text: str, *, at_ms: int) -> str:
    """Return the id of the one account that `id:acme`, `/acme` or `acme` (id or path) names."""
    if text.startswith("id:"):
        return text.removeprefix("id:")
    path = text.removeprefix("/")
    found = [it for it in tree if it == text or _path(tree, it, at_ms=at_ms) == path]
    if len(found) != 1:
        raise ValueError(f"{text!r} names {len(found)} accounts")
    return found[0]


def _path(tree: Tree, account: str, *, at_ms: int) -> str:
    above = parent_at(tree, account, at_ms=at_ms)
    handle = tree[account].handle
    return handle if above is None else f"{_path(tree, above, at_ms=at_ms)}/{handle}"
