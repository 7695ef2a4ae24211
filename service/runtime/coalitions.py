"""The coalitions of modalities over which Shapley values are computed."""

from functools import cache

import numpy as np
import numpy.typing as npt


@cache
def coalitions(present: tuple[bool, ...]) -> npt.NDArray[np.bool_]:
    """All subsets of the k present modalities out of M, [2**k, M].

    The first row is the empty set, the last all present modalities. Row r contains the i-th
    present modality if bit i of r is set.
    """
    columns = np.flatnonzero(present)
    subsets = np.zeros((2 ** len(columns), len(present)), dtype=np.bool_)
    subsets[:, columns] = np.arange(len(subsets))[:, None] >> np.arange(len(columns)) & 1
    return subsets
