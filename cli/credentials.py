"""Secrets in files: the key pepper, and what local commands need to reach the meter.

Each is written whole or not at all, and only its owner can read it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cli.process import CommandError

PEPPER_BYTES_MIN = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where a meter is and an API key for it.

    `target` is gRPC's host:port, with https:// before it under TLS; so is `http` of HTTP.
    """

    target: str
    http: str
    api_key: str


def read_pepper(path: Path) -> bytes:
    """The pepper of a file of hexadecimal digits, at least 32 bytes. Raises CommandError."""
    try:
        pepper = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise CommandError(f"the key pepper cannot be read from {path}: {error}") from error
    if len(pepper) < PEPPER_BYTES_MIN:
        raise CommandError(f"the key pepper in {path} is shorter than {PEPPER_BYTES_MIN} bytes")
    return pepper


def find_credentials(path: Path) -> Credentials | None:
    """The credentials of a file, None if there is none. Raises CommandError if it is broken."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return Credentials(
            target=content["target"], http=content["http"], api_key=content["api_key"]
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{path} cannot be read, remove it: {error!r}") from error


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Write the file that local commands look for."""
    content = {
        "target": credentials.target,
        "http": credentials.http,
        "api_key": credentials.api_key,
    }
    write_secret(path, json.dumps(content, indent=2) + "\n")


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 600 in one step: a reader sees the old one or the new one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
