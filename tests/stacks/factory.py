"""A small token factory: a real meter, whose tokens have a price and whose board draws power."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tests.cli.shell import Shell
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event
from tokenworks.meter.v1.usage_pb2 import TOKEN_CLASS_INPUT, TOKEN_CLASS_OUTPUT

POOL = "hall-1"
TIERS = ["free", "high"]
WATTS = 700
TOKENS = {TOKEN_CLASS_INPUT: 500, TOKEN_CLASS_OUTPUT: 100}
# Of two requests one is free, and one costs $6 a million tokens.
USD_PER_OUTPUT_TOKEN = 6e-6 * (500 + 100) / (100 + 100)
BOOK = """
format   = 1
book     = "factory"
from     = 2020-01-01T00:00:00
zone     = "UTC"
currency = "USD"
missing  = "hold"
[models.m.tier]
free = { all = "0" }
high = { all = "6" }
"""
CONTRACT = """
format   = 1
contract = "acme"
from     = 2020-01-01T00:00:00
zone     = "UTC"
currency = "USD"
book     = "factory"
covers   = ["acme"]
seller   = "seller"
buyer    = "buyer"
[parties.seller]
name    = "Seller"
address = ["1 Street"]
[parties.buyer]
name    = "Buyer"
address = ["2 Street"]
"""


class Factory:
    """What runs, and how it is made to serve requests."""

    def __init__(self, meter: RunningMeter, *, folder: Path) -> None:
        """Create the one account, its prices and its contract."""
        self.meter = meter
        self._session = Session(meter)
        self._session.create_account("acme")
        shell = Shell(meter.target, meter.api_key)
        for name, text in (("book.toml", BOOK), ("contract.toml", CONTRACT)):
            (folder / name).write_text(text, "utf-8")
        shell.run("prices", "import", str(folder / "book.toml"))
        shell.run("contracts", "set", str(folder / "contract.toml"))

    def serve_requests(self, *, model: str = "m") -> None:
        """Report a request of each tier; only model m has a price."""
        self._session.record(
            *(event(model=model, tier=tier, pool=POOL, tokens=TOKENS) for tier in TIERS)
        )


@contextmanager
def running_factory(database_url: str, *, folder: Path) -> Iterator[Factory]:
    """A factory for the time of the block."""
    with _running_exporter() as url:
        settings = {"energy_sources": f"{POOL}={url}", "energy_scrape_seconds": "1"}
        with running_meter_on(database_url, folder=folder, settings=settings) as meter:
            yield Factory(meter, folder=folder)


@contextmanager
def _running_exporter() -> Iterator[str]:
    """The URL of a page like dcgm-exporter's, of one board that draws WATTS all the time."""
    start = time.monotonic()
    registry = CollectorRegistry()
    joules = Gauge("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "Energy", ["UUID"], registry=registry)
    joules.labels("GPU-1").set_function(lambda: WATTS * (time.monotonic() - start))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
