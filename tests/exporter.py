"""Stands for dcgm-exporter: a page over real HTTP, in the shapes that it is known to have."""

import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

OLD_NAME = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
NEW_NAME = "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL"
OLD_GAUGE = "DCGM_FI_DEV_POWER_USAGE"
NEW_GAUGE = "DCGM_FI_DEV_BOARD_POWER_WATTS"
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def sample(uuid: str, value: object, *, name: str = OLD_NAME, part: str = "") -> str:
    """Return the line of one board, or of a part of it (MIG)."""
    part_labels = f',GPU_I_PROFILE="1g.6gb",GPU_I_ID="{part}"' if part else ""
    return (
        f'{name}{{gpu="0",UUID="{uuid}",pci_bus_id="00000000:3B:00.0",device="nvidia0",'
        f'modelName="NVIDIA H100 80GB HBM3"{part_labels},Hostname="node-1",'
        f'DCGM_FI_DRIVER_VERSION="535.129.03"}} {value}'
    )


def page_of(boards: Mapping[str, int], *, watts: Mapping[str, float] | None = None) -> str:
    """Return a page with the energy in mJ of these boards, and some watts, among other metrics."""
    lines = [
        "# HELP DCGM_FI_DEV_GPU_TEMP GPU temperature (in C).",
        "# TYPE DCGM_FI_DEV_GPU_TEMP gauge",
        *(sample(uuid, "41", name="DCGM_FI_DEV_GPU_TEMP") for uuid in boards),
        "# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).",
        "# TYPE DCGM_FI_DEV_POWER_USAGE gauge",
        *(sample(uuid, f"{value:f}", name=OLD_GAUGE) for uuid, value in (watts or {}).items()),
        f"# HELP {OLD_NAME} Total energy consumption since boot (in mJ).",
        f"# TYPE {OLD_NAME} counter",
        *(sample(uuid, counter_mj) for uuid, counter_mj in boards.items()),
    ]
    return "\n".join(lines) + "\n"


class Exporter:
    """An exporter whose boards a test sets; `answer` replaces its page by something worse.

    Boards have counters in mJ, `watts` are what some of them, or others, draw.
    """

    def __init__(self) -> None:
        self.boards: dict[str, int] = {}
        self.watts: dict[str, float] = {}
        self.answer: Answer | None = None
        self.ask_count = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self._port}/metrics"

    def open(self) -> None:
        """Listen, on the same port as before."""
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter.ask_count += 1
                if exporter.answer is not None:
                    exporter.answer(self)
                else:
                    write_page(self, page_of(exporter.boards, watts=exporter.watts))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def vanish(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def write_page(handler: http.server.BaseHTTPRequestHandler, page: str | bytes) -> None:
    """Answer with a page."""
    body = page if isinstance(page, bytes) else page.encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "text/plain; version=0.0.4")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def saying(page: str | bytes) -> Answer:
    """Return an answer that is this page."""
    return lambda handler: write_page(handler, page)


@contextmanager
def running_exporter() -> Iterator[Exporter]:
    """An exporter for the time of the block."""
    exporter = Exporter()
    try:
        yield exporter
    finally:
        exporter.vanish()
