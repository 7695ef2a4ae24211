"""Groups of tasks that are better learned together than with all others, as TIM tells."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.tim.coalitions import LEVEL
from schemas.tim import Tim

Floats = npt.NDArray[np.float64]


def suggest(tim: Tim) -> tuple[tuple[str, ...], ...]:
    """The tasks in groups, the largest first: who is expected to help each other.

    Tasks begin alone; the two groups that are expected to bring each other most are joined, as long
    as that is more than nothing (agglomerative correlation clustering, Bansal et al. 2004). What
    was not measured counts as nothing.
    """
    helps = np.nan_to_num(expected(tim))
    mutual = helps + helps.T
    np.fill_diagonal(mutual, 0.0)
    groups = [[i] for i in range(len(tim.tasks))]
    while len(groups) > 1:
        member = np.zeros((len(groups), len(tim.tasks)))
        for g, group in enumerate(groups):
            member[g, group] = 1
        bring = member @ mutual @ member.T
        np.fill_diagonal(bring, -np.inf)
        one, other = sorted(int(i) for i in np.unravel_index(bring.argmax(), bring.shape))
        if bring[one, other] <= 0:
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
    groups.sort(key=lambda group: (-len(group), group))
    return tuple(tuple(tim.tasks[i] for i in group) for group in groups)


def as_toml(groups: Sequence[Sequence[str]]) -> str:
    """A configuration for `m3h-model train --config`."""
    lines = [f"  {json.dumps(list(group))}," for group in groups]
    return "\n".join(["[net]", "groups = [", *lines, "]", ""])


def expected(tim: Tim) -> Floats:
    """[T, T] what each cell is expected to be, chance considered; NaN where not measured.

    Cells are drawn towards the mean of their row, the more the less sure they are beside how much
    cells differ at all (empirical Bayes, Efron & Morris 1975).
    """
    cells = np.array(tim.matrix, dtype=np.float64)
    half = (np.array(tim.upper, dtype=np.float64) - np.array(tim.lower, dtype=np.float64)) / 2
    variance = (half / stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    mean = np.full_like(cells, np.nan)
    told = ~np.isnan(cells)
    for row, mine in enumerate(told):
        if mine.any():
            mean[row] = cells[row, mine].mean()
    apart = max(0.0, float(((cells - mean)[told] ** 2 - variance[told]).mean()))
    drawn: Floats = mean + (cells - mean) * apart / (apart + variance)
    return drawn
