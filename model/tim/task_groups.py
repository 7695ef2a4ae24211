"""Groups of tasks that TIM suggests to train together."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.tim.coalitions import LEVEL
from schemas.tim import Tim

Floats = npt.NDArray[np.float64]


def suggest(tim: Tim) -> tuple[tuple[str, ...], ...]:
    """Groups of tasks that are expected to help each other, the largest first.

    Agglomerative correlation clustering (Bansal et al. 2004): at the start each task is a group.
    The two groups with the largest expected mutual gain are joined, as long as it is positive. A
    cell that was not measured counts as 0.
    """
    helps = np.nan_to_num(shrink_cells(tim))
    mutual = helps + helps.T
    np.fill_diagonal(mutual, 0.0)
    groups = [[i] for i in range(len(tim.tasks))]
    while len(groups) > 1:
        member = np.zeros((len(groups), len(tim.tasks)))
        for g, group in enumerate(groups):
            member[g, group] = 1
        gain = member @ mutual @ member.T
        np.fill_diagonal(gain, -np.inf)
        first, second = sorted(int(i) for i in np.unravel_index(gain.argmax(), gain.shape))
        if gain[first, second] <= 0:
            break
        groups[first] = sorted(groups[first] + groups.pop(second))
    groups.sort(key=lambda group: (-len(group), group))
    return tuple(tuple(tim.tasks[i] for i in group) for group in groups)


def as_toml(groups: Sequence[Sequence[str]]) -> str:
    """The groups as a configuration for `m3h-model train --config`."""
    lines = [f"  {json.dumps(list(group))}," for group in groups]
    return "\n".join(["[net]", "groups = [", *lines, "]", ""])


def shrink_cells(tim: Tim) -> Floats:
    """[T, T] the expected value of each cell; NaN if not measured.

    Cells are shrunk towards the mean of their row, the more the larger their variance is compared
    with the variance between cells (empirical Bayes, Efron & Morris 1975).
    """
    cells = np.array(tim.matrix, dtype=np.float64)
    half = (np.array(tim.upper, dtype=np.float64) - np.array(tim.lower, dtype=np.float64)) / 2
    variance = (half / stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    mean = np.full_like(cells, np.nan)
    measured = ~np.isnan(cells)
    for row, in_row in enumerate(measured):
        if in_row.any():
            mean[row] = cells[row, in_row].mean()
    between = max(0.0, float(((cells - mean)[measured] ** 2 - variance[measured]).mean()))
    shrunk: Floats = mean + (cells - mean) * between / (between + variance)
    return shrunk
