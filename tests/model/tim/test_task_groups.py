"""Groups keep apart what harms each other, as far as that is known."""

import numpy as np
import pytest

from model.tim.task_groups import expected, suggest
from model.training.prepare import Prepared, RunError
from tests.support.cohorts import CONFIG, NAMES, make_cohort
from tests.support.tim_matrix import made_tim


def made(cells, error):
    """TIM of these cells, each with this standard error."""
    return made_tim("abcdefgh"[: len(cells)], cells, half=1.959964 * error)


BLOCKS = np.kron([[0.02, -0.02], [-0.02, 0.02]], np.ones((3, 3)))


def test_tasks_that_help_each_other_are_grouped_apart_from_those_that_they_harm():
    order = [0, 3, 1, 4, 2, 5]
    found = suggest(made(BLOCKS[order][:, order], error=0.002))
    assert found == (("a", "c", "e"), ("b", "d", "f"))


def test_tasks_that_all_help_each_other_stay_together():
    assert suggest(made(np.full((5, 5), 0.01), error=0.002)) == (tuple("abcde"),)


def test_tasks_that_all_harm_each_other_learn_alone():
    found = suggest(made(np.full((5, 5), -0.01), error=0.002))
    assert found == tuple((name,) for name in "abcde")


def test_help_counts_in_both_directions():
    cells = np.full((3, 3), -0.01)
    cells[0, 1], cells[1, 0] = 0.03, -0.02  # b helps a more than a harms b
    assert suggest(made(cells, error=1e-4)) == (("a", "b"), ("c",))


def test_what_is_not_told_from_chance_does_not_part_what_gains_together():
    cells = np.random.default_rng(0).normal(0, 0.02, (8, 8))
    np.fill_diagonal(cells, np.nan)
    cells += 0.005 - np.nanmean(cells, axis=1, keepdims=True)
    found = suggest(made(cells, error=0.02))
    assert found == (tuple("abcdefgh"),)


def test_cells_are_drawn_to_their_rows_mean_the_more_the_less_sure_they_are():
    cells = np.random.default_rng(0).normal(0.01, 0.02, (8, 8))
    np.fill_diagonal(cells, np.nan)
    mean = np.nanmean(cells, axis=1, keepdims=True)
    moved = [np.nanmean(np.abs(expected(made(cells, error)) - mean)) for error in (1e-6, 0.01, 0.1)]
    assert moved[0] == pytest.approx(np.nanmean(np.abs(cells - mean)), rel=1e-4)
    assert moved[0] > moved[1] > moved[2] == pytest.approx(0)


def test_a_task_that_was_not_measured_is_no_obstacle():
    cells = BLOCKS.copy()
    cells[5] = np.nan
    found = suggest(made(cells, error=0.002))
    assert sorted(name for group in found for name in group) == list("abcdef")
    assert found[0] == ("a", "b", "c")


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([NAMES[:-1], ["sepsys"]], "no such task: sepsys; the tasks are hypertension, "),
        ([NAMES, ["sepsis"]], "in more than one group: sepsis"),
        ([NAMES[:20], NAMES[21:]], f"every task belongs to one; in none: {NAMES[20]}"),
    ],
)
def test_groups_that_cannot_be_are_refused_with_what_is_wrong(groups, problem):
    net = CONFIG.net.model_copy(update={"groups": tuple(map(tuple, groups))})
    with pytest.raises(RunError, match=problem):
        Prepared([make_cohort(40)], CONFIG.model_copy(update={"net": net}))
