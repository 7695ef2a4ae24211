"""Predictions of a made study."""

import numpy as np

from model.evaluation.predictions import Predictions
from tests.support.inputs.cohorts import TASKS

BINARY = [t.name for t in TASKS if t.kind == "binary"]


def predictions(noise, seed=0, count=600):
    """Probabilities that follow the outcomes, with noise."""
    draw = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-draw.normal(-1, 1.5, (count, len(TASKS)))))
    outcome = (draw.random(p.shape) < p).astype(float)
    log_odds = np.log(p / (1 - p)) + np.random.default_rng(seed).normal(0, noise, p.shape)
    scores = {t.name: 1 / (1 + np.exp(-log_odds[:, i])) for i, t in enumerate(TASKS)}
    return Predictions(
        tasks=tuple(t for t in TASKS if t.kind == "binary"),
        scores={name: scores[name] for name in BINARY},
        outcome=outcome[:, [i for i, t in enumerate(TASKS) if t.kind == "binary"]],
        fold=np.arange(count) % 5,
        site=np.array([f"h{i % 50}" for i in range(count)]),
        rows=np.arange(count),
        facts=(),
    )
