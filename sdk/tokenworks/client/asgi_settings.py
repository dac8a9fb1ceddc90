"""What the environment says to a middleware that a server makes by itself; read once."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenworks.client.attribution import Attribution, Caller
from tokenworks.client.meter import Meter
from tokenworks.client.vocabulary import Source

PREFIX: Final = "TOKENWORKS_"


@dataclass(frozen=True, slots=True, kw_only=True)
class AsgiSettings:
    """What a middleware is made of."""

    meter: Meter
    attribution: Attribution
    model: str
    """The name under which the model is sold; empty for the one that the answer names."""


def read_environment() -> AsgiSettings:
    """Read `TOKENWORKS_…`; raises ValueError, which names the variable, where it makes no sense.

    Variables of other names are left alone: they may be somebody else's.
    """
    given = {
        name.removeprefix(PREFIX).lower(): text
        for name, text in os.environ.items()
        if name.startswith(PREFIX) and text
    }
    if "server" not in given:
        raise ValueError(f"{PREFIX}SERVER: host:port of the meter that is to be told")
    return AsgiSettings(
        meter=Meter(source=Source.ASGI, **_arguments(given)),
        attribution=_attribution(given),
        model=given.get("model", ""),
    )


def read_callers(path: Path) -> Mapping[str, Caller]:
    """Read a TOML file: the SHA-256 of each key, and its account or a table of account and tier.

    Raises ValueError where it is none, and OSError where it cannot be read.
    """
    entries = tomllib.loads(path.read_text("utf-8"))
    return {digest: _read_caller(path, entry) for digest, entry in entries.items()}


_METER: Final = (
    "api_key", "producer", "spool", "account", "tier", "pool", "region",
    "ca_certificate", "client_certificate", "client_key",
)  # fmt: skip
_ATTRIBUTION: Final = ("account_header", "tier_header")


def _arguments(given: Mapping[str, str]) -> dict[str, Any]:
    scheme, _, target = given["server"].rpartition("://")
    if scheme not in ("", "http", "https"):
        raise ValueError(f"{PREFIX}SERVER: host:port, http://host:port or https://host:port")
    arguments: dict[str, Any] = {name: given[name] for name in _METER if name in given}
    return arguments | {"target": target, "insecure": scheme == "http"}


def _attribution(given: Mapping[str, str]) -> Attribution:
    arguments: dict[str, Any] = {name: given[name] for name in _ATTRIBUTION if name in given}
    if "callers" in given:
        path = Path(given["callers"])
        try:
            arguments["callers"] = read_callers(path)
        except OSError as error:
            raise ValueError(f"{PREFIX}CALLERS: {path}: {error.strerror}") from error
    return Attribution(**arguments)


def _read_caller(path: Path, entry: Any) -> Caller:  # noqa: ANN401 - what stands in a file
    given = {"account": entry} if isinstance(entry, str) else entry
    is_clean = isinstance(given, dict) and given.keys() <= {"account", "tier"}
    if not is_clean or not all(isinstance(value, str) for value in given.values()):
        raise ValueError(f"{path}: each entry is an account, or a table of account and tier")
    if not given.get("account"):
        raise ValueError(f"{path}: an entry without an account")
    return Caller(**given)
