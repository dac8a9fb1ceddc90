"""What tokens of each kind take, fitted to windows of energy: coefficients and how good they are.

The energy of a window is taken to be watts of each device for as long as it was measured, and so
many joules for each token. Weights are the ratios of the latter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import numpy as np

from cli.energy.least_squares import Floats, solve_nonnegative
from meter.domain.units import MJ_PER_JOULE

KINDS: Final = ("input", "cached_input", "output")
# Of fewer windows than this, nothing is learnt but the windows themselves.
WINDOWS_MIN: Final = 8
# How alike two columns may be before their coefficients stand for each other.
CONDITION_MAX: Final = 30.0
_GOOD_R2_MIN: Final = 0.9
_WEIGHT_STEP: Final = Decimal("0.0001")
_MS_PER_SECOND: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A pool's interval: its energy without gaps and unknown devices (mJ), and its tokens.

    `covered_ms` is the time that samples cover, added up over the devices.
    """

    start_ms: int
    energy_mj: int
    covered_ms: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was fitted: watts of a device, joules of a token of each kind, and how good it is.

    `r_squared` is the share of the energy's variance that it explains, None where there is none.
    `residual_joules` has what each window took more than the fit says. `condition` is that of the
    columns of which there is anything, each by its length: far above 1, they stand for each other.
    """

    idle_watts: float
    is_idle_given: bool
    joules: tuple[float, float, float]
    r_squared: float | None
    residual_joules: tuple[float, ...]
    condition: float
    quiet_count: int

    @property
    def weights(self) -> tuple[Decimal, Decimal, Decimal] | None:
        """What a token of each kind weighs: output 1, or the heaviest where output takes nothing.

        None where no token takes anything.
        """
        base = self.joules[2] or max(self.joules)
        if not base:
            return None
        first, second, third = (
            Decimal(joules / base).quantize(_WEIGHT_STEP, ROUND_HALF_EVEN) for joules in self.joules
        )
        return first, second, third

    def warnings(self) -> list[str]:
        """Tell why not to believe it, in sentences."""
        found = []
        count = len(self.residual_joules)
        if count < WINDOWS_MIN:
            found.append(f"only {count} windows: at least {WINDOWS_MIN}, better a week, say more")
        if self.condition > CONDITION_MAX:
            found.append(
                f"tokens of different kinds, or time, rise and fall together (condition"
                f" {self.condition:,.0f}): their coefficients may stand for each other"
            )
        if self.r_squared is None or self.r_squared < _GOOD_R2_MIN:
            found.append("the fit explains little of what was measured: do not use its weights")
        if not self.is_idle_given and not self.quiet_count:
            found.append(
                "no window without tokens: the watts of a device are what it takes as soon as it"
                " does anything, and no idle power; take quiet hours in, or give --idle-watts"
            )
        if not self.joules[2]:
            found.append("output tokens take nothing by this: they vary too little, or with others")
        return found


def fit_windows(windows: Sequence[Window], *, idle_watts: float | None = None) -> Fit:
    """Fit windows, of which there is one at least; `idle_watts` of a device may be known."""
    tokens = np.array(
        [[it.input_tokens, it.cached_tokens, it.output_tokens] for it in windows], np.float64
    )
    seconds = np.array([[it.covered_ms / _MS_PER_SECOND] for it in windows], np.float64)
    joules = np.array([it.energy_mj / MJ_PER_JOULE for it in windows], np.float64)
    matrix = tokens if idle_watts is not None else np.hstack([seconds, tokens])
    target = joules if idle_watts is None else joules - idle_watts * seconds[:, 0]
    solution = solve_nonnegative(matrix, target)
    residual = target - matrix @ solution
    spread = float(np.sum((joules - joules.mean()) ** 2))
    watts, *each = solution if idle_watts is None else (idle_watts, *solution)
    first, second, third = map(float, each)
    return Fit(
        idle_watts=float(watts),
        is_idle_given=idle_watts is not None,
        joules=(first, second, third),
        r_squared=1 - float(np.sum(residual**2)) / spread if spread else None,
        residual_joules=tuple(map(float, residual)),
        condition=_condition(matrix),
        quiet_count=sum(
            not (it.input_tokens or it.cached_tokens or it.output_tokens) for it in windows
        ),
    )


def _condition(matrix: Floats) -> float:
    """Return the condition of the columns that are not 0, each by its length."""
    lengths = np.linalg.norm(matrix, axis=0)
    used = matrix[:, lengths > 0] / lengths[lengths > 0]
    return float(np.linalg.cond(used)) if used.size else 1.0
