"""The AUROC of a score, for training and evaluation."""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata


def binary_auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float:
    """The AUROC of patients, by the rank sum of Mann and Whitney; NaN if a class is missing.

    positive [n], score [n].
    """
    positives = positive.sum()
    pairs = positives * (~positive).sum()
    if not pairs:
        return float("nan")
    ranks = rankdata(score)[positive].sum()  # ties share their mean rank
    return float((ranks - positives * (positives + 1) / 2) / pairs)
