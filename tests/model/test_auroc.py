"""The AUROC equals the share of pairs of patients that a score ranks correctly."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.auroc import binary_auroc


@pytest.mark.parametrize("distinct", [2, 7, 1000], ids=lambda n: f"{n} distinct scores")
def test_the_auroc_equals_that_of_scikit_learn_also_with_ties(distinct):
    random = np.random.default_rng(distinct)
    positive = random.random(500) < 0.2
    score = random.integers(distinct, size=500) + positive * random.random(500).round()
    assert binary_auroc(positive, score) == pytest.approx(roc_auc_score(positive, score))


@pytest.mark.parametrize("positive", [True, False])
def test_without_both_classes_the_auroc_is_nan(positive):
    assert math.isnan(binary_auroc(np.full(3, positive), np.arange(3.0)))
