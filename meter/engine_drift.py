"""What engines counted themselves, less what was metered of it, as others read it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

MILLION: Final = 1_000_000
# From here on it is worth a look: engines that counted so much more or less than was metered of
# them, and a source of reports that was not heard for so long.
DRIFT_PPM_MAX: Final = 10_000
QUIET_SECONDS_MAX: Final = 900


class TokenKind(StrEnum):
    """What an engine's counter counts; the values are those of SQL and of the metrics.

    A prompt has its cached tokens with it, an uncached one is without them.
    """

    PROMPT = "prompt"
    UNCACHED_PROMPT = "uncached_prompt"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDrift:
    """Tokens of one kind that a pool's engines counted of a model in `[start_ms, end_ms)`.

    `compared_ms` of that time were read whole, and the counts are of them alone. `model` is the
    engines' own name of it; empty where their counters tell no models, and all of the pool's are
    meant. `models` are the names that are billed. Of `engine_tokens`, ≥ 0, `gap_tokens` came
    between reads that lay far apart; `reset_count` engines began anew, and what they counted right
    before is not known. `metered_tokens` is signed, as usage is.
    """

    pool: str
    model: str
    kind: TokenKind
    start_ms: int
    end_ms: int
    compared_ms: int
    engine_tokens: int
    metered_tokens: int
    gap_tokens: int = 0
    reset_count: int = 0
    models: frozenset[str] = frozenset()

    @property
    def tokens(self) -> int:
        """How many more the engines counted than were metered; below 0: how many fewer."""
        return self.engine_tokens - self.metered_tokens

    @property
    def ppm(self) -> int:
        """The drift in millionths of the larger of both counts, rounded towards 0."""
        larger = max(self.engine_tokens, self.metered_tokens)
        if larger <= 0:
            return 0
        size = min(abs(self.tokens), larger) * MILLION // larger
        return size if self.tokens >= 0 else -size


class EngineDrifts(Protocol):
    """Compares engines' counters with usage."""

    def compare(self, *, start_ms: int, end_ms: int) -> Sequence[EngineDrift]:
        """Return the drift of each pool, model and kind in a time; both ends are on edges.

        By pool, model and kind. Raises Unavailable.
        """
        ...

    @property
    def hold_ppm(self) -> int | None:
        """From how much drift on (millionths) an invoice is held; None: it holds none."""
        ...
