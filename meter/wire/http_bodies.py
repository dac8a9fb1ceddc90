"""The body of a report by HTTP: read whole, unpacked, and never larger than its bounds."""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from meter.domain import limits
from meter.domain.errors import MeterError, Overloaded, Reason
from meter.wire.status import invalid, unreadable

_Read = TypeVar("_Read")
_PIECE_BYTES: Final = 64 * 1024
# What is larger is made sense of on a thread: the loop serves others meanwhile.
_SMALL_BYTES_MAX: Final = 64 * 1024
# What zlib takes for gzip with its head and its sum.
_GZIP: Final = 16 + zlib.MAX_WBITS


class BodyFault(Exception):
    """A request that is refused with a status of its own."""

    def __init__(self, status: int, error: MeterError) -> None:
        """Take the status of HTTP, and the error that is told."""
        super().__init__(error.message)
        self.status = status
        self.error = error


class Body:
    """The body of one request, as far as it was not read yet."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        """Take the request as WSGI has it."""
        self._environ = environ
        self._missing: int | None = None

    def read(self, *, bytes_max: int, monotonic_seconds: Callable[[], float]) -> bytes:
        """Return it whole, unpacked where it is gzip; raises BodyFault, or Overloaded if too large.

        All of it has to come within `HTTP_BODY_SECONDS_MAX`.
        """
        self._missing = length = _length(self._environ)
        if length > bytes_max:
            raise _too_large(bytes_max)
        encoding = str(self._environ.get("HTTP_CONTENT_ENCODING") or "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise BodyFault(415, invalid("content-encoding", "gzip, or none"))
        end = monotonic_seconds() + limits.HTTP_BODY_SECONDS_MAX
        pieces = []
        while self._missing:
            piece = self._read_some()
            if not piece or monotonic_seconds() > end:
                raise BodyFault(408, unreadable())
            pieces.append(piece)
        body = b"".join(pieces)
        return unpack(body, bytes_max=bytes_max) if encoding == "gzip" else body

    def drain(self, *, bytes_max: int) -> None:
        """Read what was sent and is not wanted, if it is no more than so much.

        A socket that is closed over bytes that nobody read loses the answer on its way.
        """
        try:
            if self._missing is None:
                self._missing = _length(self._environ)
            while 0 < self._missing <= bytes_max and self._read_some():
                pass
        except BodyFault:
            return

    def _read_some(self) -> bytes:
        assert self._missing is not None
        try:
            size_bytes = min(self._missing, _PIECE_BYTES)
            piece: bytes = self._environ["wsgi.input"].read1(size_bytes)
        except OSError as error:
            raise BodyFault(408, unreadable()) from error
        self._missing -= len(piece)
        return piece


def unpack(packed: bytes, *, bytes_max: int) -> bytes:
    """Return what was packed by gzip; raises InvalidArgument, or Overloaded if too large."""
    reader = zlib.decompressobj(_GZIP)
    try:
        body = reader.decompress(packed, bytes_max + 1)
    except zlib.error as error:
        raise unreadable() from error
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    if not reader.eof or reader.unused_data:
        raise unreadable()
    return body


async def make_sense(read: Callable[[], _Read], *, size_bytes: int) -> _Read:
    """Return what is read of a body of so many bytes; runs on the event loop."""
    return read() if size_bytes <= _SMALL_BYTES_MAX else await asyncio.to_thread(read)


def check_count(count: int, *, noun: str) -> None:
    """Raise Overloaded where a body has more of what is named than one call may bring."""
    if count > limits.BATCH_EVENTS_MAX:
        raise Overloaded(
            Reason.MESSAGE_TOO_LARGE,
            f"The call has {count} {noun}. Send at most {limits.BATCH_EVENTS_MAX}.",
        )


def _length(environ: Mapping[str, Any]) -> int:
    written = str(environ.get("CONTENT_LENGTH") or "")
    if not written.isdecimal() or not written.isascii() or "HTTP_TRANSFER_ENCODING" in environ:
        raise BodyFault(411, invalid("content-length", "the number of the body's bytes"))
    return int(written[:18])


def _too_large(bytes_max: int) -> Overloaded:
    return Overloaded(
        Reason.MESSAGE_TOO_LARGE,
        f"The body has too many bytes. Send at most {bytes_max}, unpacked.",
        limit_bytes=str(bytes_max),
    )
