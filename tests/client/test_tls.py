"""Reporting over TLS."""

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from tests.client.fake_meter import API_KEY, FakeMeter
from tokenworks.client import Meter, State

OPENSSL = shutil.which("openssl")


@pytest.mark.skipif(OPENSSL is None, reason="the openssl program, which makes the certificate")
def test_tls__root_certificates_decide(tmp_path: Path) -> None:
    """A meter is believed by its certificate, on this host too, and no other meter is."""
    certificate, key = _certificate(tmp_path)
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    other, _ = _certificate(tmp_path)
    with FakeMeter().serving(credentials=credentials) as fake_meter:
        target = fake_meter.target.replace("127.0.0.1", "localhost")
        with Meter(target, api_key=API_KEY, root_certificates=certificate) as client:
            client.record()
            assert client.flush(20)
        stranger = Meter(target, api_key=API_KEY, root_certificates=other)
        stranger.record()
        assert stranger.close(0.3) is False
        assert stranger.statistics.state is State.CLOSED
        assert stranger.statistics.dropped == 1
        assert len(fake_meter.events) == 1


def _certificate(folder: Path) -> tuple[bytes, bytes]:
    """Make a certificate of `localhost` that is its own root, and its key, both PEM."""
    assert OPENSSL is not None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate.read_bytes(), key.read_bytes()
