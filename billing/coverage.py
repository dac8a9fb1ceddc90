"""Which contract bills whose usage, at every instant; pure, and remembered by account."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Protocol

from billing.contracts import Contracts, ContractVersion
from billing.periods import Span
from meter.domain.account import AccountTree


class Placed(Protocol):
    """What has happened to somebody at some time (ms): usage, energy."""

    @property
    def account_id(self) -> str:
        """The account."""
        ...

    @property
    def interval_start_ms(self) -> int:
        """Begin of the interval."""
        ...


class Coverage:
    """The answers of `Contracts.find_billing` on one tree of accounts.

    They change only where an account moves, or a version begins or ends.
    """

    def __init__(self, contracts: Contracts, tree: AccountTree) -> None:
        self._contracts = contracts
        self._tree = tree
        edges = {it.start_ms for it in contracts}
        edges.update(it.end_ms for it in contracts if it.end_ms is not None)
        edges.update(edge.start_ms for account in tree for edge in account.parents[1:])
        self._edges = sorted(edges)
        self._known: dict[tuple[str, int], ContractVersion | None] = {}
        self._covering: dict[str, list[int]] = {}
        for it in contracts:
            for account_id in it.covers:
                ends = (it.start_ms,) if it.end_ms is None else (it.start_ms, it.end_ms)
                self._covering.setdefault(account_id, []).extend(ends)
        self._changes: dict[str, tuple[int, ...]] = {}

    def find(self, account_id: str, at_ms: int) -> ContractVersion | None:
        """Return the version that bills an account's usage at an instant, or None."""
        key = (account_id, self.phase(at_ms))
        if key not in self._known:
            self._known[key] = self._contracts.find_billing(self._tree, account_id, at_ms)
        return self._known[key]

    def phase(self, at_ms: int) -> int:
        """Return between which two edges an instant lies: within a phase no answer changes."""
        return bisect_right(self._edges, at_ms)

    def instants(self, span: Span) -> list[int]:
        """Return the begin of a span and the instants in it at which an answer may change."""
        first = bisect_right(self._edges, span.start_ms)
        return [span.start_ms, *self._edges[first : bisect_left(self._edges, span.end_ms)]]

    def changes(self, account_id: str) -> tuple[int, ...]:
        """Return the instants at which who bills an account, or its path, may change, rising.

        May hold more: those of accounts that it was ever below.
        """
        if account_id not in self._changes:
            found: set[int] = set()
            seen: set[str] = set()
            open_ids = [account_id]
            while open_ids:
                each = open_ids.pop()
                if each not in seen:
                    seen.add(each)
                    edges = self._tree.get(each).parents
                    found.update(edge.start_ms for edge in edges[1:])
                    found.update(self._covering.get(each, ()))
                    open_ids += [edge.parent_id for edge in edges if edge.parent_id is not None]
            self._changes[account_id] = tuple(sorted(found))
        return self._changes[account_id]

    def is_billed_under(self, contract: str) -> Callable[[Placed], bool]:
        """Return what tells whether a fact is a contract's to bill, under any version of it."""

        def is_billed(fact: Placed) -> bool:
            version = self.find(fact.account_id, fact.interval_start_ms)
            return version is not None and version.contract == contract

        return is_billed


def is_same(version: ContractVersion, other: ContractVersion | None) -> bool:
    """Tell whether both are the same version of one contract."""
    return (
        other is not None
        and version.contract == other.contract
        and version.start_ms == other.start_ms
    )
