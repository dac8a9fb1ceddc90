"""What a row is, what comes out of one, and the register of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.faults.site import Site


class Skipped(RuntimeError):
    """The machine, its rights, or this version of the product cannot make the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What proves that the fault happened, as a number of something."""

    count: int
    what: str
    loss_max: int = 0
    """Events that may be lost: the stated bound of a sender without a spool."""
    at_risk_max: int = 0
    """Events that a killed sender with a spool may lose: those after its last promise."""
    refused_max: int = 0
    """Events that clients may refuse to take, saying so."""
    set_aside_min: int = 0
    """Events that must be in quarantine at the end …"""
    set_aside_max: int = 0
    """… and that may be; never fewer than must."""
    wrong: str = ""
    """What was not as expected apart from the events; empty when all was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, how it is made, and what has to come of it."""

    name: str
    fault: str
    how: str
    expected: str
    act: Callable[["Site"], Seen]
    behind_proxy: bool
    """Whether the meter reaches its Postgres through a proxy."""
    starts_itself: bool
    """Whether the row starts the site, which it changes before."""
    wants_doubled: bool
    """A row that tests the harness: it is right when something was counted twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a row; the numbers count events."""

    fault: str
    expected: str
    seen: str
    sent: int = 0
    counted: int = 0
    lost: int = 0
    doubled: int = 0
    set_aside: int = 0
    at_risk_lost: int = 0
    refused: int = 0
    ok: bool = False
    seconds: float = 0.0
    skipped: str | None = None
    wrong: str | None = None
    """Why the row is not ok; None when it is."""


ROWS: Final[dict[str, Row]] = {}
"""All rows by name."""


def row(
    name: str,
    *,
    fault: str,
    how: str,
    expected: str,
    behind_proxy: bool = False,
    starts_itself: bool = False,
    wants_doubled: bool = False,
) -> Callable[[Callable[["Site"], Seen]], Callable[["Site"], Seen]]:
    """Register a function as a row: it loads the site, makes the fault and heals it."""

    def register(act: Callable[["Site"], Seen]) -> Callable[["Site"], Seen]:
        assert name not in ROWS, name
        ROWS[name] = Row(
            name=name,
            fault=fault,
            how=how,
            expected=expected,
            act=act,
            behind_proxy=behind_proxy,
            starts_itself=starts_itself,
            wants_doubled=wants_doubled,
        )
        return act

    return register
