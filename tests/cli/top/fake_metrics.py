"""A metrics page whose counters move, served as a meter serves its own."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

# Of one tier on one pool, in a second: input and output tokens, joules, money.
Flow = tuple[int, int, float, float]
FACTORY: Final[Mapping[tuple[str, str], Flow]] = {
    ("free", "b200"): (4_000, 1_500, 900.0, 0.0),
    ("medium", "b200"): (9_000, 3_100, 1_700.0, 0.0121),
    ("medium", "rubin"): (12_000, 4_200, 1_100.0, 0.0162),
    ("high", "rubin"): (3_000, 1_250, 1_300.0, 0.0255),
    ("premium", "rubin"): (800, 420, 1_900.0, 0.0549),
}
BOARD, HOST = 'boundary="board"', 'boundary="host"'
# What each pool draws beside what is attributed, in watts.
IDLE_WATTS: Final = {"b200": 300.0, "rubin": 250.0}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server answers with; `length` is what it says of its length, None for nothing."""

    pieces: Iterable[bytes]
    length: int | None = None
    status: int = 200


@dataclass
class FakeMetrics:
    """A server of one page; `page` gets how often it was asked before."""

    page: Callable[[int], Answer]
    asked: int = 0
    address: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last request, in lower case."""

    @property
    def url(self) -> str:
        """The page's URL."""
        return f"http://{self.address}/metrics"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])


@contextmanager
def serving(
    page: Callable[[int], Answer], *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[FakeMetrics]:
    """Serve the page for the time of the block, on a free port or on this one; with TLS or not."""
    fake = FakeMetrics(page)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the page."""
            answer = fake.page(fake.asked)
            fake.asked += 1
            fake.path = self.path
            fake.headers = {name.lower(): text for name, text in self.headers.items()}
            try:
                self.send_response(answer.status)
                if answer.length is not None:
                    self.send_header("Content-Length", str(answer.length))
                self.end_headers()
                for piece in answer.pieces:
                    self.wfile.write(piece)
            except ConnectionError:
                # Whoever asked has gone.
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        fake.address = f"127.0.0.1:{server.server_port}"
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def moving(asked: int) -> Answer:
    """Answer as a factory does that has run for one more second each time."""
    return page_of(write_page(asked + 100))


def page_of(text: str) -> Answer:
    """Answer with a text, whole."""
    return Answer(pieces=[text.encode()], length=len(text.encode()))


def write_page(
    seconds: float,
    *,
    flows: Mapping[tuple[str, str], Flow] = FACTORY,
    invalid: tuple[str, ...] = (),
    started: float = 1.0,
    further: tuple[str, ...] = (),
) -> str:
    """Return the page of a meter that has run for so many seconds with these flows, in dollars."""
    lines = [
        "# HELP tokenworks_tokens_total Tokens counted into usage by this server.",
        "# TYPE tokenworks_tokens_total counter",
        f"tokenworks_commit_seconds_created {started}",
        "tokenworks_counting_behind_seconds 0.4",
        "tokenworks_quarantine_held 0.0",
        *further,
    ]
    for (tier, pool), (inputs, outputs, joules, amount) in flows.items():
        place = f'tier="{tier}",pool="{pool}"'
        for name, count in (("INPUT", inputs), ("OUTPUT", outputs)):
            labels = f'{place},model="m",token_class="{name}"'
            lines.append(f"tokenworks_tokens_total{{{labels}}} {count * seconds}")
        lines += [
            f"tokenworks_energy_attributed_joules_total{{{place},{BOARD}}} {joules * seconds}",
            f'tokenworks_revenue_total{{{place},currency="USD"}} {amount * seconds}',
        ]
    for pool in dict.fromkeys(pool for _, pool in flows):
        watts = sum(flow[2] for (_, each), flow in flows.items() if each == pool)
        watts += IDLE_WATTS.get(pool, 0.0)
        lines += [
            f'tokenworks_energy_joules_total{{pool="{pool}",{BOARD}}} {watts * seconds}',
            f'tokenworks_energy_joules_total{{pool="{pool}",{HOST}}} {2 * watts * seconds}',
            f'tokenworks_power_valid{{pool="{pool}"}} {int(pool not in invalid)}',
        ]
    return "\n".join([*lines, ""])
