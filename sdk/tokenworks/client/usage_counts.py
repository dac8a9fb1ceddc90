"""What usage objects have in them: counts under the names that their makers chose."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenworks.client.foreign import Unfit
from tokenworks.client.vocabulary import TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a usage object says."""

    tokens: Mapping[TokenClass, int] = field(default_factory=dict)
    """Disjoint classes with tokens in them, each > 0."""
    reported_input_count: int
    """All prompt tokens, cached ones included: the provider's own total."""
    reported_output_count: int
    """All generated tokens, reasoning included: the provider's own total."""


def present(tokens: Mapping[TokenClass, int]) -> Mapping[TokenClass, int]:
    """Return the classes that have tokens."""
    return {token_class: count for token_class, count in tokens.items() if count}


def rest_of(total: int, parts: Mapping[TokenClass, int], *, name: str) -> int:
    """Return what of a total is in none of its parts; raises Unfit where they exceed it."""
    return less(total, sum(parts.values()), name=name)


def less(total: int, part: int, *, name: str) -> int:
    """Return a total without a part of it; raises Unfit where that exceeds it."""
    if part > total:
        raise Unfit(f"the parts of {name} exceed it")
    return total - part


def total_of(usage: object, name: str) -> int:
    """Return a count that has to be there; raises Unfit."""
    if value_of(usage, name) is None:
        raise Unfit(f"{name} is missing")
    return count_of(usage, name)


def count_of(usage: object, name: str) -> int:
    """Return a count, 0 where it is absent; raises Unfit for what is no whole number ≥ 0."""
    value = value_of(usage, name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unfit(f"{name} is no count")
    return value


def value_of(usage: object, name: str) -> object:
    """Return what a mapping, or an object with attributes, has under a name; None where absent."""
    if usage is None:
        return None
    if isinstance(usage, Mapping):
        value: object = usage.get(name)
        return value
    return getattr(usage, name, None)
