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

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW, _MAX_FRAME = 4, 5
_HEADER_BYTES: Final = 9
_WINDOW_BYTES: Final = 65_535
_WINDOW_BYTES_MAX: Final = 2**31 - 1
_SEVEN_BITS: Final = 127
_READ_BYTES: Final = 262_144
_PREFIX: Final = struct.Struct(">BI")
_SETTING: Final = struct.Struct(">HI")
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
            link.write_frame(_DATA, 0, self._number, first[:size])
            link.window -= size
            self.window -= size
            if size == len(first):
                waiting.popleft()
            else:
                waiting[0] = first[size:]
        if self._is_ending:
            self._is_ending = False
            link.write_frame(_DATA, _END_STREAM, self._number, b"")

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
        self._target = target
        self._calls: dict[int, Call] = {}
        self._next_number = 1
        self._out: list[bytes | memoryview] = []
        self._unsent = b""
        self._unread = bytearray()
        self.window = self.call_window = _WINDOW_BYTES
        self.frame_bytes_max = 16_384
        self._out.append(_PREFACE)
        self.write_frame(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW, _WINDOW_BYTES_MAX))
        self.write_frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_BYTES_MAX - _WINDOW_BYTES))

    @property
    def call_count(self) -> int:
        """How many calls were made on it."""
        return len(self._calls)

    def call(self, path: str, metadata: Sequence[tuple[str, str]], *, hear: _Hear) -> Call:
        """Begin a call of a method."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._target),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        ]
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)
        number, self._next_number = self._next_number, self._next_number + 2
        made = self._calls[number] = Call(self, number, hear=hear)
        self.write_frame(_HEADERS, _END_HEADERS, number, block)
        return made

    def write_frame(self, kind: int, flags: int, number: int, body: bytes | memoryview) -> None:
        """Queue a frame."""
        self._out.append(struct.pack(">IBI", len(body) << 8 | kind, flags, number))
        self._out.append(body)

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
        while len(unread) - place >= _HEADER_BYTES:
            size = int.from_bytes(unread[place : place + 3], "big")
            end = place + _HEADER_BYTES + size
            if end > len(unread):
                break
            number = int.from_bytes(unread[place + 5 : place + 9], "big") & _WINDOW_BYTES_MAX
            body = bytes(unread[place + _HEADER_BYTES : end])
            self._take(unread[place + 3], unread[place + 4], number, body)
            place = end
        del unread[:place]

    def _take(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == _DATA:
            self._calls[number].take(body)
            if body:
                # Room for what comes, as much as came; of a call there is more than it ever sends.
                self.write_frame(_WINDOW, 0, 0, struct.pack(">I", len(body)))
        elif kind == _WINDOW:
            self._widen(number, int.from_bytes(body, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settle(body)
        elif kind == _PING and not flags & _ACK:
            self.write_frame(_PING, _ACK, 0, body)
        elif kind == _HEADERS and flags & _END_STREAM:
            self._calls[number].is_over = True
            if not self._calls[number].is_ended:
                # The status stands in there, for a person to read: gRPC writes it as plain text.
                raise RuntimeError(f"the server has ended a call: {body!r}")
        elif kind in {_RESET, _GOAWAY}:
            raise RuntimeError(f"the server ends a call or all of them: {body!r}")

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
        self.write_frame(_SETTINGS, _ACK, 0, b"")
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


def _text(text: str) -> bytes:
    """Return a text as a header has it, RFC 7541 §5: its length in seven bits, or beginning so."""
    data = text.encode()
    if len(data) < _SEVEN_BITS:
        return bytes([len(data)]) + data
    rest, length = len(data) - _SEVEN_BITS, bytearray([_SEVEN_BITS])
    while rest > _SEVEN_BITS:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + data
