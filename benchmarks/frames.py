"""HTTP/2 written by hand, for clients that no library would be (RFC 9113 and 7541)."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
ACK: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4
STREAM_USAGE: Final = "/tokenworks.meter.v1.MeterService/StreamUsage"


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


def frame(payload: bytes, *, kind: Kind, flags: int = 0, stream: int = 1) -> bytes:
    """Return a frame; connections themselves are stream 0."""
    return make_head(len(payload), kind=kind, flags=flags, stream=stream) + payload


def make_head(size_bytes: int, *, kind: Kind, flags: int = 0, stream: int) -> bytes:
    """Return what a frame of so many bytes begins with."""
    return struct.pack(">IBI", size_bytes << 8 | kind, flags, stream)


def read_head(head: bytes | bytearray) -> tuple[int, int, int, int]:
    """Return the length in bytes, the kind, the flags and the stream of a frame."""
    high, low, kind, flags, stream = struct.unpack(">BHBBI", head)
    return high << 16 | low, kind, flags, stream & 0x7FFFFFFF


def stream_headers(api_key: str) -> bytes:
    """Return the block of headers that opens a producer's stream; it is the same every time."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": STREAM_USAGE,
        ":authority": "meter",
        "te": "trailers",
        "content-type": "application/grpc",
        "authorization": f"Bearer {api_key}",
    }
    # A literal that is never indexed, neither part of it compressed (RFC 7541, 6.2.3).
    return b"".join(b"\x10" + _hpack(name) + _hpack(value) for name, value in headers.items())


def _hpack(text: str) -> bytes:
    assert len(text) < 127, "a longer one needs more than a byte for its length"
    return bytes([len(text)]) + text.encode("ascii")
