"""The causal graph that the synthetic patients are drawn from."""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.cohorts.synthetic.parameters import (
    DISEASE_SIGNAL,
    DISEASES,
    FACTOR_SIGNAL,
    FACTORS,
    OBSERVABLES,
    TASKS,
)

Floats = npt.NDArray[np.float64]


class CausalGraph(NamedTuple):
    """The weights of the graph, scaled so that each observable has variance 1.

    loadings [factors, tasks]; own [tasks], the weight of each task's own part; from_factors
    [factors, observables]; from_tasks [tasks, observables]; noise [observables].
    """

    loadings: Floats
    own: Floats
    from_factors: Floats
    from_tasks: Floats
    noise: Floats


@cache
def causal_graph() -> CausalGraph:
    """The graph, with tasks in the order of TASKS and observables in that of OBSERVABLES."""
    loadings = np.array([[f.loadings.get(t, 0.0) for t in TASKS] for f in FACTORS.values()])
    own = np.sqrt(1 - (loadings**2).sum(axis=0))
    signs = [DISEASES[t].signs if t in DISEASES else "" for t in TASKS]
    from_factors = FACTOR_SIGNAL * _directions([f.signs for f in FACTORS.values()])
    clarity = [DISEASES[t].clarity if t in DISEASES else 0.0 for t in TASKS]
    from_tasks = DISEASE_SIGNAL * np.array(clarity)[:, None] * _directions(signs)
    variance = ((from_factors + loadings @ from_tasks) ** 2).sum(axis=0)
    variance += ((own[:, None] * from_tasks) ** 2).sum(axis=0) + 1
    scale = 1 / np.sqrt(variance)
    return CausalGraph(loadings, own, from_factors * scale, from_tasks * scale, scale)


def _directions(signs: list[str]) -> Floats:
    """[rows, observables]; every row has length 1, whatever the number of its signs."""
    rows = np.zeros((len(signs), len(OBSERVABLES)))
    for row, text in zip(rows, signs, strict=True):
        for sign in text.split():
            row[OBSERVABLES.index(sign[1:])] = 1 if sign[0] == "+" else -1
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / np.maximum(length, 1)
