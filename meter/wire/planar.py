"""UsagePlanes to events: the columns as the journal packs them, accounts and services apart.

A batch of ten thousand events names each of its accounts once, and few services. Which dimensions
a pair of them is, is remembered in one array, so that most events cost a look into it and no more.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from meter.domain import limits
from meter.domain.event import Int64Array, IntArray
from meter.domain.outcome import Outcome
from meter.planes import from_columns, span_of
from meter.wire.packed import EXTRA, UnusableBatch
from tokenworks.meter.v1 import usage_pb2

_UNKNOWN: Final = -1
# Where a batch has so many events for each account that it names, it names the same ones as the
# batch before; where it has fewer, its list hardly comes again.
_EVENTS_PER_ACCOUNT_MIN: Final = 8
# Shorter lists are looked up as soon as they are found; of so many names in all lists are kept.
_LISTED_MIN: Final = 256
_LISTED_MAX: Final = 16 * limits.BATCH_DIMENSIONS_MAX
_ROOM: Final = 64
# Beyond it a column says nothing that a check would take for valid, and sums could overflow.
_HALF_BYTES_MAX: Final = 14
_BASE_MAX: Final = 2**60
_PLACE: Final = struct.Struct("=i")
PLACE_BYTES: Final = _PLACE.size
_HandleArray = npt.NDArray[np.int32]


class PairMemory:
    """Which handle of a table a service and an account are; grows until it is forgotten whole."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        # Places as bytes: many are joined sooner than an array is made of as many numbers.
        self._accounts: dict[bytes, bytes] = {}
        self._services: dict[bytes, bytes] = {}
        self._lists: dict[tuple[bytes, bytes, int], tuple[Sequence[bytes], Int64Array]] = {}
        self.listed_count = 0
        self._handles: _HandleArray = np.full((_ROOM, _ROOM), _UNKNOWN, np.int32)

    def is_full(self) -> bool:
        """Tell whether it takes more memory than it is worth."""
        return self._handles.size > 16 * limits.DIMENSIONS_INTERNED_MAX

    def find(
        self,
        services: Sequence[bytes],
        accounts: Sequence[bytes],
        *,
        service: IntArray,
        account: IntArray,
        intern: Callable[[bytes, bytes], int],
    ) -> Int64Array:
        """Return each event's handle; `intern` gives that of a pair seen for the first time.

        `service` and `account` are places in the lists, from 0; raises UnusableBatch where one is
        beyond its list.
        """
        service_places = _places(self._services, services)
        account_places = self._account_places(accounts, event_count=len(account))
        self._make_room()
        # One look into a flat array for each event.
        try:
            place = (service_places * self._handles.shape[1]).take(service)
            place += account_places.take(account)
        except IndexError as error:
            raise UnusableBatch(Outcome.BATCH_MALFORMED) from error
        handles: _HandleArray = self._handles.ravel().take(place)
        if int(handles.min(initial=0)) == _UNKNOWN:
            missing = handles == _UNKNOWN
            # By their places in the batch, which both are below BATCH_DIMENSIONS_MAX.
            pairs = np.unique(service[missing].astype(np.int64) * len(accounts) + account[missing])
            for pair in pairs.tolist():
                of_service, of_account = divmod(pair, len(accounts))
                where = service_places[of_service], account_places[of_account]
                self._handles[where] = intern(services[of_service], accounts[of_account])
            handles = self._handles.ravel().take(place)
        return handles.astype(np.int64)

    def _account_places(self, names: Sequence[bytes], *, event_count: int) -> Int64Array:
        """Return the places of accounts; a long list that comes again is compared, not looked up.

        Whoever serves the same accounts names all of them in each large batch, in one order.
        """
        if not _LISTED_MIN <= len(names) <= event_count // _EVENTS_PER_ACCOUNT_MIN:
            return _places(self._accounts, names)
        key = names[0], names[-1], len(names)
        found = self._lists.get(key)
        if found is not None and found[0] == names:
            return found[1]
        places = _places(self._accounts, names)
        self.listed_count += len(names)
        if self.listed_count > _LISTED_MAX:
            self._lists, self.listed_count = {}, len(names)
        self._lists[key] = names, places
        return places

    def find_known(
        self, services: bytes, accounts: bytes, *, service: Int64Array, account: Int64Array
    ) -> Int64Array:
        """Return each event's handle, below 0 where its pair is not known.

        `services` and `accounts` are of `find_places`; `service` and `account` are places in them.
        What is beyond them says nothing.
        """
        self._make_room()
        rows = _to_places(services) * self._handles.shape[1]
        place = rows.take(service, mode="clip")
        place += _to_places(accounts).take(account, mode="clip")
        handles: Int64Array = self._handles.ravel().take(place).astype(np.int64)
        return handles

    def find_places(
        self, services: Sequence[bytes], accounts: Sequence[bytes]
    ) -> tuple[bytes, bytes] | None:
        """Return the places of services and accounts, `PLACE_BYTES` each.

        None where one is not known, or where there are none.
        """
        if not services or not accounts:
            return None
        try:
            # All at once: a call for each name costs as much as finding it.
            return b"".join(_take(self._services, services)), b"".join(
                _take(self._accounts, accounts)
            )
        except KeyError:
            return None

    def _make_room(self) -> None:
        rows, columns = self._handles.shape
        if len(self._services) <= rows and len(self._accounts) <= columns:
            return
        larger = np.full(
            (
                rows if len(self._services) <= rows else 2 * len(self._services),
                columns if len(self._accounts) <= columns else 2 * len(self._accounts),
            ),
            _UNKNOWN,
            np.int32,
        )
        larger[:rows, :columns] = self._handles
        self._handles = larger


