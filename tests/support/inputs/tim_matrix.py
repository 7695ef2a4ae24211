"""Task interaction matrices for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.tim import Tim


def made_tim(names: Sequence[str], cells: npt.ArrayLike, half: float = 0.01, **changed: Any) -> Tim:
    """A TIM with these cells [T, T], NaN where not measured, and intervals of ±`half`.

    A cell is certain if its absolute value exceeds `half`.
    """
    values = np.array(cells, dtype=np.float64)
    np.fill_diagonal(values, np.nan)

    def rows(matrix: npt.NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in matrix)

    count = len(names)
    gain = np.nansum(values, axis=1)
    fields: dict[str, Any] = {
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
    return Tim(**fields | changed)
