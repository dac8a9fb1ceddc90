"""What one run of a row yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A value beside the bound that was taken in the same run, and on what.

    `unmet` says in words what the row asks beside its value and did not find: with any of it the
    row is not ok.
    """

    value: float
    bound: float
    bound_of: str
    workload: str
    notes: Mapping[str, float] = field(default_factory=dict)
    unmet: Sequence[str] = ()


class WrongAnswer(AssertionError):
    """What was counted is not what was sent: a speed without its answer is worth nothing."""


def check_answer(*, counted: object, sent: object) -> None:
    """Raise WrongAnswer unless both are equal."""
    if counted != sent:
        message = f"counted {counted}, sent {sent}"
        raise WrongAnswer(message)
