"""Suggested groups separate tasks that harm each other."""

import numpy as np
import pytest

from model.errors import RunError
from model.tim.task_groups import shrink_cells, suggest
from model.training.preparation import PreparedTraining
from tests.support.inputs.cohorts import CONFIG, NAMES, make_cohort
from tests.support.inputs.tim_matrix import made_tim


def tim_of(cells, error):
    """TIM with these cells, each with this standard error."""
    return made_tim("abcdefgh"[: len(cells)], cells, half=1.959964 * error)


BLOCKS = np.kron([[0.02, -0.02], [-0.02, 0.02]], np.ones((3, 3)))


def test_groups_join_tasks_that_help_and_separate_tasks_that_harm():
    order = [0, 3, 1, 4, 2, 5]
    found = suggest(tim_of(BLOCKS[order][:, order], error=0.002))
    assert found == (("a", "c", "e"), ("b", "d", "f"))


def test_tasks_that_all_help_each_other_are_one_group():
    assert suggest(tim_of(np.full((5, 5), 0.01), error=0.002)) == (tuple("abcde"),)


def test_tasks_that_all_harm_each_other_are_single():
    found = suggest(tim_of(np.full((5, 5), -0.01), error=0.002))
    assert found == tuple((name,) for name in "abcde")


def test_help_counts_in_both_directions():
    cells = np.full((3, 3), -0.01)
    cells[0, 1], cells[1, 0] = 0.03, -0.02  # b helps a more than a harms b
    assert suggest(tim_of(cells, error=1e-4)) == (("a", "b"), ("c",))


def test_noise_does_not_split_tasks_that_gain_on_average():
    cells = np.random.default_rng(0).normal(0, 0.02, (8, 8))
    np.fill_diagonal(cells, np.nan)
    cells += 0.005 - np.nanmean(cells, axis=1, keepdims=True)
    found = suggest(tim_of(cells, error=0.02))
    assert found == (tuple("abcdefgh"),)


def test_uncertain_cells_are_shrunk_more_towards_the_rows_mean():
    cells = np.random.default_rng(0).normal(0.01, 0.02, (8, 8))
    np.fill_diagonal(cells, np.nan)
    mean = np.nanmean(cells, axis=1, keepdims=True)
    distance = [
        np.nanmean(np.abs(shrink_cells(tim_of(cells, error)) - mean)) for error in (1e-6, 0.01, 0.1)
    ]
    assert distance[0] == pytest.approx(np.nanmean(np.abs(cells - mean)), rel=1e-4)
    assert distance[0] > distance[1] > distance[2] == pytest.approx(0)


def test_a_task_without_measurements_is_grouped():
    cells = BLOCKS.copy()
    cells[5] = np.nan
    found = suggest(tim_of(cells, error=0.002))
    assert sorted(name for group in found for name in group) == list("abcdef")
    assert found[0] == ("a", "b", "c")


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([NAMES[:-1], ["sepsys"]], "no such task: sepsys; the tasks are hypertension, "),
        ([NAMES, ["sepsis"]], "in more than one group: sepsis"),
        ([NAMES[:20], NAMES[21:]], f"every task needs a group; without one: {NAMES[20]}"),
    ],
)
def test_invalid_groups_are_refused(groups, problem):
    net = CONFIG.net.model_copy(update={"groups": tuple(map(tuple, groups))})
    with pytest.raises(RunError, match=problem):
        PreparedTraining([make_cohort(40)], CONFIG.model_copy(update={"net": net}))
