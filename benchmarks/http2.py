"""As much of HTTP/2 as a load needs to speak gRPC: many streams on a socket, without a thread each.

gRPC's library for Python takes more of a core for each small message than the server that the load
is for. What is sent is the same to the byte: frames of RFC 9113, headers of RFC 7541 in plain text,
messages as gRPC frames them. Flow control is kept to; there is no TLS.
"""

import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    PREFACE,
    Kind,
    make_head,
    read_head,
)

_INITIAL_WINDOW, _MAX_FRAME = 4, 5
_WINDOW_BYTES: Final = 65_535
_WINDOW_BYTES_MAX: Final = 2**31 - 1
_READ_BYTES: Final = 262_144
_PREFIX: Final = struct.Struct(">BI")
_SETTING: Final = struct.Struct(">HI")
_SIZE: Final = struct.Struct(">I")
_Hear = Callable[[bytes], None]


class Call:
    """One stream of messages in both directions."""

    def __init__(self, link: "Link", number: int, *, hear: _Hear) -> None:
        """Begin; `hear` is called with each message that comes."""
        self._link = link
        self._number = number
        self._hear = hear
        self._waiting: deque[memoryview] = deque()
        self._unread = b""
        self._is_ending = False
        self.is_ended = False
        """Whether nothing more is sent."""
        self.window = link.call_window
        self.is_over = False
        """Whether the other side has ended it."""

    def send(self, message: bytes) -> None:
        """Send a message, as far as there is room, and the rest when there is."""
        self._waiting.append(memoryview(_PREFIX.pack(0, len(message)) + message))
        self.push()

    def end(self) -> None:
        """Send nothing more."""
        self._is_ending = self.is_ended = True
        self.push()

    def push(self) -> None:
        """Put into frames what waits and has room."""
        link, waiting = self._link, self._waiting
        while waiting:
            first = waiting[0]
            size = min(len(first), link.frame_bytes_max, self.window, link.window)
            if size <= 0:
                return
            link.write(first[:size], kind=Kind.DATA, stream=self._number)
            link.window -= size
            self.window -= size
            if size == len(first):
                waiting.popleft()
            else:
                waiting[0] = first[size:]
        if self._is_ending:
            self._is_ending = False
            link.write(b"", kind=Kind.DATA, flags=END_STREAM, stream=self._number)

    def take(self, data: bytes) -> None:
        """Take bytes of messages."""
        data = self._unread + data if self._unread else data
        place = 0
        while len(data) - place >= _PREFIX.size:
            _, size = _PREFIX.unpack_from(data, place)
            end = place + _PREFIX.size + size
            if end > len(data):
                break
            self._hear(data[place + _PREFIX.size : end])
            place = end
        self._unread = data[place:]


class Link:
    """A connection; raises RuntimeError where the other side refuses."""

    def __init__(self, target: str) -> None:
        """Connect to `host:port`."""
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self._calls: dict[int, Call] = {}
        self._next_number = 1
        self._out: list[bytes | memoryview] = []
        self._unsent = b""
        self._unread = bytearray()
        self.window = self.call_window = _WINDOW_BYTES
        self.frame_bytes_max = 16_384
        self._out.append(PREFACE)
        self.write(_SETTING.pack(_INITIAL_WINDOW, _WINDOW_BYTES_MAX), kind=Kind.SETTINGS)
        self.write(_SIZE.pack(_WINDOW_BYTES_MAX - _WINDOW_BYTES), kind=Kind.WINDOW_UPDATE)

    def call(self, headers: bytes, *, hear: _Hear) -> Call:
        """Begin a call, of the block of headers that opens it."""
        number, self._next_number = self._next_number, self._next_number + 2
        made = self._calls[number] = Call(self, number, hear=hear)
        self.write(headers, kind=Kind.HEADERS, flags=END_HEADERS, stream=number)
        return made

    def write(
        self, payload: bytes | memoryview, *, kind: Kind, flags: int = 0, stream: int = 0
    ) -> None:
        """Queue a frame, of a stream or of the connection."""
        self._out.append(make_head(len(payload), kind=kind, flags=flags, stream=stream))
        self._out.append(payload)

    def flush(self) -> bool:
        """Send what is queued; tell whether all of it is sent."""
        if self._out:
            self._unsent = b"".join([self._unsent, *self._out])
            self._out.clear()
        if self._unsent:
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return not self._unsent

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise RuntimeError("the server has closed the connection")
        self._unread += data
        place, unread = 0, self._unread
        while len(unread) - place >= HEAD_BYTES:
            size, kind, flags, stream = read_head(unread[place : place + HEAD_BYTES])
            begin = place + HEAD_BYTES
            if begin + size > len(unread):
                break
            place = begin + size
            self._take(kind, flags=flags, stream=stream, payload=bytes(unread[begin:place]))
        del unread[:place]

    def _take(self, kind: int, *, flags: int, stream: int, payload: bytes) -> None:
        if kind == Kind.DATA:
            self._calls[stream].take(payload)
            if payload:
                # Room for what comes, as much as came; of a call there is more than it ever sends.
                self.write(_SIZE.pack(len(payload)), kind=Kind.WINDOW_UPDATE)
        elif kind == Kind.WINDOW_UPDATE:
            self._widen(stream, *_SIZE.unpack(payload))
        elif kind == Kind.SETTINGS and not flags & ACK:
            self._settle(payload)
        elif kind == Kind.PING and not flags & ACK:
            self.write(payload, kind=Kind.PING, flags=ACK)
        elif kind == Kind.HEADERS and flags & END_STREAM:
            self._calls[stream].is_over = True
            if not self._calls[stream].is_ended:
                # The status stands in there, for a person to read: gRPC writes it as plain text.
                raise RuntimeError(f"the server has ended a call: {payload!r}")
        elif kind in {Kind.RST_STREAM, Kind.GOAWAY}:
            raise RuntimeError(f"the server ends a call or all of them: {payload!r}")

    def _widen(self, number: int, size: int) -> None:
        if number:
            self._calls[number].window += size
            self._calls[number].push()
            return
        self.window += size
        for call in self._calls.values():
            call.push()

    def _settle(self, body: bytes) -> None:
        for name, value in _SETTING.iter_unpack(body):
            if name == _INITIAL_WINDOW:
                more, self.call_window = value - self.call_window, value
                for call in self._calls.values():
                    call.window += more
            elif name == _MAX_FRAME:
                self.frame_bytes_max = value
        self.write(b"", kind=Kind.SETTINGS, flags=ACK)
        for call in self._calls.values():
            call.push()


class Links:
    """Connections that are served together."""

    def __init__(self, links: Sequence[Link]) -> None:
        """Take the connections."""
        self._links = {link.socket.fileno(): link for link in links}
        self._poll = select.epoll()
        self._is_full: set[int] = set()
        for number in self._links:
            self._poll.register(number, select.EPOLLIN)

    def serve(self, seconds: float) -> None:
        """Send what is queued, and take what comes within `seconds`."""
        for number, link in self._links.items():
            if link.flush() == (number in self._is_full):
                self._is_full ^= {number}
                wanted = select.EPOLLIN | (select.EPOLLOUT if number in self._is_full else 0)
                self._poll.modify(number, wanted)
        for number, events in self._poll.poll(max(0.0, seconds)):
            if events & ~select.EPOLLOUT:
                self._links[number].read()

    def close(self) -> None:
        """End all connections."""
        for link in self._links.values():
            link.socket.close()
        self._poll.close()
