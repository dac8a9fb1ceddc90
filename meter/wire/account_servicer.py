"""AccountService: the tree of accounts and the API keys, for whoever may see and change them.

Whether a call is allowed is judged by the accounts as this process knows them, at most 2 seconds
old; whether a change keeps the rules of the tree is judged by the store, on the newest.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol, TypeVar

import grpc

from meter.domain.account import PATH_SEPARATOR, Account, AccountTree, invalid_argument
from meter.domain.certificate_name import bind_key
from meter.domain.clock import Clock
from meter.domain.credential import (
    ApiKey,
    MintedKey,
    RandomBytes,
    RegistrySnapshot,
    Scope,
    draw_account_id,
    is_key_id,
    mint_key,
)
from meter.domain.errors import NotFound, Reason
from meter.domain.interval import interval_start_ms, next_edge_ms
from meter.registry import Registry
from meter.wire.account_messages import (
    Place,
    account_to_pb,
    edge_from_pb,
    key_to_pb,
    page_size_from_pb,
    place_from_token,
    place_to_token,
    scopes_from_pb,
)
from meter.wire.door import RegistryDoor
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2_grpc as pb_grpc

_Result = TypeVar("_Result")
_Context = grpc.aio.ServicerContext[Any, Any]


class Accounts(Protocol):
    """Where accounts and keys are changed: `meter.store.accounts.AccountStore`, which blocks.

    `by` is the id of the API key that makes the change.
    """

    def create_account(
        self, account_id: str, *, handle: str, parent_id: str | None, by: str
    ) -> Account:
        """Create an account now."""
        ...

    def move_account(
        self, account_id: str, *, parent_id: str | None, start_ms: int | None, by: str
    ) -> Account:
        """Give an account a new parent from `start_ms` on; None means the next edge."""
        ...

    def close_account(self, account_id: str, *, by: str) -> Account:
        """Close an account now."""
        ...

    def create_key(
        self,
        minted: MintedKey,
        *,
        account_id: str | None,
        scopes: tuple[Scope, ...],
        description: str,
        by: str,
        certificate_name: str | None = None,
    ) -> ApiKey:
        """Keep a new API key."""
        ...

    def rotate_key(self, key_id: str, minted: MintedKey, *, grace_seconds: int, by: str) -> ApiKey:
        """Keep a successor of an API key, which itself ends after the grace."""
        ...

    def revoke_key(self, key_id: str, *, by: str) -> ApiKey:
        """End an API key now, if it has not ended before."""
        ...

    def find_key(self, key_id: str) -> ApiKey | None:
        """Return an API key, ended or not."""
        ...

    def list_keys(self, *, owners: Collection[str] | None) -> list[ApiKey]:
        """Return the keys of these accounts, oldest first; all keys for None."""
        ...


class AccountServicer(pb_grpc.AccountServiceServicer):
    """Answers AccountService; raises MeterError, which the server's interceptor translates.

    Calls of the store block and so run in threads.
    """

    def __init__(
        self,
        *,
        store: Accounts,
        registry: Registry,
        door: RegistryDoor,
        clock: Clock,
        key_pepper: bytes,
        random_bytes: RandomBytes,
    ) -> None:
        self._store = store
        self._registry = registry
        self._door = door
        self._clock = clock
        self._key_pepper = key_pepper
        self._random_bytes = random_bytes
        # The last list of accounts in order, with what it was made of: the next page needs it too.
        self._ordered: tuple[object, list[Place]] = (None, [])

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, _context: _Context
    ) -> pb.CreateAccountResponse:
        """Create an account."""
        parent_id = request.parent or None
        caller = self._door.admit(parent_id)
        account_id = request.account or draw_account_id(self._random_bytes)
        account = await self._change(
            lambda: self._store.create_account(
                account_id, handle=request.handle, parent_id=parent_id, by=caller.key_id
            )
        )
        return pb.CreateAccountResponse(account=self._account_to_pb(account))

    async def GetAccount(
        self, request: pb.GetAccountRequest, _context: _Context
    ) -> pb.GetAccountResponse:
        """One account."""
        account_id = _required("account", request.account)
        self._door.admit(account_id)
        account = self._registry.snapshot.tree.get(account_id)
        return pb.GetAccountResponse(account=self._account_to_pb(account))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, _context: _Context
    ) -> pb.ListAccountsResponse:
        """The accounts that the caller may read, by path."""
        now_ms = self._clock.now_ms()
        page_size = page_size_from_pb(request.page_size)
        after = place_from_token(request.page_token)
        roots = self._roots(request.account)
        snapshot = self._registry.snapshot
        if request.path:
            order = _find_place(snapshot.tree, request.path, roots=roots, now_ms=now_ms)
        else:
            # Sorting a hundred thousand paths takes a good part of a second.
            order = await asyncio.to_thread(self._order, snapshot, roots=roots, now_ms=now_ms)
        first = bisect_right(order, after) if after else 0
        page = order[first : first + page_size]
        return pb.ListAccountsResponse(
            accounts=[
                account_to_pb(
                    snapshot.tree.get(account_id), path=PATH_SEPARATOR.join(handles), now_ms=now_ms
                )
                for handles, account_id in page
            ],
            next_page_token=place_to_token(page[-1]) if first + page_size < len(order) else "",
        )

    async def MoveAccount(
        self, request: pb.MoveAccountRequest, _context: _Context
    ) -> pb.MoveAccountResponse:
        """Put an account under another parent."""
        account_id = _required("account", request.account)
        start_ms = edge_from_pb(request.start_time) if request.HasField("start_time") else None
        parent_id = request.parent or None
        # The account first: a foreign one is refused alike, whatever its parent is.
        concerned = [account_id, parent_id]
        account = self._registry.snapshot.tree.find(account_id)
        if account is not None:
            # Its parent now, and the one that it would otherwise have then.
            now_ms = self._clock.now_ms()
            times_ms = (now_ms, next_edge_ms(now_ms) if start_ms is None else start_ms)
            concerned += [account.parent_at(at_ms) for at_ms in times_ms]
        caller = self._door.admit_to_all(concerned)
        account = await self._change(
            lambda: self._store.move_account(
                account_id, parent_id=parent_id, start_ms=start_ms, by=caller.key_id
            )
        )
        return pb.MoveAccountResponse(account=self._account_to_pb(account))

    async def CloseAccount(
        self, request: pb.CloseAccountRequest, _context: _Context
    ) -> pb.CloseAccountResponse:
        """Close an account."""
        account_id = _required("account", request.account)
        caller = self._door.admit(account_id)
        account = await self._change(
            lambda: self._store.close_account(account_id, by=caller.key_id)
        )
        return pb.CloseAccountResponse(account=self._account_to_pb(account))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, _context: _Context
    ) -> pb.CreateApiKeyResponse:
        """Create an API key."""
        scopes = scopes_from_pb(request.scopes)
        owner = request.account or None
        name = request.certificate_name or None
        # Certificates' names are everybody's: whoever binds one could take another's for its own.
        bound: list[str | None] = [] if name is None else [None]
        concerned = [owner, *(scope.account_id for scope in scopes), *bound]
        caller = self._door.admit_to_all(concerned)
        if name is None:
            minted = mint_key(self._random_bytes, pepper=self._key_pepper)
        else:
            minted = bind_key(self._random_bytes, name=name, pepper=self._key_pepper)
        key = await self._change(
            lambda: self._store.create_key(
                minted,
                account_id=owner,
                scopes=scopes,
                description=request.description,
                by=caller.key_id,
                certificate_name=name,
            )
        )
        return pb.CreateApiKeyResponse(key=key_to_pb(key), secret=minted.text)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, _context: _Context
    ) -> pb.ListApiKeysResponse:
        """The keys of an account, or of all that the caller may administer."""
        now_ms = self._clock.now_ms()
        roots = self._roots(request.account)
        tree = self._registry.snapshot.tree
        owners: Collection[str] | None
        if request.account:
            owners = [tree.get(request.account).account_id]
        elif None in roots:
            owners = None
        else:
            owners = _subtrees(tree, roots, now_ms=now_ms)
        keys = await asyncio.to_thread(self._store.list_keys, owners=owners)
        return pb.ListApiKeysResponse(keys=map(key_to_pb, keys))

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, _context: _Context
    ) -> pb.RotateApiKeyResponse:
        """Create a successor of a key."""
        old = await self._get_key(request.key_id)
        # The caller will hold the successor, and so be able to do what it may do.
        reach = [scope.account_id for scope in old.credential.scopes]
        caller = self._door.admit_to_all([old.credential.account_id, *reach])
        minted = mint_key(self._random_bytes, pepper=self._key_pepper)
        key = await self._change(
            lambda: self._store.rotate_key(
                old.key_id, minted, grace_seconds=request.grace_seconds, by=caller.key_id
            )
        )
        return pb.RotateApiKeyResponse(key=key_to_pb(key), secret=minted.text)

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, _context: _Context
    ) -> pb.RevokeApiKeyResponse:
        """End a key now."""
        old = await self._get_key(request.key_id)
        caller = self._door.admit(old.credential.account_id)
        key = await self._change(lambda: self._store.revoke_key(old.key_id, by=caller.key_id))
        return pb.RevokeApiKeyResponse(key=key_to_pb(key))

    def _roots(self, account_id: str) -> list[str | None]:
        """Return the tops of what the caller sees: of this account, or of all when it is empty."""
        if not account_id:
            return self._door.roots()
        self._door.admit(account_id)
        return [account_id]

    async def _get_key(self, key_id: str) -> ApiKey:
        """Return a key; one that does not exist looks like one that the caller may not see."""
        key = await asyncio.to_thread(self._store.find_key, key_id) if is_key_id(key_id) else None
        if key is None:
            self._door.admit(None)
            raise NotFound(Reason.API_KEY_NOT_FOUND, "No API key has this id.")
        return key

    async def _change(self, change: Callable[[], _Result]) -> _Result:
        """Run a change of the store in a thread; what it changed holds here at once."""
        result = await asyncio.to_thread(change)
        self._registry.adopt()
        return result

    def _account_to_pb(self, account: Account) -> pb.Account:
        now_ms = self._clock.now_ms()
        path = self._registry.snapshot.tree.path(account.account_id, at_ms=now_ms)
        return account_to_pb(account, path=path, now_ms=now_ms)

    def _order(
        self, snapshot: RegistrySnapshot, *, roots: list[str | None], now_ms: int
    ) -> list[Place]:
        """Return where the accounts of these subtrees stand, by path."""
        made_of = (snapshot.version, interval_start_ms(now_ms), frozenset(roots))
        known, order = self._ordered
        if known != made_of:
            tree = snapshot.tree
            order = sorted(
                _place(tree, account_id, now_ms=now_ms)
                for account_id in _subtrees(tree, roots, now_ms=now_ms)
            )
            self._ordered = (made_of, order)
        return order


def _find_place(
    tree: AccountTree, path: str, *, roots: list[str | None], now_ms: int
) -> list[Place]:
    """Return where the account of this path stands; nothing when it is not in these subtrees."""
    account = tree.find_by_path(path, at_ms=now_ms)
    if account is None:
        return []
    account_id = account.account_id
    if not any(tree.is_within(account_id, root, at_ms=now_ms) for root in roots):
        return []
    return [_place(tree, account_id, now_ms=now_ms)]


def _place(tree: AccountTree, account_id: str, *, now_ms: int) -> Place:
    line = tree.ancestry(account_id, at_ms=now_ms)
    return tuple(account.handle for account in reversed(line)), account_id


def _subtrees(tree: AccountTree, roots: Iterable[str | None], *, now_ms: int) -> frozenset[str]:
    return frozenset().union(*(tree.subtree(root, at_ms=now_ms) for root in roots))


def _required(field: str, value: str) -> str:
    if not value:
        raise invalid_argument(field, "must not be empty")
    return value
