"""An authority of the tests' own, and the certificates that it gives: made by openssl."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

OPENSSL: Final = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes certificates")
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Signs certificates; its own is `certificate`, and all files lie in `folder`."""

    def __init__(self, folder: Path, *, name: str = "authority") -> None:
        """Make its key and certificate in a folder that is there."""
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            "req", "-x509", *_KEY, "-days", "30", "-subj", f"/CN={name}",
            "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip

    def sign(self, name: str, *sans: str) -> tuple[Path, Path]:
        """Give a certificate of these names (`DNS:…`, `URI:…`), `name`.pem, and `name`.key."""
        certificate, key = self.paths(name)
        _openssl(
            "req", "-x509", "-CA", str(self.certificate), "-CAkey", str(self._key), *_KEY,
            "-days", "2", "-subj", f"/CN={name}", "-addext", "basicConstraints=CA:FALSE",
            "-addext", f"subjectAltName={','.join(sans)}",
            "-keyout", str(key), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    def sign_until(self, name: str, *sans: str, end: datetime) -> tuple[Path, Path]:
        """Give a certificate that expires at a moment, to the second, past or to come."""
        certificate, key = self.paths(name)
        request, settings = self.folder / f"{name}.csr", self.folder / f"{name}.cnf"
        _openssl(
            "req", "-new", *_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)
        )
        index = self.folder / f"{name}.index"
        index.write_text("")
        settings.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={index}\nnew_certs_dir={self.folder}\n"
            "rand_serial=yes\ndefault_md=sha256\npolicy=any\nunique_subject=no\n"
            "[any]\ncommonName=supplied\n"
            f"[leaf]\nbasicConstraints=CA:FALSE\nsubjectAltName={','.join(sans)}\n"
        )
        _openssl(
            "ca", "-batch", "-notext", "-config", str(settings), "-extensions", "leaf",
            "-cert", str(self.certificate), "-keyfile", str(self._key), "-in", str(request),
            "-startdate", "20200101000000Z", "-enddate", end.strftime("%Y%m%d%H%M%SZ"),
            "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    def paths(self, name: str) -> tuple[Path, Path]:
        """Where the certificate and the key of this name lie."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


def put(source: tuple[Path, Path], target: tuple[Path, Path]) -> None:
    """Put a pair in another's place, each file at once, as those who renew certificates do."""
    for path, place in zip(source, target, strict=True):
        fresh = place.with_suffix(f"{place.suffix}.new")
        shutil.copyfile(path, fresh)
        fresh.replace(place)


def _openssl(*words: str) -> None:
    assert OPENSSL is not None
    done = subprocess.run([OPENSSL, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
