"""What a row is to reach: in words for the page, and as a question to a value and its bound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal; called with a value and its bound it tells whether it is reached."""

    words: str
    is_reached: Callable[[float, float], bool]

    def __call__(self, value: float, bound: float) -> bool:
        """Tell whether a value beside its bound is enough."""
        return self.is_reached(value, bound)


# How old the oldest segment may be that is not counted.
BEHIND_SECONDS_MAX: Final = 5.0
NO_GOAL: Final = Goal(words="–", is_reached=lambda *_: True)


def at_least(least: float) -> Goal:
    """Return the goal of a value that is at least so much, in the row's unit."""
    return Goal(words=f"≥ {least:,}", is_reached=lambda value, _: value >= least)


def at_most(most: float) -> Goal:
    """Return the goal of a value that is at most so much, in the row's unit."""
    return Goal(words=f"≤ {most:,}", is_reached=lambda value, _: value <= most)


def at_least_of_bound(share: float) -> Goal:
    """Return the goal of a value that is at least such a part of its bound."""
    return Goal(
        words=f"≥ {share:g} × bound", is_reached=lambda value, bound: value >= share * bound
    )


def at_most_of_bound(factor: float) -> Goal:
    """Return the goal of a value that is at most so many times its bound."""
    return Goal(
        words=f"≤ {factor:g} × bound", is_reached=lambda value, bound: value <= factor * bound
    )
