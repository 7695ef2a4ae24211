"""The matrix adds up, and says how far it is to be believed."""

import numpy as np
import pytest

from model.games import FOLDS, alone, coalitions, together
from model.tim import Worth, correlation, matrix
from tests.model.made import CHOSEN


def test_a_row_adds_up_to_what_learning_together_brings(trained):
    folder, cohort = trained
    found = matrix(Worth(folder, cohort), coalitions(len(CHOSEN), 120), "m3h-model tim …")
    assert found.tasks == found.sources == CHOSEN
    worth = Worth(folder, cohort)
    for source, row in enumerate(found.matrix):
        assert row[source] is None
        gain = [
            np.mean([worth.of(job)[source][0] for job in together(len(CHOSEN), fold)])
            - np.mean([worth.of(job)[source][0] for job in alone(source, fold)])
            for fold in range(FOLDS)
        ]
        assert found.multitask_gain[source] == pytest.approx(np.mean(gain), abs=1e-5)
        cells = [cell for cell in row if cell is not None]
        assert sum(cells) == pytest.approx(np.mean(gain), abs=1e-4)
    ordered = np.array([found.lower, found.matrix, found.upper], dtype=float)
    off = ~np.eye(len(CHOSEN), dtype=bool)
    assert (np.diff(ordered, axis=0)[:, off] > 0).all()
    np.testing.assert_allclose(np.array(found.mean_attention).sum(1), 1, atol=1e-4)
    assert -1 <= found.halves.lower <= found.halves.value <= found.halves.upper <= 1
    agreement = correlation(
        np.array(found.matrix, float), np.array(found.mean_attention), ranks=True
    )
    assert found.attention_agreement.value == pytest.approx(agreement.value, abs=0.05)
    assert found.patients == len(np.unique(cohort.samples.patient))
    assert found.cohort == cohort.digest


def test_too_few_coalitions_are_refused(trained):
    folder, cohort = trained
    with pytest.raises(ValueError, match="too few to tell 4 tasks apart"):
        matrix(Worth(folder, cohort), coalitions(len(CHOSEN), 4))


def test_matrices_are_compared_row_by_row_about_the_rows_means():
    random = np.random.default_rng(0)
    one, noise = random.normal(size=(2, 20, 20))
    np.fill_diagonal(one, np.nan)
    sums = np.arange(20.0)[:, None]  # rows that differ as wholes say nothing
    alike = correlation(one + sums, one + noise + sums)
    assert alike.lower < alike.value < alike.upper
    assert alike.value == pytest.approx(1 / np.sqrt(2), abs=0.06)
    unlike = correlation(one + sums, noise + sums)
    assert unlike.lower < 0 < unlike.upper
    assert correlation(one, np.exp(3 * one), ranks=True).value == pytest.approx(1)
    one[3] = np.nan
    assert correlation(one, one).value == pytest.approx(1)


def test_a_matrix_that_is_the_same_everywhere_agrees_with_nothing():
    assert correlation(np.random.default_rng(0).normal(size=(4, 4)), np.eye(4) * np.nan + 1) is None
    assert correlation(np.random.default_rng(0).normal(size=(4, 4)), np.full((4, 4), 0.1)) is None


def test_half_of_few_coalitions_is_no_matrix(trained):
    folder, cohort = trained
    assert matrix(Worth(folder, cohort), coalitions(len(CHOSEN), 16)).halves is None
