"""Reading an exporter over HTTP: whatever it does, it takes so long at most and has a name."""

import contextlib
import http.server
import socket
import time
from collections.abc import Iterator
from threading import Event

import pytest

from meter.domain.limits import ENERGY_PAGE_BYTES_MAX
from meter.energy.sources.dcgm import DcgmReader, Page, read_page
from meter.energy.sources.page import fetch_page
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure
from tests.exporter import Answer, Exporter, page_of, running_exporter, sample, saying

SECONDS_MAX = 0.5
# A read that is not bounded at all would take this long.
ENDLESS_SECONDS = 30.0


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter with one board."""
    with running_exporter() as running:
        running.boards["GPU-1"] = 7
        yield running


def read(exporter: Exporter, *, seconds_max: float = 20.0) -> Page:
    """Fetch its page and read that."""
    text = fetch_page(exporter.url, seconds_max=seconds_max, monotonic_seconds=time.monotonic)
    return read_page(text)


def failure_of(exporter: Exporter, *, seconds_max: float = 20.0) -> SourceFailure:
    """Read it in vain; return why."""
    with pytest.raises(SourceFailed) as failed:
        read(exporter, seconds_max=seconds_max)
    return failed.value.failure


def test_fetch__returns_the_counters(exporter: Exporter) -> None:
    """A page over HTTP is read as it is, each time anew."""
    assert read(exporter) == Page(counters_mj={"GPU-1": 7}, powers_mw={})
    exporter.boards["GPU-2"] = 9
    assert read(exporter).counters_mj == {"GPU-1": 7, "GPU-2": 9}


def test_fetch__asks_for_what_the_url_says(exporter: Exporter) -> None:
    """Path and query reach the exporter, and its own name does."""
    asked: list[tuple[str, str | None]] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers["Host"]))
        saying(page_of({"a": 1}))(handler)

    exporter.answer = answer
    host = exporter.url.removeprefix("http://").removesuffix("/metrics")
    for path in ("", "/", "/metrics?part=gpu&x=1"):
        fetch_page(f"http://{host}{path}", seconds_max=20.0, monotonic_seconds=time.monotonic)
    assert asked == [("/", host), ("/", host), ("/metrics?part=gpu&x=1", host)]


def test_fetch__vanished_and_come_back(exporter: Exporter) -> None:
    """An exporter that does not listen is unreachable until it does."""
    exporter.vanish()
    assert failure_of(exporter) is SourceFailure.UNREACHABLE
    exporter.open()
    assert read(exporter).counters_mj == {"GPU-1": 7}


def send_status(status: int, **headers: str) -> Answer:
    """Return an answer of this status, with a good page below it."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = page_of({"GPU-1": 7}).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("status", [204, 301, 302, 307, 401, 404, 500, 503])
def test_fetch__other_status_is_refused(exporter: Exporter, status: int) -> None:
    """Only 200 is an answer; where a redirect points to is not asked."""
    with running_exporter() as elsewhere:
        elsewhere.boards["GPU-9"] = 9
        exporter.answer = send_status(status, Location=elsewhere.url)
        assert failure_of(exporter) is SourceFailure.REFUSED
        assert elsewhere.ask_count == 0


def send_torn(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(page_of({"GPU-1": 7}).encode())


def send_torn_chunk(handler: http.server.BaseHTTPRequestHandler) -> None:
    """End in the middle of a chunk."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"ffff\r\n" + page_of({"GPU-1": 7}).encode())


def send_no_http(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Speak something else."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def send_nothing(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Hang up."""
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [send_torn, send_torn_chunk, send_no_http, send_nothing])
def test_fetch__answer_that_is_not_whole(exporter: Exporter, answer: Answer) -> None:
    """Half a page is none: it could lack boards."""
    exporter.answer = answer
    assert failure_of(exporter) is SourceFailure.UNREACHABLE


@pytest.mark.parametrize("part", ["status", "header", "body", "silence"])
def test_fetch__slow_answer_ends(exporter: Exporter, part: str) -> None:
    """One that sends a little now and then, or nothing, is given up after the whole time."""
    begins = {
        "status": b"",
        "header": b"HTTP/1.1 200 OK\r\nX: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        "silence": b"HTTP/1.1 200 OK\r\n",
    }
    done = Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(begins[part])
            while not done.wait(0.02):
                if part != "silence":
                    handler.wfile.write(b"H")

    exporter.answer = drip
    begin = time.monotonic()
    try:
        assert failure_of(exporter, seconds_max=SECONDS_MAX) is SourceFailure.UNREACHABLE
    finally:
        done.set()
    assert time.monotonic() - begin < ENDLESS_SECONDS


def test_fetch__huge_page(exporter: Exporter) -> None:
    """A page may have so many bytes; with one more it is not read to its end."""
    line = sample("GPU-1", 7) + "\n"
    whole = line + "#" * (ENERGY_PAGE_BYTES_MAX - len(line))
    exporter.answer = saying(whole)
    assert read(exporter).counters_mj == {"GPU-1": 7}
    exporter.answer = saying(whole + "#")
    assert failure_of(exporter) is SourceFailure.TOO_LARGE


def test_fetch__endless_page(exporter: Exporter) -> None:
    """A page without an end is given up once it is larger than pages are."""
    sent = 0

    def pour(handler: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while sent < 100 * ENERGY_PAGE_BYTES_MAX:
                sent += handler.wfile.write(b"#" * 65_536)

    exporter.answer = pour
    assert failure_of(exporter) is SourceFailure.TOO_LARGE
    assert sent < 10 * ENERGY_PAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("page", "failure"),
    [
        ("", SourceFailure.NO_COUNTERS),
        ("<html>Sign in</html>", SourceFailure.NO_COUNTERS),
        ("DCGM_FI_DEV_POWER_USAGE 5\n", SourceFailure.NO_COUNTERS),
        (b"\xff\xfe\x00" + sample("GPU-1", 7).encode(), SourceFailure.UNREADABLE),
    ],
)
def test_read__page_without_counters(
    exporter: Exporter, page: str | bytes, failure: SourceFailure
) -> None:
    """A page that is no page of an exporter, or has no energy, is told apart."""
    exporter.answer = saying(page)
    with pytest.raises(SourceFailed, match=failure):
        DcgmReader(exporter.url, monotonic_seconds=time.monotonic).read()


def test_read__boards_and_what_fails(exporter: Exporter) -> None:
    """A board is a sample, with its counter and its gauge; lines without sense are a failure."""
    reader = DcgmReader(exporter.url, monotonic_seconds=time.monotonic)
    exporter.watts["GPU-1"] = 70.5
    assert reader.read() == Found(samples=[Sample(device="GPU-1", counter_mj=7, power_mw=70_500)])
    exporter.answer = saying(sample("GPU-1", "NaN"))
    assert reader.read() == Found(samples=[], failure=SourceFailure.UNREADABLE)


def test_fetch__some_lines_without_sense(exporter: Exporter) -> None:
    """Lines that make no sense are counted beside the counters of the others."""
    exporter.answer = saying(f"{sample('GPU-1', 7)}\n{sample('GPU-2', 'NaN')}\n")
    assert read(exporter) == Page(counters_mj={"GPU-1": 7}, powers_mw={}, unreadable_count=1)


def test_fetch__of_a_name_that_is_unknown() -> None:
    """A machine that does not exist is unreachable like one that is off."""
    with pytest.raises(SourceFailed, match="unreachable"):
        fetch_page(
            "http://no-such-host.invalid:9400/metrics",
            seconds_max=20.0,
            monotonic_seconds=time.monotonic,
        )
