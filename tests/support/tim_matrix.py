"""A matrix of some tasks, for the tests of what reads one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.tim import Tim


def made_tim(names: Sequence[str], cells: npt.ArrayLike, half: float = 0.01, **changed: Any) -> Tim:
    """TIM with these cells [T, T], each within `half`; certain are those that differ from 0 by it.

    NaN: not measured, as on the diagonal.
    """
    values = np.array(cells, dtype=np.float64)
    np.fill_diagonal(values, np.nan)

    def rows(matrix: npt.NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in matrix)

    count = len(names)
    gain = np.nansum(values, axis=1)
    told: dict[str, Any] = {
        "tasks": tuple(names),
        "sources": tuple(names),
        "matrix": rows(values),
        "lower": rows(values - half),
        "upper": rows(values + half),
        "certain": tuple(tuple(bool(abs(v) > half) for v in row) for row in values),
        "multitask_gain": tuple(gain.tolist()),
        "gain_lower": tuple((gain - half).tolist()),
        "gain_upper": tuple((gain + half).tolist()),
        "metric": ("AUROC",) * count,
        "mean_attention": rows(np.full((count, count), 1 / count)),
        "coalitions": 512,
        "patients": 1591,
    }
    return Tim(**told | changed)
