"""`tokenworks up`: everything on this machine in one folder, Postgres included."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from cli.connection import load_settings
from cli.credentials import Credentials, read_pepper, write_secret
from cli.db import upgrade_schema
from cli.folder_lock import hold_folder
from cli.local_key import find_or_make_key, provide_credentials
from cli.logs import configure_logging
from cli.meter_process import (
    StopRequest,
    check_ports,
    make_options,
    refuse_exposure,
)
from cli.postgres.errors import PostgresError
from cli.postgres.folder import USER
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import DATABASE, Postgres
from cli.process import CommandError, report_progress
from cli.settings import Settings
from cli.workers.serving import serve_with
from meter.options import Addresses
from meter.runtime.ids import random_bytes

PEPPER_BYTES = 32
PASSWORD_BYTES = 24
WATCH_SECONDS = 0.5
DEFAULT_FOLDER = Path(".tokenworks")
_FOLDER = click.Path(path_type=Path, file_okay=False)
_log = logging.getLogger("tokenworks")


@click.command("up")
@click.option("--dir", "folder", type=_FOLDER, default=DEFAULT_FOLDER, show_default=True,
              help="Folder of all data, keys and logs.")  # fmt: skip
@click.option("--pg-bin", metavar="DIR", help="Folder of the Postgres programs to use (15 to 18).")
@click.option("--pg-port", type=click.IntRange(1, 65535), help="Port of Postgres; else a free one.")
@click.option("--grpc-address", metavar="HOST:PORT", help="Where to listen for gRPC.")
@click.option("--http-address", metavar="HOST:PORT", help="Where to listen for HTTP.")
@click.option("--otlp", is_flag=True, default=None, help="Take OpenTelemetry's traces and logs.")
@click.option("--sources", metavar="FILE", help="Where sources have the account and the rest.")
@click.option("--insecure", is_flag=True, default=None, help="Allow other machines without TLS.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON.")
def up(
    *,
    folder: Path,
    pg_bin: str | None,
    pg_port: int | None,
    grpc_address: str | None,
    http_address: str | None,
    otlp: bool | None,
    sources: str | None,
    insecure: bool | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Run Postgres and the meter until Ctrl-C; all that they know stays in one folder.

    With TOKENWORKS_DATABASE_URL no Postgres is started: that one is migrated and used.
    """
    flags = {
        "pg_bin": pg_bin,
        "grpc_address": grpc_address,
        "http_address": http_address,
        "otlp": otlp,
        "sources_file": sources,
        "insecure": insecure,
    }
    settings = load_settings(config, flags=flags)
    refuse_exposure(settings)
    folder = folder.absolute()
    with StopRequest() as stop, ExitStack() as stack:
        lock = stack.enter_context(hold_folder(folder))
        check_ports(settings)
        database_url, postgres = settings.database_url, None
        if database_url is None:
            postgres = stack.enter_context(
                _running_postgres(folder, settings=settings, port=pg_port, stop=stop)
            )
            database_url = postgres.url()
        for name in upgrade_schema(database_url):
            report_progress(f"schema: applied {name}")
        pepper = read_pepper(settings.key_pepper_file or _provide_pepper(folder))
        options = make_options(settings, database_url=database_url, key_pepper=pepper)
        configure_logging(settings.log_level, form=settings.log_format)
        key_file = folder / "credentials.json"
        api_key = find_or_make_key(key_file, options=options)

        def tell(addresses: Addresses) -> None:
            made = provide_credentials(
                key_file, api_key=api_key, options=options, addresses=addresses, settings=settings
            )
            lock.describe(f"gRPC {made.target}, HTTP {made.http}")
            _tell(folder, addresses, credentials=made, postgres=postgres, as_json=as_json)

        serve_with(settings, options, stop=stop, ready=tell)
        report_progress("the meter has stopped")


@contextmanager
def _running_postgres(
    folder: Path, *, settings: Settings, port: int | None, stop: StopRequest
) -> Iterator[Postgres]:
    """Our own Postgres for the time of the block."""
    try:
        programs = find_programs(settings.pg_bin)
        postgres = Postgres(folder / "postgres", programs=programs, port=port)
        try:
            attached = postgres.start(password=random_bytes(PASSWORD_BYTES).hex())
            state = "was still running" if attached else "started"
            report_progress(f"Postgres {programs.major} {state} on port {postgres.port}")
            with _watched(postgres):
                yield postgres
        finally:
            stop.ignore_further()
            postgres.stop()
            report_progress("Postgres has stopped")
    except PostgresError as error:
        raise CommandError(str(error)) from error


@contextmanager
def _watched(postgres: Postgres) -> Iterator[None]:
    """See to it that Postgres runs for the time of the block: one that was killed comes again."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            if not postgres.is_running():
                _log.error("postgres_died")
                try:
                    postgres.start(password=None)
                    _log.info("postgres_started", extra={"port": postgres.port})
                except PostgresError as error:
                    _log.error("postgres_not_started", extra={"fault": str(error)})

    watching = threading.Thread(target=watch, name="postgres-watch")
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _provide_pepper(folder: Path) -> Path:
    path = folder / "key-pepper"
    if not path.exists():
        write_secret(path, random_bytes(PEPPER_BYTES).hex() + "\n")
    return path


def _tell(
    folder: Path,
    addresses: Addresses,
    *,
    credentials: Credentials,
    postgres: Postgres | None,
    as_json: bool,
) -> None:
    """Say where everything is, and what to type next."""
    clock = addresses.sandbox_clock
    key_file = folder / "credentials.json"
    place = f"{USER}@127.0.0.1:{postgres.port}/{DATABASE}" if postgres is not None else None
    if as_json:
        told = {
            "postgres": f"postgresql://{place}" if place else None,
            "grpc": credentials.target,
            "http": credentials.http,
            "otlp_grpc": addresses.otlp_grpc,
            "otlp_http": addresses.otlp_http,
            "credentials": str(key_file),
            "sandbox_clock": clock,
        }
        click.echo(json.dumps(told))
        return
    if place is None:
        where = "the one of TOKENWORKS_DATABASE_URL"
    else:
        where = f"postgresql://{place} (password in {folder / 'postgres' / 'password'})"
    line = f"Clock     {clock}, driven: SANDBOX\n" if clock is not None else ""
    if addresses.otlp_grpc is not None:
        line = f"OTLP      {addresses.otlp_grpc} and {addresses.otlp_http}\n{line}"
    found_by_itself = folder == DEFAULT_FOLDER.absolute()
    prefix = "" if found_by_itself else f"TOKENWORKS_CREDENTIALS_FILE={key_file} "
    click.echo(
        f"Postgres  {where}\n"
        f"gRPC      {credentials.target}\n"
        f"HTTP      http://{credentials.http}/metrics\n"
        f"API key   {key_file}\n"
        f"{line}"
        "\n"
        "Tokenworks is running; Ctrl-C stops all of it. Next, in another terminal:\n"
        f"  {prefix}tokenworks accounts create acme --id acme"
    )
