"""The page of the settings."""

import dataclasses
from collections.abc import Iterator
from typing import Final

import click

from cli.main import tokenworks
from cli.settings import CONFIG, Settings
from docs.pages.page import codes, make_page, make_table

# What nobody is shown.
_SECRETS: Final = [field.name for field in dataclasses.fields(Settings) if not field.repr]
# They read no settings, though some of their options are called like one.
_OTHERS: Final = ("demo", "simulate")
_INTRODUCTION: Final = f"""\
A flag goes before the environment, the environment before the file, the file before the default. \
The file is TOML with the names below at its top level; `{CONFIG}` says where it is. A name that \
is not here is refused, in the file and in the environment, and so is a value that makes no sense: \
all faults are told at once.

A process reads its settings once, at its start. The last column says when a change counts. \
`tokenworks doctor` shows what is set and from where, and hides {codes(_SECRETS)}. `{CONFIG}` is \
`--config` of the commands."""


def make_settings_page() -> str:
    """Return the page: the settings, one row each."""
    flags = _flags()
    rows = [
        (
            f"`{field.metadata['env']}`",
            f"`{field.name}`",
            _write_flags(flags.get(field.name, {})),
            _write_default(field.default),
            field.metadata["help"],
            field.metadata["counts"],
        )
        for field in dataclasses.fields(Settings)
    ]
    head = ("Variable", "In the file", "Flag", "Default", "Meaning", "A change counts")
    return make_page(
        "Settings", source="`cli/settings.py`", body=[_INTRODUCTION, make_table(head, rows)]
    )


def _flags() -> dict[str, dict[str, list[str]]]:
    """Each setting's flags, and the commands that have them."""
    found: dict[str, dict[str, list[str]]] = {}
    known = {field.name for field in dataclasses.fields(Settings)}
    for path, command in _commands(tokenworks, ""):
        if path in _OTHERS:
            continue
        for option in command.params:
            if isinstance(option, click.Option) and option.name in known:
                flag = max(option.opts, key=len)
                found.setdefault(option.name, {}).setdefault(flag, []).append(path)
    return found


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from _commands(below, f"{path} {name}".strip())
        return
    yield path, command


def _write_flags(flags: dict[str, list[str]]) -> str:
    return "; ".join(
        f"`{flag}` of {codes(commands) if len(commands) <= _NAMED_MAX else _EVERY}"
        for flag, commands in flags.items()
    )


_NAMED_MAX: Final = 4
_EVERY: Final = "the commands that speak to a meter"


def _write_default(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{','.join(value)}`"
        case _:
            return f"`{value}`"
