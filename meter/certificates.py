"""The server's certificate: read from its files, and again when they change.

What is in use is always a pair that fits. A new one that cannot be used is named in the log, once,
and the old one stays: a connection is never refused for a file that somebody is just writing.
"""

import logging
import re
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_log = logging.getLogger(__name__)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# A file of many authorities; more than this is no certificate.
_FILE_BYTES_MAX: Final = 1024 * 1024

# Tags of DER, and the length's bit that says "so many bytes of length follow".
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG_LENGTH: Final = 0x80
# In a UTCTime years from here on are of the last century.
_CENTURY_TURN: Final = 50

# Where a request of HTTP has what its client has shown.
SHOWN: Final = "tokenworks.shown"


class CertificateFault(Exception):
    """The files cannot be used; the message names the file and says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where the server's chain and its key lie, and the authorities of clients, if they need one.

    All are PEM. With `client_ca` a client without a certificate of theirs is not let in.
    """

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What was in the files at one moment; times are seconds since 1970.

    `expiry_seconds` is when the first certificate of the chain expires, `client_ca_expiry_seconds`
    when the last of the authorities does. `context` serves the same pair to other servers.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    begin_seconds: int
    expiry_seconds: int
    client_ca_expiry_seconds: int | None
    context: ssl.SSLContext

    def is_valid_at(self, seconds: float) -> bool:
        """Tell whether the whole chain is valid then."""
        return self.begin_seconds <= seconds < self.expiry_seconds


class KeptCertificates:
    """The certificates in use; `look` is called by one thread, `current` read by any."""

    def __init__(
        self,
        files: CertificateFiles,
        *,
        now_seconds: Callable[[], float],
        on_read: Callable[[Certificates], None],
    ) -> None:
        """Read the files; raises CertificateFault. `on_read` hears what is in use from now on.

        `now_seconds` is the real time, in a sandbox too: it is the world's certificates.
        """
        self.files = files
        self.now_seconds = now_seconds
        self._on_read = on_read
        self._seen = _fingerprint(files)
        self._current = read_certificates(files)
        if not self._current.is_valid_at(now_seconds()):
            # It starts all the same: who asks for metrics or readiness may not look at dates.
            _log.error("certificate_invalid", extra=_told(files, "it is not valid now"))
        on_read(self._current)

    @property
    def current(self) -> Certificates:
        """What new connections are to be served with."""
        return self._current

    def look(self) -> bool:
        """Read the files again if they have changed; True when what is in use has changed.

        What cannot be used is logged, and passed over until the files change again.
        """
        seen = _fingerprint(self.files)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            found = read_certificates(self.files)
        except CertificateFault as fault:
            _log.error("certificate_broken", extra=_told(self.files, str(fault)))
            return False
        now_seconds = self.now_seconds()
        if self._current.is_valid_at(now_seconds) and not found.is_valid_at(now_seconds):
            fault_text = "it is not valid now; the one in use is"
            _log.error("certificate_broken", extra=_told(self.files, fault_text))
            return False
        self._current = found
        expiry = datetime.fromtimestamp(found.expiry_seconds, UTC).isoformat()
        _log.info("certificate_read", extra={"expiry": expiry})
        self._on_read(found)
        return True


def read_certificates(files: CertificateFiles) -> Certificates:
    """Read a pair that fits, and the authorities; raises CertificateFault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    chain, key = _read(files.certificate), _read(files.key)
    try:
        # Without a password a key that has one would be asked for at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=str)
    except (ssl.SSLError, ValueError, OSError) as error:
        text = f"{files.certificate} and {files.key} are no pair of a certificate and its key"
        raise CertificateFault(text) from error
    if (_read(files.certificate), _read(files.key)) != (chain, key):
        text = f"{files.certificate} and {files.key} were changed while they were read"
        raise CertificateFault(text)
    spans = _spans(chain, path=files.certificate)
    client_ca = None if files.client_ca is None else _read(files.client_ca)
    client_ca_expiry_seconds = None
    if client_ca is not None and files.client_ca is not None:
        client_ca_expiry_seconds = max(end for _, end in _spans(client_ca, path=files.client_ca))
        _ask_for_certificates(context, client_ca, path=files.client_ca)
    return Certificates(
        chain=chain,
        key=key,
        client_ca=client_ca,
        begin_seconds=max(begin for begin, _ in spans),
        expiry_seconds=min(end for _, end in spans),
        client_ca_expiry_seconds=client_ca_expiry_seconds,
        context=context,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A verified certificate that a client has shown over HTTP: its names by kind, and its PEM."""

    names: Sequence[tuple[str, str]]
    pem: bytes


