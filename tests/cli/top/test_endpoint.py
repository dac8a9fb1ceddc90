"""One reading of a metrics page over the network, and all that may come instead of it."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from cli.credentials import Credentials, write_credentials
from cli.process import CommandError, Exit
from cli.settings import Settings
from cli.top.endpoint import PAGE_BYTES_MAX, Endpoint, NoAnswer, find_url
from tests.cli.top.fake_metrics import Answer, moving, page_of, serving, write_page

OPENSSL = shutil.which("openssl")
STORED = Credentials(target="127.0.0.1:1", http="127.0.0.1:2", api_key="tw_secret")


def _endpoint(url: str) -> Endpoint:
    return Endpoint(url, ca_certificate=None, answer_seconds_max=0.2)


def test_read__a_page() -> None:
    """A page is read whole, under the path of Prometheus where none is given, with no secret."""
    with serving(moving) as fake:
        for url in (fake.url, f"http://{fake.address}", f"http://{fake.address}/"):
            sample = _endpoint(url).read()
            assert sample.counters
            assert fake.path == "/metrics"
        assert sample.read_seconds > 0
        assert "authorization" not in fake.headers
        _endpoint(f"http://{fake.address}/federate?match[]=x").read()
        assert fake.path == "/federate?match[]=x"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(pieces=[b"gone"], length=4, status=404), "HTTP status 404"),
        (Answer(pieces=[b"busy"], length=4, status=503), "HTTP status 503"),
        (Answer(pieces=[], length=0), "no metrics of a meter"),
        (page_of("<html>hello</html>"), "no metrics of a meter"),
        (page_of("tokenworks_sandbox x"), "not in the Prometheus text form"),
        (Answer(pieces=[b"\xff\xfe\x00"], length=3), "not text"),
        (Answer(pieces=[write_page(5).encode()], length=100_000), "broke off"),
        (Answer(pieces=[b"#" * 65_536] * (PAGE_BYTES_MAX // 65_536 + 1)), "more than 16 MiB"),
    ],
)
def test_read__no_page(answer: Answer, said: str) -> None:
    """What is no whole page of a meter, and of a bounded size, is no answer."""
    with serving(lambda _: answer) as fake, pytest.raises(NoAnswer, match=said):
        Endpoint(fake.url, ca_certificate=None).read()


def test_read__huge() -> None:
    """Of an answer without end no more is read than a page may have."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 4 * PAGE_BYTES_MAX:
            yield b"#" * 65_536
            sent += 65_536

    answer = Answer(pieces=endless())
    with serving(lambda _: answer) as fake, pytest.raises(NoAnswer, match="more than 16 MiB"):
        Endpoint(fake.url, ca_certificate=None).read()
    # Beside what was read, the system's buffers have taken some.
    assert sent < 2 * PAGE_BYTES_MAX


def test_read__slow() -> None:
    """A page that comes drop by drop is given up, as is a server that says nothing."""
    gone = Event()

    def drops() -> Iterator[bytes]:
        while not gone.wait(0.01):
            yield b"#\n"

    with serving(lambda _: Answer(pieces=drops())) as fake:
        with pytest.raises(NoAnswer, match=r"took more than 0\.2 s"):
            _endpoint(fake.url).read()
        gone.set()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = _endpoint(f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(NoAnswer, match="nothing came in time"):
            endpoint.read()


def test_read__not_http() -> None:
    """Another protocol on the port is no answer, and nothing of it is repeated."""
    for first in (b"\x1b[2J 220 mail.example ESMTP\r\n", b"HTTP/1.1 \x1b[2J\r\n\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", ca_certificate=None)
            with pytest.raises(NoAnswer) as caught, _answering(server, first):
                endpoint.read()
            assert str(caught.value).isprintable()


@contextmanager
def _answering(server: socket.socket, answer: bytes) -> Iterator[None]:
    """Answer the first who connects with these bytes, and close."""

    def run() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_read__nobody_there() -> None:
    """A port that nobody listens to is no answer."""
    with serving(moving) as fake:
        url = fake.url
    with pytest.raises(NoAnswer, match="connection refused"):
        _endpoint(url).read()


def test_read__proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for the world outside is not asked for this machine's own page."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(moving) as fake:
        assert _endpoint(fake.url).read().counters
        with pytest.raises(NoAnswer):
            _endpoint("http://meter.example:7412").read()


@pytest.mark.skipif(OPENSSL is None, reason="the openssl program, which makes the certificate")
def test_read__tls(tmp_path: Path) -> None:
    """A page over TLS is believed by the certificates of the settings, and by no others."""
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(moving, tls=context) as fake:
        url = f"https://localhost:{fake.port}/metrics"
        assert Endpoint(url, ca_certificate=certificate).read().counters
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            Endpoint(url, ca_certificate=None).read()
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            Endpoint(f"https://127.0.0.1:{fake.port}", ca_certificate=certificate).read()


def _certificate(folder: Path) -> tuple[Path, Path]:
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
    return certificate, key


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:7412",
        "localhost",
        "file:///etc/passwd",
        "ftp://127.0.0.1/metrics",
        "http://",
        "http:///metrics",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://user:secret@127.0.0.1:7412",
        "http://127.0.0.1:7412/a b",
        "http://127.0.0.1:7412/\x1b[2J",
        "http://127.0.0.1:7412/é",
        "http://[::1",
    ],
)
def test_endpoint__no_url(url: str) -> None:
    """What is no URL of a page is refused before anything is asked."""
    with pytest.raises(ValueError, match=r"."):
        Endpoint(url, ca_certificate=None)


def test_endpoint__broken_certificates(tmp_path: Path) -> None:
    """A file of certificates that holds none is told as that."""
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(CommandError, match="has no certificate") as caught:
        Endpoint("https://127.0.0.1:7412", ca_certificate=path)
    assert caught.value.exit_code == Exit.USAGE


def test_url__of_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is the one of the nearest credentials file, as for every command."""
    (tmp_path / ".tokenworks").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = tmp_path / ".tokenworks" / "credentials.json"
    monkeypatch.chdir(tmp_path / "deep" / "er")
    write_credentials(path, STORED)
    for settings in (
        Settings(),
        Settings(credentials_file=path),
        Settings(server=STORED.target),
    ):
        assert find_url(settings) == "http://127.0.0.1:2/metrics"


@pytest.mark.parametrize("settings", [Settings(), Settings(server="meter.example:7411")])
def test_url__unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Of another server than the file's no page is known, and the user is told what to name."""
    monkeypatch.chdir(tmp_path)
    if settings.server is not None:
        (tmp_path / ".tokenworks").mkdir()
        write_credentials(tmp_path / ".tokenworks" / "credentials.json", STORED)
    with pytest.raises(CommandError, match="--metrics") as caught:
        find_url(settings)
    assert caught.value.exit_code == Exit.USAGE
