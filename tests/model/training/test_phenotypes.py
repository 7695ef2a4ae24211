"""Phenotypes: nearest prototype, explained variance, order of clusters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.network.losses import nearest_prototype
from model.training.data import SampleTensors
from model.training.phenotypes import explained_variance, fit_prototypes, fit_scaler, standardise
from tests.support.inputs.cohorts import make_cohort

CENTRES = torch.tensor([[0.0, 0.0], [4.0, 4.0]])


def test_a_missing_value_counts_as_the_median():
    statistics = torch.tensor([[4.0, 3.0], [4.0, torch.nan], [-1.0, torch.nan]])
    assert nearest_prototype(statistics, CENTRES).tolist() == [1, 0, 0]


def test_clusters_explain_the_variance_between_them():
    cluster = torch.arange(100) % 2
    apart = CENTRES[cluster]
    assert explained_variance(apart, cluster) == pytest.approx(1)
    assert explained_variance(apart, torch.zeros(100)) == pytest.approx(0)
    noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    # The centres are 2 from their mean in each of two directions, in which the noise is 1.
    assert explained_variance(apart + noise, cluster) == pytest.approx(4 / 5, abs=0.05)


def test_the_largest_cluster_comes_first():
    statistics = CENTRES[(torch.arange(100) % 4 == 0).long()]
    torch.testing.assert_close(fit_prototypes(statistics, 2, seed=0), CENTRES)


def test_a_cohort_without_series_changes_no_statistics():
    cohort = make_cohort()
    samples = cohort.samples
    samples.statistics[np.arange(240) >= 120, 1] = np.nan  # measured in half of them at most
    images = make_cohort(240, name="images", seed=1)
    present = images.samples.present & np.array([True, False, False, True])
    images = replace(images, samples=replace(images.samples, present=present))
    scaler = fit_scaler(cohort, np.arange(240))
    alone = standardise(SampleTensors([cohort], ("series",)), scaler)
    beside = standardise(SampleTensors([cohort, images], ("series",)), scaler)
    assert not torch.isnan(alone[:, 1]).all()
    torch.testing.assert_close(beside[:240], alone, equal_nan=True)
    assert torch.isnan(beside[240:]).all()
