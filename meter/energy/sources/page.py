"""Fetches an exporter's page over HTTP, within a time and a size, and reads a line of it."""

import http.client
import io
import socket
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as PageSample

from meter.domain.limits import ENERGY_LINE_CHARS_MAX, ENERGY_PAGE_BYTES_MAX
from meter.energy.sources.port import SourceFailed, SourceFailure

_PORT: Final = 80
_REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
)


def fetch_page(url: str, *, seconds_max: float, monotonic_seconds: Callable[[], float]) -> str:
    """Return a page; all of it takes at most `seconds_max`. Raises SourceFailed."""
    end = monotonic_seconds() + seconds_max
    try:
        body = _fetch(url, left_seconds=lambda: end - monotonic_seconds())
    except (OSError, http.client.HTTPException) as error:
        raise SourceFailed(SourceFailure.UNREACHABLE) from error
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceFailed(SourceFailure.UNREADABLE) from error


def find_name(line: str, names: Iterable[str]) -> str | None:
    """Return which of these metrics a line of a page is of, None when it is of another one."""
    for name in names:
        if line.startswith(name) and line[len(name) : len(name) + 1] in {"{", " ", "\t", ""}:
            return name
    return None


def read_line(line: str) -> PageSample:
    """Return the one sample of a line; raises ValueError or IndexError where it makes no sense.

    A line at a time: one that is torn does not take the others with it.
    """
    if len(line) > ENERGY_LINE_CHARS_MAX:
        raise ValueError("no line of an exporter")
    ((sample,),) = (family.samples for family in text_string_to_metric_families(line))
    return sample


def _fetch(url: str, *, left_seconds: Callable[[], float]) -> bytes:
    place = urlsplit(url)
    assert place.scheme == "http", "settings take nothing else"
    path = f"{place.path or '/'}?{place.query}" if place.query else place.path or "/"
    request = _REQUEST.format(path=path, host=place.netloc)
    address = (place.hostname or "", place.port or _PORT)
    with socket.create_connection(address, timeout=left_seconds()) as connection:
        connection.sendall(request.encode("ascii"))
        answer = http.client.HTTPResponse(_Timed(connection, left_seconds))  # type: ignore[arg-type]  # all it wants is a file
        with answer:
            answer.begin()
            if answer.status != http.HTTPStatus.OK:
                raise SourceFailed(SourceFailure.REFUSED)
            body = answer.read(ENERGY_PAGE_BYTES_MAX + 1)
            if len(body) > ENERGY_PAGE_BYTES_MAX:
                raise SourceFailed(SourceFailure.TOO_LARGE)
            if answer.length:
                raise http.client.IncompleteRead(body, answer.length)
    return body


class _Timed(io.RawIOBase):
    """A connection's bytes, as long as there is time: one byte a second never ends otherwise."""

    def __init__(self, connection: socket.socket, left_seconds: Callable[[], float]) -> None:
        self._connection = connection
        self._left_seconds = left_seconds

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return itself, as a socket does."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        """Wait for bytes, no longer than there is time; raises TimeoutError."""
        left = self._left_seconds()
        if left <= 0:
            raise TimeoutError("the exporter takes too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
