"""What tokens took, and which pool served them: what may be asked beside usage. Pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from meter.domain.boundary import Boundary
from meter.domain.tokens import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFact:
    """Energy of a pool (mJ) that was attributed to an account's tokens in one interval.

    `estimated_mj` of it is no counter's, as near as its pool's interval tells. `output_tokens` are
    those that it was attributed to.
    """

    account_id: str
    interval_start_ms: int
    pool: str
    boundary: Boundary
    factory_version: int
    energy_mj: int
    estimated_mj: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePue:
    """How much more a site takes than its pools: its PUE ≥ 1, measured or configured."""

    site: str
    pue: Decimal
    is_measured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTokens:
    """Tokens of an account and sku that a pool served in an interval; a pool of "" is unnamed.

    `served_model` is never empty. Counts are signed, as those of usage.
    """

    account_id: str
    interval_start_ms: int
    pool: str
    model: str
    served_model: str
    tier: str
    mode: Mode
    region: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Consumption(Protocol):
    """Reads what was attributed to whom."""

    def energy(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, boundary: Boundary
    ) -> Iterator[EnergyFact]:
        """Yield the facts in `[start_ms, end_ms)`, on edges, of boards or hosts."""
        ...

    def pues(self, *, start_ms: int, end_ms: int) -> dict[str, SitePue]:
        """Return the PUE by pool, of the sites whose PUE is known, over `[start_ms, end_ms)`."""
        ...

    def pool_tokens(self, *, start_ms: int, end_ms: int) -> Sequence[PoolTokens]:
        """Return the tokens of named pools in `[start_ms, end_ms)`, on edges."""
        ...