class Sheet(NamedTuple):
    """The columns of a UsagePlanes as they came: by name or, of tokens, the class's number as text.

    The first three are the indexes of accounts and of services, and the offsets of the ends. Its
    `event_ids` are 16 bytes for each event, or none.
    """

    names: tuple[str, ...]
    half_bytes: list[int]
    bases: list[int]
    planes: list[bytes]
    event_ids: bytes


def read_sheet(message: Any) -> Sheet:  # noqa: ANN401
    """Return the columns of a UsagePlanes, of which only the planes are not looked at.

    Raises UnusableBatch, before anything large is made.
    """
    count = message.event_count
    if (
        not 0 <= count <= limits.BATCH_EVENTS_MAX
        or max(len(message.accounts), len(message.services)) > limits.BATCH_DIMENSIONS_MAX
        or len(message.tokens) > limits.BATCH_CLASSES_MAX
    ):
        raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
    names = ["account_index", "service_index", "end_offset_ms"]
    forms = [message.account_index, message.service_index, message.end_offset_ms]
    for name, said in EXTRA.items():
        if message.HasField(name):
            names.append(said)
            forms.append(getattr(message, name))
    for form in message.tokens:
        names.append(str(form.token_class))
        forms.append(form.counts)
    # Asked for once: each time it is a copy.
    event_ids = message.event_ids
    half_bytes = [form.half_bytes for form in forms]
    bases = [form.base for form in forms]
    if (
        len(set(names)) < len(names)
        or min(half_bytes) < 0
        or max(half_bytes) > _HALF_BYTES_MAX
        or min(bases) < -_BASE_MAX
        or max(bases) > _BASE_MAX
        or min(bases[:2]) < 0
        or len(message.request_id) not in {0, count}
        or len(event_ids) not in {0, count * limits.EVENT_ID_BYTES}
    ):
        raise UnusableBatch(Outcome.BATCH_MALFORMED)
    return Sheet(tuple(names), half_bytes, bases, [form.planes for form in forms], event_ids)


def read_numbers(
    sheet: Sheet, *, count: int
) -> tuple[dict[str, IntArray], dict[str, tuple[int, int]]]:
    """Return the columns of a sheet by name, `count` numbers each.

    With them come the spans in which all but the indexes lie. Indexes are not from the end; that
    they are in the lists is not looked at. Raises UnusableBatch.
    """
    names, half_bytes, bases, planes, _ = sheet
    try:
        columns = from_columns(planes, half_bytes=half_bytes, bases=bases, count=count)
    except ValueError as error:
        raise UnusableBatch(Outcome.BATCH_MALFORMED) from error
    spans = map(span_of, half_bytes[2:], bases[2:])
    return dict(zip(names, columns, strict=True)), dict(zip(names[2:], spans, strict=True))


def read_service(blob: bytes) -> usage_pb2.Dimensions:
    """Return what was served; raises DecodeError, or UnusableBatch where it names an account."""
    service = usage_pb2.Dimensions.FromString(blob)
    if service.account:
        raise UnusableBatch(Outcome.BATCH_MALFORMED)
    return service


def read_account(blob: bytes) -> str:
    """Return an account's text; raises UnusableBatch where it is not UTF-8."""
    try:
        return blob.decode()
    except UnicodeDecodeError as error:
        raise UnusableBatch(Outcome.BATCH_MALFORMED) from error


def _places(known: dict[bytes, bytes], names: Sequence[bytes]) -> Int64Array:
    try:
        return _to_places(b"".join(map(known.__getitem__, names)))
    except KeyError:
        if max(map(len, names)) > limits.DIMENSIONS_BYTES_REMEMBERED:
            raise UnusableBatch(Outcome.BATCH_MALFORMED) from None
        found = [known.setdefault(name, _PLACE.pack(len(known))) for name in names]
        return _to_places(b"".join(found))


def _take(known: dict[bytes, bytes], names: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return what is known of names, of which there is one at least; raises KeyError."""
    listed = names[:]
    return (known[listed[0]],) if len(listed) == 1 else itemgetter(*listed)(known)


def _to_places(joined: bytes) -> Int64Array:
    return np.frombuffer(joined, np.int32).astype(np.int64)
