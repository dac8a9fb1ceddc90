"""Where a meter's metrics page is, and one reading of it: bounded, and without an API key."""

import http.client
import ssl
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from cli.connection import find_stored_credentials
from cli.process import CommandError, Exit
from cli.settings import Settings, is_loopback
from cli.top.counters import PageUnreadable, Sample, parse_page
from tokenworks.client.clock import monotonic

# Of silence between two pieces, and of the whole page.
ANSWER_SECONDS_MAX: Final = 5.0
# Some hundred thousand series; a meter of a hundred models and pools has a tenth of them.
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


class NoAnswer(Exception):
    """The page could not be had this time; the message says why, in our words."""


class Endpoint:
    """A metrics page at a URL; `address` is the URL's host:port, for people to read."""

    def __init__(
        self,
        url: str,
        *,
        ca_certificate: Path | None,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        """Take the URL, http or https; raises ValueError for what is none."""
        place = _split(url)
        self.address = place.netloc
        self.url = place.geturl()
        self._answer_seconds_max = answer_seconds_max
        self._opener = _make_opener(place, ca_certificate=ca_certificate)

    def read(self) -> Sample:
        """Return what the page says now; raises NoAnswer."""
        try:
            # Validated above: the scheme is http or https.
            request = Request(self.url, headers={"Accept": "text/plain"})  # noqa: S310
            with self._opener.open(request, timeout=self._answer_seconds_max) as answer:
                page = _read_page(answer, seconds_max=self._answer_seconds_max)
            return parse_page(page.decode(), read_seconds=monotonic())
        except HTTPError as error:
            raise NoAnswer(f"HTTP status {error.code}") from error
        except URLError as error:
            raise NoAnswer(_explain(error.reason)) from error
        except OSError as error:
            raise NoAnswer(_explain(error)) from error
        except http.client.HTTPException as error:
            raise NoAnswer("its answer is not HTTP, or broke off") from error
        except UnicodeDecodeError as error:
            raise NoAnswer("its page is not text") from error
        except PageUnreadable as error:
            raise NoAnswer(str(error)) from error


def find_url(settings: Settings) -> str:
    """Return the metrics page of the meter that commands speak to, from its credentials file.

    Raises CommandError where none is known; a file of another server than the settings name is
    of no use.
    """
    stored = find_stored_credentials(settings)
    if stored is not None and settings.server in (None, stored.target):
        place = stored.http if "://" in stored.http else f"http://{stored.http}"
        return f"{place}/metrics"
    whose = f" of {settings.server}" if settings.server is not None else ""
    raise CommandError(
        f"no metrics page{whose} is known: start a meter with `tokenworks up`, or name the page"
        " with --metrics",
        code=Exit.USAGE,
    )


def _split(url: str) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has a character that no URL has")
    place = urlsplit(url)
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise ValueError("is no URL that begins with http:// or https://")
    if "@" in place.netloc:
        raise ValueError("has a user name: the metrics page needs none")
    # It raises by itself where the port is no number of one.
    if place.port == 0:
        raise ValueError("has a port that nobody listens to")
    return place._replace(path="/metrics") if place.path in {"", "/"} else place


def _make_opener(place: SplitResult, *, ca_certificate: Path | None) -> OpenerDirector:
    try:
        handler = HTTPSHandler(context=ssl.create_default_context(cafile=ca_certificate))
    except ssl.SSLError as error:
        raise CommandError(f"{ca_certificate} has no certificate (PEM)", code=Exit.USAGE) from error
    if is_loopback(f"{place.hostname}:0"):
        # A proxy for the world outside cannot reach this machine's own ports.
        return build_opener(ProxyHandler({}), handler)
    return build_opener(handler)


def _read_page(answer: http.client.HTTPResponse, *, seconds_max: float) -> bytes:
    """Return the whole page; raises NoAnswer for one that is too long, in bytes or in time."""
    give_up_time = monotonic() + seconds_max
    page = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        page += piece
        if len(page) > PAGE_BYTES_MAX:
            raise NoAnswer(f"its page has more than {PAGE_BYTES_MAX // 1024**2} MiB")
        if monotonic() > give_up_time:
            raise NoAnswer(f"its page took more than {seconds_max:g} s")
    if answer.length:
        # What is missing would look like counters that a restart has set back.
        raise NoAnswer("its page broke off")
    return bytes(page)


def _explain(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "nothing came in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return "the connection failed"
