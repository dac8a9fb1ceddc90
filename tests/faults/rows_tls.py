"""Certificates that are renewed, or run out, under load, and connections that live for seconds."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.authority import OPENSSL, Authority, put
from tests.faults.fleet import Sender
from tests.faults.plant import MeterProcess, run_command
from tests.faults.row import Seen, Skipped, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_SENDERS: Final = ("east", "west")
_AGE_SECONDS: Final = 2
# Of a client's first certificate: it is renewed before it runs out, the second one is not.
_CLIENT_SECONDS: Final = 14
_RUN_OUT_SECONDS: Final = 10
_ENDED = re.compile(r"state=connecting .*code=OK")
_CUT = re.compile(r"state=(?:waiting|refused) ")


@row(
    "certificates-renewed",
    fault="the meter's certificate and those of its clients are renewed under load, then run out",
    how="connections live for 2 s; producers have no API key, but one that is bound to their"
    " certificate; at last nothing is renewed for a while",
    expected="nothing is restarted; while no certificate is valid nothing comes, then all of it",
)
def certificates_renewed(site: Site) -> Seen:
    """Renew all, let those of clients run out, renew them again."""
    site.start()
    plant = _Certificates(site)
    meter = plant.start_meter()
    senders = [plant.report(name, meter=meter) for name in _SENDERS]
    site.load()
    plant.renew("meter")
    for name in _SENDERS:
        plant.renew(name, seconds=_RUN_OUT_SECONDS)
    wait_until(
        lambda: "certificate_read" in meter.log.read_text("utf-8"),
        seconds_max=20,
        what="the meter reads its certificate",
    )
    # Each may have been cut off before, when the meter's certificate was exchanged.
    before = [_said(sender, _CUT) for sender in senders]
    site.load()
    wait_until(
        lambda: all(
            _said(sender, _CUT) > count for sender, count in zip(senders, before, strict=True)
        ),
        seconds_max=40,
        what="no certificate of a client is valid",
    )
    position = site.position()
    site.load(2)
    late = site.position() - position
    for name in _SENDERS:
        plant.renew(name)
    site.wait_for_progress(seconds_max=40)
    site.load()
    read = meter.log.read_text("utf-8").count("certificate_read")
    # What was under way when the last one ran out may have been written down a moment later.
    return Seen(
        count=read + sum(_said(sender, _ENDED) for sender in senders),
        what=f"connections that ended in good order, and {read} certificate of the meter renewed",
        wrong=f"{late} segments came without a valid certificate" if late > 1 else "",
    )


@row(
    "connections-of-two-seconds",
    fault="connections live for 2 s, so that every producer comes anew all the time",
    how="TOKENWORKS_CONNECTION_AGE_SECONDS=2 under load, with and without a spool",
    expected="streams end in good order before their connection; counted once",
    starts_itself=True,
)
def connections_of_two_seconds(site: Site) -> Seen:
    """Have all connections end, again and again."""
    site.start(meter_environment={"TOKENWORKS_CONNECTION_AGE_SECONDS": str(_AGE_SECONDS)})
    senders = [site.report("east"), site.report("west", client={})]
    site.call("unary")
    site.load()
    site.load(9)
    cut = sum(_said(sender, _CUT) for sender in senders)
    return Seen(
        count=sum(_said(sender, _ENDED) for sender in senders),
        what="streams that ended in good order, their producers back at once",
        wrong=f"{cut} streams were cut" if cut else "",
    )


class _Certificates:
    """An authority, and what it has signed for the meter and its clients."""

    def __init__(self, site: Site) -> None:
        if OPENSSL is None:
            raise Skipped("there is no openssl here")
        self._site = site
        self._folder = site.folder / "certificates"
        (self._folder / "in-use").mkdir(parents=True)
        self._authority = Authority(self._folder)

    def start_meter(self) -> MeterProcess:
        """Start a second meter on the database, which wants to see certificates."""
        certificate, key = self.renew("meter")
        meter = self._site.make_meter(
            "meter-tls",
            environment={
                "TOKENWORKS_TLS_CERTIFICATE": str(certificate),
                "TOKENWORKS_TLS_KEY": str(key),
                "TOKENWORKS_TLS_CLIENT_CA": str(self._authority.certificate),
                "TOKENWORKS_CONNECTION_AGE_SECONDS": str(_AGE_SECONDS),
            },
        )
        meter.start()
        return meter

    def report(self, name: str, *, meter: MeterProcess) -> Sender:
        """Start a sender whose API key is bound to its certificate."""
        certificate, key = self.renew(name, seconds=_CLIENT_SECONDS)
        run_command(
            *("keys", "create", "/", "--role", "producer", "--certificate", _uri(name)),
            server=self._site.meter.grpc,
            api_key=self._site.api_key,
        )
        client = {
            "ca_certificate": str(self._authority.certificate),
            "client_certificate": str(certificate),
            "client_key": str(key),
            **(self._site.spool() if name == "east" else {}),
        }
        return self._site.report(name, client=client, target=meter.grpc)

    def renew(self, name: str, *, seconds: float | None = None) -> tuple[Path, Path]:
        """Sign a new certificate, valid for so long, or a day; put it in use; returns where."""
        sans: Sequence[str] = ("IP:127.0.0.1",) if name == "meter" else (f"URI:{_uri(name)}",)
        end = datetime.now(UTC) + timedelta(seconds=86_400 if seconds is None else seconds)
        made = self._authority.sign_until(name, *sans, end=end)
        place = self._folder / "in-use" / f"{name}.pem", self._folder / "in-use" / f"{name}.key"
        put(made, place)
        return place


def _uri(name: str) -> str:
    return f"spiffe://faults/{name}"


def _said(sender: Sender, what: re.Pattern[str]) -> int:
    """Return how often a sender's log says this."""
    return len(what.findall(sender.log.read_text("utf-8")))
