"""Certificates are read whole or not at all, and what is in use always fits."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meter.certificates import (
    CertificateFault,
    CertificateFiles,
    Certificates,
    KeptCertificates,
    read_certificates,
)
from tests.authority import Authority, needs_openssl, put

pytestmark = needs_openssl
_NAMES = ("DNS:localhost",)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority, whose certificates the tests copy."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    for name in ("first", "second"):
        made.sign(name, *_NAMES)
    made.sign_until("expired", *_NAMES, end=datetime(2021, 1, 1, tzinfo=UTC))
    return made


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> CertificateFiles:
    """The first pair, in files that a test may change."""
    place = CertificateFiles(
        certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key", client_ca=authority.certificate
    )
    put(authority.paths("first"), (place.certificate, place.key))
    return place


class Heard:
    """What was heard to be in use, and the time that it is."""

    def __init__(self) -> None:
        self.read: list[Certificates] = []
        self.now_seconds = datetime.now(UTC).timestamp()

    def keep(self, files: CertificateFiles) -> KeptCertificates:
        """Keep the certificates of these files."""
        return KeptCertificates(
            files, now_seconds=lambda: self.now_seconds, on_read=self.read.append
        )


@pytest.mark.parametrize("year", [2049, 2050])
def test_read_certificates__says_when_they_expire(authority: Authority, year: int) -> None:
    """The expiry is read to the second, in both of the forms that a certificate has for times."""
    end = datetime(year, 12, 31, 23, 58, 59, tzinfo=UTC)
    certificate, key = authority.sign_until(f"until-{year}", *_NAMES, end=end)
    found = read_certificates(
        CertificateFiles(certificate=certificate, key=key, client_ca=authority.certificate)
    )
    assert found.expiry_seconds == end.timestamp()
    assert found.begin_seconds == datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert found.client_ca_expiry_seconds is not None
    in_days = timedelta(seconds=found.client_ca_expiry_seconds) / timedelta(days=1)
    assert in_days - datetime.now(UTC).timestamp() / 86_400 == pytest.approx(30, abs=0.1)


def test_read_certificates__the_first_of_a_chain(
    authority: Authority, files: CertificateFiles
) -> None:
    """A chain is valid while all of its certificates are."""
    leaf_seconds = read_certificates(files).expiry_seconds
    with files.certificate.open("ab") as chain:
        chain.write(authority.certificate.read_bytes())
    assert read_certificates(files).expiry_seconds == leaf_seconds
    assert b"PRIVATE" not in repr(read_certificates(files)).encode()


def _another_key(files: CertificateFiles, authority: Authority) -> None:
    files.key.write_bytes(authority.paths("second")[1].read_bytes())


def _cut_off(files: CertificateFiles, _: Authority) -> None:
    files.certificate.write_bytes(files.certificate.read_bytes()[:300])


def _gone(files: CertificateFiles, _: Authority) -> None:
    files.key.unlink()


def _empty_authorities(files: CertificateFiles, authority: Authority) -> None:
    assert files.client_ca == authority.certificate
    files.certificate.write_text("")


def _too_long(files: CertificateFiles, _: Authority) -> None:
    files.certificate.write_bytes(b"#" * (1024 * 1024 + 1))


@pytest.mark.parametrize("spoil", [_another_key, _cut_off, _gone, _empty_authorities, _too_long])
def test_look__a_broken_pair_keeps_the_old_one(
    authority: Authority,
    files: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
    spoil: object,
) -> None:
    """What does not fit is named in the log, once, and the pair before it stays in use."""
    heard = Heard()
    kept = heard.keep(files)
    first = kept.current
    assert callable(spoil)
    spoil(files, authority)
    with pytest.raises(CertificateFault, match=r"tls\.(crt|key)"):
        read_certificates(files)
    with caplog.at_level(logging.INFO):
        assert [kept.look(), kept.look()] == [False, False]
    assert [record.message for record in caplog.records] == ["certificate_broken"]
    assert kept.current is first
    put(authority.paths("second"), (files.certificate, files.key))
    assert kept.look()
    assert kept.current.chain == authority.paths("second")[0].read_bytes()
    assert heard.read == [first, kept.current]


def test_look__nothing_changed(files: CertificateFiles) -> None:
    """Files that nobody has touched are not read again."""
    heard = Heard()
    kept = heard.keep(files)
    assert not kept.look()
    assert heard.read == [kept.current]


def test_look__an_expired_one(
    authority: Authority, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """One that has expired does not take the place of one that holds, only of one like it."""
    heard = Heard()
    kept = heard.keep(files)
    put(authority.paths("expired"), (files.certificate, files.key))
    assert not kept.look()
    assert caplog.messages == ["certificate_broken"]
    heard.now_seconds = kept.current.expiry_seconds
    put(authority.paths("expired"), (files.certificate, files.key))
    assert kept.look()


def test_keep__an_expired_one_is_told(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Who starts with a certificate that has expired reads so in the log."""
    certificate, key = authority.paths("expired")
    Heard().keep(CertificateFiles(certificate=certificate, key=key, client_ca=None))
    assert caplog.messages == ["certificate_invalid"]


def test_read_certificates__authorities_without_one(
    files: CertificateFiles, tmp_path: Path
) -> None:
    """A file of authorities that has none in it would let nobody in: it is refused."""
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing\n")
    wrong = CertificateFiles(certificate=files.certificate, key=files.key, client_ca=empty)
    with pytest.raises(CertificateFault, match=r"ca\.pem has no certificate"):
        read_certificates(wrong)


def test_read_certificates__garbled(files: CertificateFiles, tmp_path: Path) -> None:
    """A certificate of the right form whose bytes are none is refused, wherever they end."""
    place = tmp_path / "ca.pem"
    for body in ("MAA=", "MAMCAQE=", "MIIB", "//8=", "AAAA"):
        place.write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        wrong = CertificateFiles(certificate=files.certificate, key=files.key, client_ca=place)
        with pytest.raises(CertificateFault, match="cannot be read"):
            read_certificates(wrong)
