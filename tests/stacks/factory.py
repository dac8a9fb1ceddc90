"""A small token factory: a real meter, whose tokens have a price and whose boards draw power.

One board is read from an exporter. Another one, the host and the site's meter are reported.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tests.cli.shell import Shell
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import CALL_SECONDS_MAX, Session, event, opening
from tests.wire.talk import talking
from tokenworks.meter.v1.energy_service_pb2 import (
    ENERGY_BOUNDARY_BOARD,
    ENERGY_BOUNDARY_FACILITY,
    ENERGY_BOUNDARY_HOST,
    EnergyBoundary,
    EnergyReading,
    MarkSoftwareRequest,
    RecordEnergyRequest,
    SetFactoryRequest,
)
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub
from tokenworks.meter.v1.usage_pb2 import TOKEN_CLASS_INPUT, TOKEN_CLASS_OUTPUT

SITE = "hall"
POOL = "hall-1"
TIERS = ["free", "high"]
WATTS = 700
HOST_WATTS = 1_600
SITE_WATTS = 2_000
# Gauges are held against counters once they have been looked at for most of an hour.
REPORTED_FOR_SECONDS = 3_600
REPORTED_EVERY_SECONDS = 240
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

DESCRIPTION = """
format = 1
from = 2020-01-01T00:00:00Z
[sites.hall]
contracted_watts = 5_000
pue = "1.20"
reserved_watts = { high = 1_000 }
carbon = { location = "386", market = "30", source = "made up" }
[pools.hall-1]
site = "hall"
hardware = "made up"
idle_watts = "100"
"""


class Factory:
    """What runs, and how it is made to serve requests."""

    def __init__(self, meter: RunningMeter, *, folder: Path) -> None:
        """Create the one account, its prices and its contract, and describe the factory."""
        self.meter = meter
        self._start = time.monotonic()
        self._session = Session(meter)
        self._session.create_account("acme")
        shell = Shell(meter.target, meter.api_key)
        for name, text in (("book.toml", BOOK), ("contract.toml", CONTRACT)):
            (folder / name).write_text(text, "utf-8")
        shell.run("prices", "import", str(folder / "book.toml"))
        shell.run("contracts", "set", str(folder / "contract.toml"))
        self._energy = EnergyServiceStub(self._session.channel)
        self._call(self._energy.SetFactory, SetFactoryRequest(toml=DESCRIPTION))
        self._call(self._energy.MarkSoftware, MarkSoftwareRequest(pool=POOL, software="sim 1"))
        for ago in range(REPORTED_FOR_SECONDS, 0, -REPORTED_EVERY_SECONDS):
            self._report(self._reading(WATTS, device="GPU-2", ago=ago, power_mw=WATTS * 1000))

    def serve_requests(self, *, model: str = "m") -> None:
        """Report a request of each tier; only model m has a price."""
        self._session.record(
            *(event(model=model, tier=tier, pool=POOL, tokens=TOKENS) for tier in TIERS)
        )
        self._report(
            self._reading(WATTS, device="GPU-2", power_mw=WATTS * 1000),
            self._reading(HOST_WATTS, device="host-1", boundary=ENERGY_BOUNDARY_HOST),
            self._reading(SITE_WATTS, device="main", boundary=ENERGY_BOUNDARY_FACILITY),
        )

    @contextmanager
    def producing(self) -> Iterator[None]:
        """A producer that is connected for the time of the block."""
        with talking(self._session) as talk:
            talk.say(opening())
            talk.hear()
            yield

    def _reading(
        self,
        watts: int,
        *,
        device: str,
        boundary: EnergyBoundary.ValueType = ENERGY_BOUNDARY_BOARD,
        ago: float = 0,
        power_mw: int | None = None,
    ) -> EnergyReading:
        """What a counter shows so many seconds ago, which gained by these watts for hours."""
        seconds = time.monotonic() - self._start + 2 * REPORTED_FOR_SECONDS - ago
        is_site = boundary == ENERGY_BOUNDARY_FACILITY
        reading = EnergyReading(
            pool="" if is_site else POOL,
            site=SITE if is_site else "",
            device=device,
            boundary=boundary,
            counter_mj=round(watts * seconds * 1000),
            power_mw=power_mw,
        )
        reading.time.FromNanoseconds(time.time_ns() - round(ago * 10**9))
        return reading

    def _report(self, *readings: EnergyReading) -> None:
        self._call(self._energy.RecordEnergy, RecordEnergyRequest(readings=readings))

    def _call(self, method: Callable[..., Any], request: Any) -> None:  # noqa: ANN401
        method(request, metadata=self._session.metadata, timeout=CALL_SECONDS_MAX)


@contextmanager
def running_factory(database_url: str, *, folder: Path) -> Iterator[Factory]:
    """A factory for the time of the block."""
    with _running_exporter() as url:
        settings = {
            "energy_sources": f"{POOL}={url}",
            "energy_scrape_seconds": "1",
            "customer_metrics_max": "1",
        }
        with running_meter_on(database_url, folder=folder, settings=settings) as meter:
            factory = Factory(meter, folder=folder)
            with factory.producing():
                yield factory


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
