"""Openings of streams under new names, faster than a library makes them.

All that is sent is made up before, and of what is answered only the frames' heads are read: so the
attack takes little of a machine's time, and whoever is slow is the meter.
"""

import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from benchmarks.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PREFACE,
    Kind,
    frame,
    read_head,
    stream_headers,
)
from tests.faults.reporter import Orders
from tokenworks.meter.v1 import meter_service_pb2 as pb

_CONNECTIONS: Final = 32
# A server takes 128 of a connection, those included that are left and not yet cleared away.
_STREAMS: Final = 96
_NAMES: Final = 40_000
_TICK_SECONDS: Final = 0.02
LINE_SECONDS: Final = 0.5
# What the meter says to whoever is refused. Others are turned away by gRPC: it has room for so many
# streams of a connection, and for so many calls that nobody has looked at yet.
_REFUSAL: Final = b"reached its bound of openings"
# Whoever is turned away would be so again at once.
_TURNED_AWAY_SECONDS: Final = 0.25
_CONNECT_SECONDS_MAX: Final = 20
_READ_BYTES: Final = 1 << 18
_WINDOW_BYTES: Final = (1 << 31) - 1 - 65_535
_CANCEL: Final = struct.pack(">I", 8)


@dataclass(kw_only=True, slots=True)
class Counts:
    """How often a stream was tried, opened, refused at its key's bound, and turned away by gRPC."""

    tried: int = 0
    opened: int = 0
    refused: int = 0
    turned_away: int = 0


@dataclass(kw_only=True)
class _Peer:
    """One connection, with as many streams at a time as it keeps."""

    link: socket.socket
    headers: bytes
    counts: Counts
    is_over: bool = False
    open: set[int] = field(default_factory=set)
    _next: int = 1
    _resume_seconds: float = 0.0
    _unread: bytes = b""
    _unsent: bytes = b""

    def begin(self) -> None:
        """Say what a client says first; answers may come without a limit."""
        self._unsent = (
            PREFACE
            + frame(b"", kind=Kind.SETTINGS, stream=0)
            + frame(struct.pack(">I", _WINDOW_BYTES), kind=Kind.WINDOW_UPDATE, stream=0)
        )

    def fill(self, messages: Iterator[bytes]) -> None:
        """Open streams until there are as many as there may be, and send what there is to send."""
        parts = [self._unsent]
        is_waiting = time.monotonic() < self._resume_seconds
        while len(self.open) < _STREAMS and not is_waiting:
            stream, self._next = self._next, self._next + 2
            self.open.add(stream)
            self.counts.tried += 1
            parts += (
                frame(self.headers, kind=Kind.HEADERS, flags=END_HEADERS, stream=stream),
                frame(next(messages), kind=Kind.DATA, stream=stream),
            )
        self._unsent = b"".join(parts)
        try:
            self._unsent = self._unsent[self.link.send(self._unsent) :]
        except BlockingIOError:
            # The meter reads no more of it just now.
            pass
        except OSError:
            self.is_over = True

    def hear(self) -> None:
        """Read what was answered: who is in leaves at once."""
        try:
            read = self.link.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        self.is_over = not read
        self._unread += read
        while len(self._unread) >= HEAD_BYTES:
            length, kind, flags, stream = read_head(self._unread[:HEAD_BYTES])
            if len(self._unread) < HEAD_BYTES + length:
                return
            payload = self._unread[HEAD_BYTES : HEAD_BYTES + length]
            self._unread = self._unread[HEAD_BYTES + length :]
            self._take(kind, flags=flags, stream=stream, payload=payload)

    def _take(self, kind: int, *, flags: int, stream: int, payload: bytes) -> None:
        if kind in (Kind.SETTINGS, Kind.PING) and not flags & ACK:
            answer = payload if kind == Kind.PING else b""
            self._unsent += frame(answer, kind=Kind(kind), flags=ACK, stream=0)
        elif kind == Kind.GOAWAY:
            self.is_over = True
        elif stream in self.open:
            if kind == Kind.DATA:
                self.counts.opened += 1
                self._unsent += frame(_CANCEL, kind=Kind.RST_STREAM, stream=stream)
            elif kind == Kind.HEADERS and flags & END_STREAM and _REFUSAL in payload:
                self.counts.refused += 1
            elif kind == Kind.RST_STREAM or flags & END_STREAM:
                self.counts.turned_away += 1
                self._resume_seconds = time.monotonic() + _TURNED_AWAY_SECONDS
            else:
                return
            self.open.discard(stream)


def open_new(orders: Orders) -> Iterator[str]:
    """Open streams under names that nobody has heard of, and leave them when they are open.

    Yields `flood`, how many were answered in half a second, how many of them were refused at the
    bound of openings, how many were tried, and how many gRPC turned away.
    """
    assert orders.api_key is not None, "it has a valid key"
    headers = stream_headers(orders.api_key)
    messages = _messages()
    counts = Counts()
    told_seconds = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(_CONNECTIONS):
            _connect(orders, selector=selector, headers=headers, counts=counts)
        while True:
            for key, _ in selector.select(_TICK_SECONDS):
                key.data.hear()
            for key in list(selector.get_map().values()):
                key.data.fill(messages)
                if key.data.is_over:
                    selector.unregister(key.fileobj)
                    key.data.link.close()
                    _connect(orders, selector=selector, headers=headers, counts=counts)
            if time.monotonic() - told_seconds >= LINE_SECONDS:
                told_seconds += LINE_SECONDS
                answered = counts.opened + counts.refused
                yield f"flood {answered} {counts.refused} {counts.tried} {counts.turned_away}"
                counts.tried = counts.opened = counts.refused = counts.turned_away = 0


def _connect(
    orders: Orders, *, selector: selectors.BaseSelector, headers: bytes, counts: Counts
) -> None:
    host, _, port = orders.target.rpartition(":")
    link = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS_MAX)
    link.settimeout(0)
    peer = _Peer(link=link, headers=headers, counts=counts)
    peer.begin()
    selector.register(link, selectors.EVENT_READ, peer)


def _messages() -> Iterator[bytes]:
    """Yield first messages of streams, each with a name of its own; the first ones lie ready."""
    ready = [_message() for _ in range(_NAMES)]
    while ready:
        yield ready.pop()
    while True:
        yield _message()


def _message() -> bytes:
    opening = pb.OpenStream(producer=f"new-{os.urandom(8).hex()}", instance=os.urandom(16))
    body = pb.StreamUsageRequest(open=opening).SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body
