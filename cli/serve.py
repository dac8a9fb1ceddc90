"""`tokenworks serve`: the meter on a database that somebody else keeps, as in production."""

import json
from pathlib import Path

import click

from cli.connection import load_settings
from cli.credentials import read_pepper
from cli.db import get_database_url, is_schema_behind
from cli.logs import configure_logging
from cli.meter_process import StopRequest, check_ports, make_options, refuse_exposure
from cli.process import CommandError, Exit
from cli.workers.serving import serve_with
from meter.options import Addresses


@click.command("serve")
@click.option("--grpc-address", metavar="HOST:PORT", help="Where to listen for gRPC.")
@click.option("--http-address", metavar="HOST:PORT", help="Where to listen for HTTP.")
@click.option("--otlp", is_flag=True, default=None, help="Take OpenTelemetry's traces and logs.")
@click.option("--sources", metavar="FILE", help="Where sources have the account and the rest.")
@click.option("--workers", type=int, metavar="N", help="How many processes serve.")
@click.option("--insecure", is_flag=True, default=None, help="Allow other machines without TLS.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON.")
def serve(
    *,
    grpc_address: str | None,
    http_address: str | None,
    otlp: bool | None,
    sources: str | None,
    workers: int | None,
    insecure: bool | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Run the meter on the migrated database of TOKENWORKS_DATABASE_URL until SIGTERM or Ctrl-C.

    Nothing is migrated and no API key is made: see `tokenworks db upgrade`.
    """
    settings = load_settings(
        config,
        flags={
            "grpc_address": grpc_address,
            "http_address": http_address,
            "otlp": otlp,
            "sources_file": sources,
            "workers": workers,
            "insecure": insecure,
        },
    )
    refuse_exposure(settings)
    database_url = get_database_url(settings)
    if settings.key_pepper_file is None:
        raise CommandError(
            "no key pepper is named: set TOKENWORKS_KEY_PEPPER_FILE", code=Exit.USAGE
        )
    options = make_options(
        settings, database_url=database_url, key_pepper=read_pepper(settings.key_pepper_file)
    )
    check_ports(settings)
    if is_schema_behind(database_url):
        raise CommandError("the database's schema is not up to date: run `tokenworks db upgrade`")
    configure_logging(settings.log_level, form=settings.log_format)

    def tell(addresses: Addresses) -> None:
        clock = addresses.sandbox_clock
        if as_json:
            told = {
                "grpc": addresses.grpc,
                "http": addresses.http,
                "otlp_grpc": addresses.otlp_grpc,
                "otlp_http": addresses.otlp_http,
                "sandbox_clock": clock,
            }
            click.echo(json.dumps(told))
        else:
            line = f"\nClock {clock}, driven: SANDBOX" if clock is not None else ""
            otlp = f"\nOTLP {addresses.otlp_grpc} and {addresses.otlp_http}"
            otlp = "" if addresses.otlp_grpc is None else otlp
            click.echo(f"gRPC {addresses.grpc}\nHTTP {addresses.http}{otlp}{line}")

    with StopRequest() as stop:
        serve_with(settings, options, stop=stop, ready=tell)
