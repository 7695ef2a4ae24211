"""Shapley values are estimated without bias, add up, and their intervals hold what they promise."""

from itertools import combinations, islice
from math import comb

import numpy as np
import pytest

from model.tim.coalitions import TooFewError, certain, draw, estimate, margin

FOLDS = 5


def players_of(task, coalitions, tasks):
    """The game of one task: who else is in the coalitions that it is in, and their folds."""
    mine = [c for c in coalitions if task in c.tasks]
    others = [t for t in range(tasks) if t != task]
    x = np.array([[t in c.tasks for t in others] for c in mine])
    return x, np.array([c.fold for c in mine])


def made_game(n, seed):
    """What a set of n players is worth: each of them, pairs that do more together, and chance."""
    random = np.random.default_rng(seed)
    each, pair = random.normal(0, 1, n), np.triu(random.normal(0, 0.1, (n, n)), 1)
    chance = random.normal(0, 0.5, 2**n)
    number = 2 ** np.arange(n)

    def worth(x):
        together = np.einsum("...i,ij,...j->...", x, pair, x)
        return x @ each + together + chance[(x @ number).astype(int)]

    return worth


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


def test_more_coalitions_are_the_same_and_more():
    first = list(islice(draw(8, FOLDS, seed=3), 20))
    assert list(islice(draw(8, FOLDS, seed=3), 60))[:20] == first
    assert list(islice(draw(8, FOLDS, seed=4), 20)) != first


def test_every_task_and_every_fold_are_drawn_about_as_often():
    coalitions = list(islice(draw(44, FOLDS, seed=0), 512))
    times = np.bincount([t for c in coalitions for t in c.tasks], minlength=44)
    assert times.max() - times.min() < 0.25 * times.mean()
    assert np.ptp(np.bincount([c.fold for c in coalitions])) <= 1
    assert all(len(set(c.tasks)) == len(c.tasks) for c in coalitions)
    assert {len(c.tasks) for c in coalitions} >= {2, 3, 4, 43}


def test_a_game_draws_sizes_as_the_shapley_kernel_does():
    coalitions = list(islice(draw(9, FOLDS, seed=0), 20_000))
    sizes = players_of(4, coalitions, 9)[0].sum(1)
    kernel = np.array([1 / (k * (8 - k)) for k in range(1, 8)])
    drawn = np.bincount(sizes, minlength=8)[1:] / len(sizes)
    np.testing.assert_allclose(drawn, kernel / kernel.sum(), atol=0.01)


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_there_is_nothing_to_draw_from_two_tasks(tasks):
    with pytest.raises(ValueError, match="no coalitions"):
        next(draw(tasks, FOLDS, seed=0))


def test_values_are_right_on_average_whatever_the_folds():
    game = made_game(7, 0)
    truth, found = exact(game, 7), []
    alone = np.random.default_rng(0).normal(size=FOLDS)
    whole = game(np.ones(7)) - game(np.zeros(7))
    for seed in range(400):
        x, fold = players_of(0, list(islice(draw(8, FOLDS, seed=seed), 100)), 8)
        v = alone[fold] + game(x.astype(float)) - game(np.zeros(7))
        found.append(estimate(x, fold).values(v, alone, alone + whole))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 3.5 * error).all()
    assert error.max() < 0.03 < np.abs(truth).min()


def test_values_add_up_to_the_whole_gain_exactly_whatever_was_measured():
    random = np.random.default_rng(0)
    x, fold = players_of(3, list(islice(draw(8, FOLDS, seed=0), 80)), 8)
    v = random.normal(size=(len(x), 6))
    alone, together = random.normal(size=(2, FOLDS, 6))
    values = estimate(x, fold).values(v, alone, together)
    assert values.shape == (7, 6)
    np.testing.assert_allclose(values.sum(0), (together - alone).mean(0), atol=1e-12)


def test_intervals_hold_the_exact_values_as_often_as_they_say():
    held = []
    for seed in range(50):
        game = made_game(7, seed)
        truth = exact(game, 7)
        x, fold = players_of(0, list(islice(draw(8, FOLDS, seed=seed), 150)), 8)
        alone, together = (np.full(FOLDS, game(np.full(7, there))) for there in (0.0, 1.0))
        found = estimate(x, fold)
        v = game(x.astype(float))
        values = found.values(v, alone, together)
        half = margin(found.variance_of_coalitions(v, alone, together), found.degrees_of_freedom)
        held.append(np.abs(values - truth) <= half)
    assert 0.90 <= np.mean(held) <= 0.98


def test_seeds_move_the_values_as_much_as_is_said():
    """Chance in every network, the ends' among them; a part of it common to a stratum."""
    random, told, moved = np.random.default_rng(0), [], []
    for seed in range(400):
        x, stratum = players_of(0, list(islice(draw(8, 15, seed=seed), 150)), 8)
        found = estimate(x, stratum)
        common = random.normal(0, 0.1, 15)
        alone, together = common + random.normal(0, [[0.1], [0.2]], (2, 15))
        v = common[stratum] + random.normal(0, 0.15, len(x))
        told.append(found.variance_of_coalitions(v, alone, together))
        moved.append(found.values(v, alone, together))
    np.testing.assert_allclose(np.mean(told), np.var(moved, axis=0).mean(), rtol=0.15)


def test_patients_and_coalitions_together_move_the_values_as_much_as_is_said():
    """Networks err on patients in common, and each in its own way; that counts once."""
    random = np.random.default_rng(0)
    x, stratum = players_of(0, list(islice(draw(8, 15, seed=0), 80)), 8)
    found, told, moved = estimate(x, stratum), [], []
    patients, networks = 60, len(x) + 30
    helped = np.vstack([x, np.zeros((15, 7)), np.ones((15, 7))])
    for _ in range(300):
        each = random.normal(0, 0.1, (7, patients))  # whom a player helps
        errors = random.normal(0, 0.5, (networks, patients))
        worth = helped @ each + random.normal(0, 0.05, (networks, 1)) + errors
        drawn = random.multinomial(patients, np.full(patients, 1 / patients), 200)
        replicates = worth @ np.vstack([np.ones(patients), drawn]).T / patients
        v, alone, together = np.split(replicates, [len(x), len(x) + 15])
        ends = v[:, 0], alone[:, 0], together[:, 0]
        of_patients = found.variance_of_patients(v[:, 1:], alone[:, 1:], together[:, 1:])
        told.append(found.variance_of_coalitions(*ends) + of_patients)
        moved.append(found.values(*ends))
    np.testing.assert_allclose(np.mean(told), np.var(moved, axis=0).mean(), rtol=0.15)


def test_too_few_coalitions_are_refused():
    x, fold = players_of(0, list(islice(draw(44, FOLDS, seed=0), 60)), 44)
    with pytest.raises(TooFewError, match="too few to tell 43 tasks apart"):
        estimate(x, fold)


def test_of_many_cells_without_an_effect_none_is_certain_and_an_effect_is():
    random = np.random.default_rng(0)
    values, one = random.normal(size=(44, 44)), np.ones((44, 44))
    np.fill_diagonal(values, np.nan)
    freedom = np.full((44, 1), 60.0)
    assert not certain(values, one, freedom).any()
    values[3, 4] = -8
    assert np.argwhere(certain(values, one, freedom)).tolist() == [[3, 4]]
