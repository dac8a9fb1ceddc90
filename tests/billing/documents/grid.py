"""What was sold of every combination of models, tiers and classes."""

from collections.abc import Sequence
from typing import Final

from meter.domain.tokens import TokenClass
from tests.billing.invoices import INPUT, OUTPUT, Sold

TIERS: Final = ("free", "medium", "high", "premium", "ultra")


def grid(
    models: Sequence[str],
    tiers: Sequence[str] = TIERS,
    classes: Sequence[TokenClass] = (INPUT, OUTPUT),
) -> list[Sold]:
    """Return every combination, with counts that look like counts."""
    places = [(model, tier, it) for model in models for tier in tiers for it in classes]
    # A multiple of a prime modulo another one: spread, and the same at every run.
    return [
        Sold(model, tier, it, 7 + (place + 1) * 7_919_771_113 % 999_999_937)
        for place, (model, tier, it) in enumerate(places)
    ]
