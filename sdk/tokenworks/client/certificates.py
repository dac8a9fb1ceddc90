"""Certificates in files: what the client trusts and what it shows, read again when they change."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

# A file of many authorities; more than this is no certificate.
_FILE_BYTES_MAX: Final = 1024 * 1024

_Fingerprint: TypeAlias = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pems:
    """What is in the files; made into credentials by the process that connects, not its parent."""

    roots: bytes | None
    chain: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files: whom to trust (None: the public roots), and what to show, with its key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def read(self) -> Pems:
        """Read them; raises ValueError, which names the file that cannot be used."""
        roots = None if self.ca is None else _read(self.ca)
        if roots is not None and b"-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError(f"{self.ca} has no certificate in it (PEM)")
        if self.certificate is None or self.key is None:
            return Pems(roots=roots)
        chain, key = _read(self.certificate), _read(self.key)
        try:
            # Without a password a key that has one would be asked for at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                self.certificate, self.key, password=str
            )
        except (ssl.SSLError, OSError, ValueError) as error:
            text = f"{self.certificate} and {self.key} are no pair of a certificate and its key"
            raise ValueError(text) from error
        if (_read(self.certificate), _read(self.key)) != (chain, key):
            raise ValueError(f"{self.certificate} and {self.key} were changed while they were read")
        return Pems(roots=roots, chain=chain, key=key)

    def fingerprint(self) -> _Fingerprint:
        """Return what changes with the files, their rights and what their links point to."""
        return tuple(_stat(path) for path in (self.ca, self.certificate, self.key) if path)


class KeptCertificates:
    """The certificates of now; what cannot be used keeps those before it."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files; raises ValueError where they cannot be used."""
        self._files = files
        self._seen = files.fingerprint()
        self.current = files.read()
        """For the next connection."""
        self.fault = ""
        """Why the newest files are not in use; empty where they are."""

    def look(self) -> bool:
        """Read the files again if they have changed; True where there are new ones."""
        seen = self._files.fingerprint()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.current = self._files.read()
        except ValueError as error:
            self.fault = str(error)
            return False
        self.fault = ""
        return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError(f"{path} has more than {_FILE_BYTES_MAX} bytes")
    return content


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
