"""The factory as its operator describes it: sites, pools, and what tokens weigh. Pure.

Descriptions are versions: each is in force from its begin until the next one's, and never changes.
"""

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final

# Weights are whole millionths: shares of energy are made of integers alone.
WEIGHT_UNIT: Final = 1_000_000


class IdlePolicy(StrEnum):
    """What becomes of the energy that devices take for idling; the values are those of the file."""

    UNATTRIBUTED = "unattributed"
    PROPORTIONAL = "proportional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a token of each kind takes beside the others, in millionths ≥ 0; not all are 0.

    They are for one hardware ("" for any) and for the models that a pattern fits, in which `*`
    stands for any characters ("" for any). `source` says where they are from.
    """

    hardware: str = ""
    model: str = ""
    input: int
    cached_input: int
    output: int
    source: str = ""

    def fits(self, *, hardware: str, model: str) -> bool:
        """Tell whether they are for a model on a hardware."""
        if self.hardware not in {"", hardware}:
            return False
        parts = map(re.escape, (self.model or "*").split("*"))
        return re.fullmatch(".*".join(parts), model, re.DOTALL) is not None

    def weigh(self, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """Return the weight of tokens."""
        return (
            self.input * input_tokens
            + self.cached_input * cached_tokens
            + self.output * output_tokens
        )


# Without a description a prompt costs nothing, and each generated token the same.
BY_OUTPUT: Final = Weights(input=0, cached_input=0, output=WEIGHT_UNIT, source="output tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Carbon:
    """Grams of CO2e a kilowatt-hour, by location and by market; None is not known."""

    location: Decimal | None
    market: Decimal | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site: what its contract for electricity allows (W), and what of it is for tiers (W).

    `pue` ≥ 1 is the configured one, for where no meter of the site is read.
    """

    site: str
    contracted_watts: int
    pue: Decimal | None = None
    reserved_watts: Mapping[str, int] = field(default_factory=dict)
    carbon: Carbon | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool: where it stands, of what it is made, and what its devices take for idling.

    `device_count` is None where it is not said; `devices` are their names, empty where they are not
    listed. `idle_mw` is what one device takes, in mW.
    """

    pool: str
    site: str
    hardware: str
    device_count: int | None = None
    devices: frozenset[str] = frozenset()
    idle_mw: int = 0
    idle: IdlePolicy = IdlePolicy.UNATTRIBUTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """A version of the description; `version` counts from 1, 0 stands for none at all."""

    version: int
    start_ms: int
    sites: Mapping[str, Site] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    weights: tuple[Weights, ...] = ()

    def find_site(self, pool: str) -> Site | None:
        """Return the site of a pool."""
        found = self.pools.get(pool)
        return None if found is None else self.sites[found.site]

    def weights_of(self, *, pool: str, model: str) -> Weights:
        """Return what a model's tokens weigh on a pool: the first weights that fit."""
        found = self.pools.get(pool)
        hardware = "" if found is None else found.hardware
        for weights in self.weights:
            if weights.fits(hardware=hardware, model=model):
                return weights
        return BY_OUTPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFactory:
    """A version as it was taken in: its file, and when (ms since 1970, UTC)."""

    factory: Factory
    toml: str
    set_ms: int


UNDESCRIBED: Final = Factory(version=0, start_ms=0)


class Factories:
    """All versions; never changes."""

    __slots__ = ("_starts_ms", "_versions")

    def __init__(self, versions: Iterable[Factory] = ()) -> None:
        """Take the versions in any order, no two of which begin at the same time."""
        self._versions = sorted(versions, key=lambda it: it.start_ms)
        self._starts_ms = [it.start_ms for it in self._versions]

    def __iter__(self) -> Iterator[Factory]:
        return iter(self._versions)

    def at(self, at_ms: int) -> Factory:
        """Return the version in force at an instant; `UNDESCRIBED` where there is none."""
        place = bisect.bisect_right(self._starts_ms, at_ms)
        return self._versions[place - 1] if place else UNDESCRIBED
