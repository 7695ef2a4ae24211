"""Shapley values: unbiased, exact sums, and intervals with their coverage."""

from itertools import combinations, islice
from math import comb

import numpy as np
import pytest

from model.tim.coalitions import (
    TooFewError,
    draw_coalitions,
    half_width,
    shapley_estimator,
    significant,
)

FOLDS = 5


def players_of(task, coalitions, tasks):
    """The other tasks in each of the task's coalitions, and the coalitions' folds."""
    own = [c for c in coalitions if task in c.tasks]
    others = [t for t in range(tasks) if t != task]
    x = np.array([[t in c.tasks for t in others] for c in own])
    return x, np.array([c.fold for c in own])


def made_game(n, seed):
    """The value of a set of n players: effects of players, of pairs, and noise."""
    random = np.random.default_rng(seed)
    each, pair = random.normal(0, 1, n), np.triu(random.normal(0, 0.1, (n, n)), 1)
    chance = random.normal(0, 0.5, 2**n)
    number = 2 ** np.arange(n)

    def value(x):
        pairs = np.einsum("...i,ij,...j->...", x, pair, x)
        return x @ each + pairs + chance[(x @ number).astype(int)]

    return value


def exact(game, n):
    """Shapley values by their definition."""
    found = np.zeros(n)
    for j in range(n):
        others = [k for k in range(n) if k != j]
        for size in range(n):
            for chosen in combinations(others, size):
                x = np.zeros(n)
                x[list(chosen)] = 1
                without = game(x)
                x[j] = 1
                found[j] += (game(x) - without) / comb(n - 1, size) / n
    return found


def test_a_longer_sequence_starts_with_the_shorter_one():
    first = list(islice(draw_coalitions(8, FOLDS, seed=3), 20))
    assert list(islice(draw_coalitions(8, FOLDS, seed=3), 60))[:20] == first
    assert list(islice(draw_coalitions(8, FOLDS, seed=4), 20)) != first


def test_all_tasks_and_folds_are_drawn_about_equally_often():
    coalitions = list(islice(draw_coalitions(44, FOLDS, seed=0), 512))
    times = np.bincount([t for c in coalitions for t in c.tasks], minlength=44)
    assert times.max() - times.min() < 0.25 * times.mean()
    assert np.ptp(np.bincount([c.fold for c in coalitions])) <= 1
    assert all(len(set(c.tasks)) == len(c.tasks) for c in coalitions)
    assert {len(c.tasks) for c in coalitions} >= {2, 3, 4, 43}


def test_sizes_have_the_distribution_of_the_shapley_kernel():
    coalitions = list(islice(draw_coalitions(9, FOLDS, seed=0), 20_000))
    sizes = players_of(4, coalitions, 9)[0].sum(1)
    kernel = np.array([1 / (k * (8 - k)) for k in range(1, 8)])
    drawn = np.bincount(sizes, minlength=8)[1:] / len(sizes)
    np.testing.assert_allclose(drawn, kernel / kernel.sum(), atol=0.01)


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_fewer_than_three_tasks_are_refused(tasks):
    with pytest.raises(ValueError, match="at least 3 tasks"):
        next(draw_coalitions(tasks, FOLDS, seed=0))


def test_values_are_unbiased_with_any_folds():
    game = made_game(7, 0)
    truth, found = exact(game, 7), []
    single = np.random.default_rng(0).normal(size=FOLDS)
    whole = game(np.ones(7)) - game(np.zeros(7))
    for seed in range(400):
        x, fold = players_of(0, list(islice(draw_coalitions(8, FOLDS, seed=seed), 100)), 8)
        v = single[fold] + game(x.astype(float)) - game(np.zeros(7))
        found.append(shapley_estimator(x, fold).values(v, single, single + whole))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 3.5 * error).all()
    assert error.max() < 0.03 < np.abs(truth).min()


