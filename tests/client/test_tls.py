"""Reporting over TLS."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.authority import Authority, needs_openssl, put
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter
from tokenworks.client import Meter, State
from tokenworks.client.certificates import CertificateFiles, KeptCertificates

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the meter and of its clients."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.sign("meter", "DNS:localhost")
    for name in ("first", "second"):
        made.sign(name, f"URI:spiffe://factory/{name}")
    return made


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> tuple[Path, Path]:
    """The first client's certificate and key, in files that a test may change."""
    place = tmp_path / "client.pem", tmp_path / "client.key"
    put(authority.paths("first"), place)
    return place


@pytest.fixture
def strict_meter(authority: Authority) -> Iterator[FakeMeter]:
    """A meter that asks its clients for a certificate."""
    certificate, key = authority.paths("meter")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=authority.certificate.read_bytes(),
        require_client_auth=True,
    )
    with FakeMeter().serving(credentials=credentials) as meter:
        yield meter


def _client(meter: FakeMeter, **arguments: Any) -> Meter:  # noqa: ANN401 - any argument of Meter
    target = meter.target.replace("127.0.0.1", "localhost")
    return Meter(target, api_key=API_KEY, producer="p", **arguments)


def test_tls__root_certificates_decide(authority: Authority, tmp_path: Path) -> None:
    """A meter is believed by its certificate, on this host too, and no other meter is."""
    certificate, key = (path.read_bytes() for path in authority.paths("meter"))
    roots = authority.certificate.read_bytes()
    other = Authority(tmp_path, name="other").certificate.read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with FakeMeter().serving(credentials=credentials) as fake_meter:
        with _client(fake_meter, root_certificates=roots) as client:
            client.record()
            assert client.flush(20)
        stranger = _client(fake_meter, root_certificates=other)
        stranger.record()
        assert stranger.close(0.3) is False
        assert stranger.statistics.state is State.CLOSED
        assert stranger.statistics.dropped == 1
        assert len(fake_meter.events) == 1


@pytest.mark.parametrize("in_file", [True, False])
def test_tls__a_certificate_is_shown(
    strict_meter: FakeMeter, authority: Authority, pair: tuple[Path, Path], *, in_file: bool
) -> None:
    """A meter that asks for a certificate gets it; the roots come from a file or as bytes."""
    roots: dict[str, Any] = (
        {"ca_certificate": authority.certificate}
        if in_file
        else {"root_certificates": authority.certificate.read_bytes()}
    )
    with _client(
        strict_meter, client_certificate=pair[0], client_key=str(pair[1]), **roots
    ) as client:
        client.record()
        assert client.flush(20)
    assert strict_meter.shown == [b"first"]


def test_tls__renewed_files_are_shown_soon(
    strict_meter: FakeMeter,
    authority: Authority,
    pair: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """New files are shown within a second or two; what cannot be used is told, and passed over."""
    with (
        caplog.at_level(logging.INFO, "tokenworks.client"),
        _client(
            strict_meter,
            ca_certificate=authority.certificate,
            client_certificate=pair[0],
            client_key=pair[1],
        ) as client,
    ):
        client.record()
        assert client.flush(20)
        pair[1].write_text("half a ke")
        while "certificate_broken" not in caplog.text:
            client.record()
            assert client.flush(20)
        put(authority.paths("second"), pair)
        with strict_meter.changed:
            assert strict_meter.changed.wait_for(lambda: len(strict_meter.shown) > 1, WAIT_SECONDS)
        client.record()
        assert client.flush(20)
        count = client.statistics.recorded
    assert strict_meter.shown == [b"first", b"second"]
    assert len(strict_meter.events) == count
    assert caplog.text.count("certificate_broken") == 1
    assert "code=OK reason= detail=the certificates were renewed" in caplog.text


def test_certificates__broken_files(authority: Authority, pair: tuple[Path, Path]) -> None:
    """Files that do not fit are refused when the client is made, by name."""
    (pair[0].parent / "empty.pem").write_text("")
    for files, words in (
        ({"ca_certificate": pair[0].parent / "no.pem"}, "no.pem cannot be read"),
        ({"ca_certificate": pair[0].parent / "empty.pem"}, "no certificate in it"),
        ({"client_certificate": pair[0]}, "both or neither"),
        (
            {"client_certificate": pair[0], "client_key": authority.paths("second")[1]},
            "are no pair",
        ),
        ({"ca_certificate": pair[0], "root_certificates": b"PEM"}, "one of them"),
    ):
        with pytest.raises(ValueError, match=words):
            Meter("localhost:1", api_key="k", **files)
    with pytest.raises(ValueError, match="api_key, or client_certificate"):
        Meter("localhost:1")


def test_certificates__a_broken_pair_keeps_the_old_one(
    authority: Authority, pair: tuple[Path, Path]
) -> None:
    """What was shown before stays until the files fit again; a key is in no text."""
    kept = KeptCertificates(CertificateFiles(certificate=pair[0], key=pair[1]))
    first = kept.current
    assert b"PRIVATE" not in repr(first).encode()
    pair[1].unlink()
    assert (kept.look(), kept.current) == (False, first)
    assert "cannot be read" in kept.fault
    put(authority.paths("second"), pair)
    assert (kept.look(), kept.fault) == (True, "")
    assert kept.current.chain == authority.paths("second")[0].read_bytes()