def find_shown(connection: ssl.SSLSocket) -> Shown | None:
    """Return what the client has shown in its handshake, None where it has shown nothing."""
    der = connection.getpeercert(binary_form=True)
    if not der:
        return None
    told: Any = connection.getpeercert() or {}
    return Shown(
        names=told.get("subjectAltName", ()), pem=ssl.DER_cert_to_PEM_cert(der).encode("ascii")
    )


def read_validity(pem: bytes) -> tuple[int, int]:
    """Return from when until when a certificate is valid; raises ValueError for what is none."""
    try:
        return _span(ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip()))
    except IndexError as error:
        raise ValueError("the certificate is cut off") from error


def _ask_for_certificates(context: ssl.SSLContext, client_ca: bytes, *, path: Path) -> None:
    """Have HTTP's clients asked for a certificate; who only looks at metrics may show none."""
    try:
        context.load_verify_locations(cadata=b"\n".join(_pems(client_ca)).decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise CertificateFault(f"{path} has a certificate that cannot be read") from error
    context.verify_mode = ssl.CERT_OPTIONAL


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CertificateFault(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _FILE_BYTES_MAX:
        raise CertificateFault(f"{path} has more than {_FILE_BYTES_MAX} bytes")
    return content


def _fingerprint(files: CertificateFiles) -> tuple[tuple[int, ...] | None, ...]:
    """What changes with the files, their rights and what their links point to."""
    return tuple(_stat(path) for path in files.paths)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _told(files: CertificateFiles, fault: str) -> dict[str, str]:
    return {"file": str(files.certificate), "fault": fault}


def _spans(content: bytes, *, path: Path) -> list[tuple[int, int]]:
    """Return from when until when each certificate of a PEM file is valid."""
    try:
        spans = [read_validity(pem) for pem in _pems(content)]
    except ValueError as error:
        raise CertificateFault(f"{path} has a certificate that cannot be read") from error
    if not spans:
        raise CertificateFault(f"{path} has no certificate in it (PEM)")
    return spans


def _pems(content: bytes) -> Iterable[bytes]:
    return _PEM.findall(content)


def _span(der: bytes) -> tuple[int, int]:
    """Return the validity of a certificate; raises ValueError or IndexError for what is none.

    Read by hand, for Python has no reader of its own: of the certificate's first part the fields
    are a version (which old ones lack), a number, an algorithm, an issuer, and the validity.
    """
    _, body, _ = _element(der, 0, tag=_SEQUENCE)
    _, place, _ = _element(der, body, tag=_SEQUENCE)
    if der[place] == _VERSION:
        place = _element(der, place)[2]
    for _ in range(3):
        place = _element(der, place)[2]
    _, first, _ = _element(der, place, tag=_SEQUENCE)
    second = _element(der, first)[2]
    return _time(der, first), _time(der, second)


def _element(der: bytes, place: int, *, tag: int | None = None) -> tuple[int, int, int]:
    """Return tag, begin of the content, and end of the element that stands there."""
    found, length, begin = der[place], der[place + 1], place + 2
    if tag is not None and found != tag:
        raise ValueError("another element was expected")
    if length & _LONG_LENGTH:
        begin += length & ~_LONG_LENGTH
        length = int.from_bytes(der[place + 2 : begin], "big")
    if begin + length > len(der):
        raise ValueError("the element is cut off")
    return found, begin, begin + length


def _time(der: bytes, place: int) -> int:
    tag, begin, end = _element(der, place)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _CENTURY_TURN else "20") + text
    time = datetime.strptime(text.removesuffix("Z") + "+0000", "%Y%m%d%H%M%S%z")
    return int(time.timestamp())