def test_values_add_up_to_the_whole_gain_exactly():
    random = np.random.default_rng(0)
    x, fold = players_of(3, list(islice(draw_coalitions(8, FOLDS, seed=0), 80)), 8)
    v = random.normal(size=(len(x), 6))
    single, joint = random.normal(size=(2, FOLDS, 6))
    values = shapley_estimator(x, fold).values(v, single, joint)
    assert values.shape == (7, 6)
    np.testing.assert_allclose(values.sum(0), (joint - single).mean(0), atol=1e-12)


def test_intervals_cover_the_exact_values_at_their_level():
    covered = []
    for seed in range(50):
        game = made_game(7, seed)
        truth = exact(game, 7)
        x, fold = players_of(0, list(islice(draw_coalitions(8, FOLDS, seed=seed), 150)), 8)
        single, joint = (np.full(FOLDS, game(np.full(7, present))) for present in (0.0, 1.0))
        estimator = shapley_estimator(x, fold)
        v = game(x.astype(float))
        values = estimator.values(v, single, joint)
        half = half_width(
            estimator.variance_of_coalitions(v, single, joint), estimator.degrees_of_freedom
        )
        covered.append(np.abs(values - truth) <= half)
    assert 0.90 <= np.mean(covered) <= 0.98


def test_the_variance_of_coalitions_includes_that_of_seeds():
    """All networks have noise; a part of it is common to a stratum."""
    random, stated, observed = np.random.default_rng(0), [], []
    for seed in range(400):
        x, stratum = players_of(0, list(islice(draw_coalitions(8, 15, seed=seed), 150)), 8)
        estimator = shapley_estimator(x, stratum)
        common = random.normal(0, 0.1, 15)
        single, joint = common + random.normal(0, [[0.1], [0.2]], (2, 15))
        v = common[stratum] + random.normal(0, 0.15, len(x))
        stated.append(estimator.variance_of_coalitions(v, single, joint))
        observed.append(estimator.values(v, single, joint))
    np.testing.assert_allclose(np.mean(stated), np.var(observed, axis=0).mean(), rtol=0.15)


def test_the_variances_of_patients_and_coalitions_add_up_to_the_whole():
    """Networks have common errors on patients and errors of their own, which count once."""
    random = np.random.default_rng(0)
    x, stratum = players_of(0, list(islice(draw_coalitions(8, 15, seed=0), 80)), 8)
    estimator, stated, observed = shapley_estimator(x, stratum), [], []
    patients, networks = 60, len(x) + 30
    helped = np.vstack([x, np.zeros((15, 7)), np.ones((15, 7))])
    for _ in range(300):
        each = random.normal(0, 0.1, (7, patients))  # a player's effect on a patient
        errors = random.normal(0, 0.5, (networks, patients))
        values = helped @ each + random.normal(0, 0.05, (networks, 1)) + errors
        drawn = random.multinomial(patients, np.full(patients, 1 / patients), 200)
        replicates = values @ np.vstack([np.ones(patients), drawn]).T / patients
        v, single, joint = np.split(replicates, [len(x), len(x) + 15])
        ends = v[:, 0], single[:, 0], joint[:, 0]
        of_patients = estimator.variance_of_patients(v[:, 1:], single[:, 1:], joint[:, 1:])
        stated.append(estimator.variance_of_coalitions(*ends) + of_patients)
        observed.append(estimator.values(*ends))
    np.testing.assert_allclose(np.mean(stated), np.var(observed, axis=0).mean(), rtol=0.15)


def test_too_few_coalitions_are_refused():
    x, fold = players_of(0, list(islice(draw_coalitions(44, FOLDS, seed=0), 60)), 44)
    with pytest.raises(TooFewError, match="too few for 43 tasks"):
        shapley_estimator(x, fold)


def test_only_a_real_effect_is_significant_among_many_cells():
    random = np.random.default_rng(0)
    values, one = random.normal(size=(44, 44)), np.ones((44, 44))
    np.fill_diagonal(values, np.nan)
    freedom = np.full((44, 1), 60.0)
    assert not significant(values, one, freedom).any()
    values[3, 4] = -8
    assert np.argwhere(significant(values, one, freedom)).tolist() == [[3, 4]]
