"""`tokenworks top`: options in; a screen, tables or lines of JSON out."""

import io
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from cli.connection import load_settings
from cli.process import CommandError, Exit, report_progress, until_interrupted
from cli.settings import Settings
from cli.top.answer import to_json
from cli.top.counters import Report
from cli.top.endpoint import Endpoint, NoAnswer, find_url
from cli.top.screen import Place, render, write_silence
from cli.top.watch import Frame, watch
from tokenworks.client.clock import time_ns

SECONDS_MIN: Final = 0.1
SECONDS_MAX: Final = 86_400
# Wide enough for any table: what is piped into another program is neither cut nor wrapped.
_PIPED_COLUMNS: Final = 100_000
_PIPED_LAYOUT_COLUMNS: Final = 100


def _check_seconds(context: click.Context, param: click.Parameter, value: float) -> float:
    """Return the seconds; click's range lets through what is no number."""
    if math.isnan(value):
        raise click.BadParameter("must be a number of seconds", context, param)
    return value


_SECONDS: Final = click.FloatRange(SECONDS_MIN, SECONDS_MAX)


@click.command("top")
@click.option(
    "--metrics",
    "url",
    metavar="URL",
    help="The metrics page to read; without it, the one of the meter in the credentials file.",
)
@click.option(
    "--every",
    type=_SECONDS,
    callback=_check_seconds,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from one reading to the next.",
)
@click.option(
    "--window",
    type=_SECONDS,
    callback=_check_seconds,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that the rates are taken over.",
)
@click.option("--once", is_flag=True, help="Read twice, print the rates between, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line and refresh.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def top(
    *,
    url: str | None,
    every: float,
    window: float,
    once: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Watch tokens/s, watts, tokens per joule and $/MWh by tier, until Ctrl-C.

    Reads the meter's metrics page, which needs no API key. Where stdout is no terminal, tables
    follow each other. What has no valid power beside it, or no price, is "–".
    """
    endpoint = _find_endpoint(url, settings=load_settings(config, flags={}))
    frames = watch(
        endpoint.read,
        every_seconds=every,
        window_seconds=window,
        now_ms=lambda: time_ns() // 1_000_000,
        wait=time.sleep,
    )
    with until_interrupted():
        try:
            first = next(frames)
        except NoAnswer as error:
            message = f"no metrics at {endpoint.url}: {error}"
            raise CommandError(message, code=Exit.UNREACHABLE) from error
        frames = chain([first], frames)
        if as_json:
            _print_json(frames, endpoint=endpoint, once=once)
        elif once:
            _print_tables(frames, endpoint=endpoint, once=True, curve_seconds=None)
        elif sys.stdout.isatty() and not _make_console().is_dumb_terminal:
            _show_live(frames, endpoint=endpoint, curve_seconds=window)
        else:
            _print_tables(frames, endpoint=endpoint, once=False, curve_seconds=window)


def _find_endpoint(url: str | None, *, settings: Settings) -> Endpoint:
    place = find_url(settings) if url is None else url
    try:
        return Endpoint(place, ca_certificate=settings.ca_certificate)
    except ValueError as error:
        raise click.BadParameter(f"{place!r} {error}", param_hint="--metrics") from error


def _make_console() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A bar that the terminal's character set lacks is no reason to end.
        sys.stdout.reconfigure(errors="replace")
    is_terminal = sys.stdout.isatty()
    width = None if is_terminal else _PIPED_COLUMNS
    return Console(file=sys.stdout, width=width, force_terminal=is_terminal)


def _place(console: Console, *, endpoint: Endpoint, curve_seconds: float | None) -> Place:
    is_terminal = console.is_terminal
    return Place(
        address=endpoint.address,
        is_terminal=is_terminal,
        columns=console.width if is_terminal else _PIPED_LAYOUT_COLUMNS,
        lines=None,
        curve_seconds=curve_seconds,
    )


def _print_json(frames: Iterator[Frame], *, endpoint: Endpoint, once: bool) -> None:
    for frame, report in _with_rates(frames, endpoint=endpoint, once=once):
        click.echo(json.dumps(to_json(frame, report, url=endpoint.url), allow_nan=False))


def _print_tables(
    frames: Iterator[Frame], *, endpoint: Endpoint, once: bool, curve_seconds: float | None
) -> None:
    console = _make_console()
    place = _place(console, endpoint=endpoint, curve_seconds=curve_seconds)
    for frame, _ in _with_rates(frames, endpoint=endpoint, once=once):
        console.print(render(frame, place=place, console=console), "", highlight=False)


def _with_rates(
    frames: Iterator[Frame], *, endpoint: Endpoint, once: bool
) -> Iterator[tuple[Frame, Report]]:
    """Return each refresh that has rates; that the server is silent is told once, on stderr."""
    silent_since_ms = None
    for frame in frames:
        if frame.silence is not None:
            sentence = write_silence(frame.silence, address=endpoint.address)
            if once:
                raise CommandError(sentence, code=Exit.UNREACHABLE)
            if silent_since_ms != frame.silence.since_ms:
                report_progress(sentence)
            silent_since_ms = frame.silence.since_ms
        elif frame.report is not None:
            yield frame, frame.report
            if once:
                return


def _show_live(frames: Iterator[Frame], *, endpoint: Endpoint, curve_seconds: float) -> None:
    """Show each refresh in place of the one before, in the size that the terminal has then."""
    console = _make_console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for frame in frames:
            place = _place(console, endpoint=endpoint, curve_seconds=curve_seconds)
            place = replace(place, lines=console.height)
            live.update(render(frame, place=place, console=console), refresh=True)
