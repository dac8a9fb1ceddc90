"""Least squares whose solution is nowhere negative, by Lawson and Hanson's active set; pure."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

# Each step frees or binds a column; three for each is more than it ever takes.
_STEPS_PER_COLUMN_MAX: Final = 30
# What rounding leaves of a gradient that is none, by the largest there can be.
_TOLERANCE: Final = 1e-11


def solve_nonnegative(matrix: Floats, target: Floats) -> Floats:
    """Return the x ≥ 0, one for each column, for which `matrix` · x is nearest to `target`.

    Columns may be of any scale: each is taken by its length, and one of length 0 gets 0.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    scale = np.where(lengths > 0, lengths, 1.0)
    scaled = matrix / scale
    count = scaled.shape[1]
    free = np.zeros(count, dtype=bool)
    solution = np.zeros(count)
    gradient_max = _TOLERANCE * max(1.0, float(np.linalg.norm(target)))
    for _ in range(_STEPS_PER_COLUMN_MAX * count):
        gradient = scaled.T @ (target - scaled @ solution)
        gradient[free | (lengths == 0)] = -np.inf
        best = int(np.argmax(gradient)) if count else 0
        if not count or gradient[best] <= gradient_max:
            break
        free[best] = True
        solution = _step(scaled, target, solution=solution, free=free)
    return np.asarray(solution / scale, dtype=np.float64)


def _step(matrix: Floats, target: Floats, *, solution: Floats, free: NDArray[np.bool_]) -> Floats:
    """Go to the least squares of the free columns, binding those that would become negative."""
    while True:
        aim = np.zeros_like(solution)
        aim[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        negative = free & (aim <= 0)
        if not negative.any():
            return aim
        # As far towards it as nothing is negative; what is 0 by then is bound again.
        reach = solution[negative] - aim[negative]
        steps = np.divide(solution[negative], reach, out=np.zeros_like(reach), where=reach > 0)
        solution = solution + float(np.min(steps)) * (aim - solution)
        free &= solution > np.finfo(np.float64).eps
        solution[~free] = 0.0
