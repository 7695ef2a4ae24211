"""Shapley values of tasks, estimated from a sample of coalitions that are trained together.

Each task i has its own game: its players are the n other tasks, and the value of a set of players
is v_i(S), the performance on task i of a network that is trained on S, these players and i. One
network of the coalition S gives v_i(S) for each of its tasks i, so it is a sample of as many games.
This module is pure arithmetic on arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.errors import UserError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEVEL = 0.95
MIN_COALITIONS = 5  # coalitions with a player, and coalitions without it
# Step of an additive recurrence whose first terms, however many, are spread evenly.
_GOLDEN = (5**0.5 - 1) / 2


class TooFewError(UserError):
    """Too few tasks or coalitions for an estimate."""


@dataclass(frozen=True)
class Coalition:
    """Tasks, by index, that are trained together without the hospitals of the fold."""

    number: int
    fold: int
    tasks: tuple[int, ...]


def draw_coalitions(tasks: int, folds: int, seed: int) -> Iterator[Coalition]:
    """An endless sequence of coalitions of 2 to `tasks` - 1 tasks; the folds alternate.

    In the game of each of its tasks, a coalition has the probability of the Shapley kernel
    (Lundberg & Lee 2017), so coalitions need no weights. The variance is reduced in two ways. Sizes
    are a low-discrepancy sequence of their distribution. The tasks of one size's coalitions come
    from one random permutation after another: all tasks are drawn about equally often, and
    coalitions of half of the tasks come in complementary pairs.
    Raises TooFewError for fewer than 3 tasks.
    """
    if tasks < 3:
        raise TooFewError(f"TIM needs at least 3 tasks; there are {tasks}")
    sizes = np.arange(2, tasks)
    # A coalition of s tasks is a sample of s games: the kernel of one game, divided by s.
    share = 1 / (sizes * (sizes - 1) * (tasks - sizes))
    upper = np.cumsum(share / share.sum())
    start = np.random.default_rng(seed).random()
    samplers = {
        int(size): _Sampler(tasks, np.random.default_rng((seed, int(size)))) for size in sizes
    }
    number = 0
    while True:
        u = (start + number * _GOLDEN) % 1.0
        size = int(sizes[min(int(np.searchsorted(upper, u)), len(sizes) - 1)])
        yield Coalition(number, number % folds, samplers[size].draw(size))
        number += 1


class _Sampler:
    """Draws tasks without replacement from random permutations; no draw has a task twice."""

    def __init__(self, tasks: int, random: np.random.Generator) -> None:
        self.random, self.tasks = random, tasks
        self.rest: list[int] = []

    def draw(self, size: int) -> tuple[int, ...]:
        drawn, self.rest = self.rest[:size], self.rest[size:]
        if len(drawn) < size:
            permutation: list[int] = self.random.permutation(self.tasks).tolist()
            more = [task for task in permutation if task not in drawn][: size - len(drawn)]
            self.rest = [task for task in permutation if task not in more]
            drawn = drawn + more
        return tuple(sorted(drawn))


@dataclass(frozen=True)
class ShapleyEstimator:
    """Shapley values of a game's n players, as a linear function of the measured values.

    Arguments of the methods: `v` [m] the value of each coalition; `single` and `joint` [strata] the
    values of the single-task and the all-task network. Replicates, if any, are the last axis.

    A coalition's residual is its value above its share of the stratum's whole gain
    (joint - single), less what coalitions of similar size predict (`residuals` [m, m]). It counts
    for the coalition's players and against the others (`contrast` [m, n]). A player's value is the
    mean of these products over coalitions, plus an equal share of the whole gain. The values add up
    to the mean over strata of joint - single exactly.
    """

    contrast: Floats
    residuals: Floats
    share: Floats
    stratum: npt.NDArray[np.intp]

    def values(self, v: Floats, single: Floats, joint: Floats) -> Floats:
        """[n, …]."""
        parts = self.contrast.T @ self._residual(v, single, joint) / self.m
        gain: Floats = (joint - single).mean(axis=0)
        values: Floats = parts + gain / self.n
        return values

    def variance_of_coalitions(self, v: Floats, single: Floats, joint: Floats) -> Floats:
        """[n] the variance of the values by the choice of coalitions and of seeds."""
        parts = self.contrast * self._residual(v, single, joint)[:, None]
        gain = joint - single
        variance: Floats = parts.var(axis=0, ddof=1) / self.m
        return variance + gain.var(ddof=1) / len(gain) / self.n**2

    def variance_of_patients(self, v: Floats, single: Floats, joint: Floats) -> Floats:
        """[n] the variance of the values by the choice of patients, from replicates [m, R].

        `single`, `joint` [strata, R]. The networks' own errors on the replicates are subtracted:
        `variance_of_coalitions` contains them already, and counting them twice would make the
        variance too large (Owen 2007, the pigeonhole bootstrap for crossed data).
        """
        residual, values = self._residual(v, single, joint), self.values(v, single, joint)
        total = values.var(axis=1, ddof=1)
        centred = values - values.mean(axis=1, keepdims=True)
        covariance = (
            (residual - residual.mean(axis=1, keepdims=True)) @ centred.T / (v.shape[1] - 1)
        )
        # The variance of the difference between a coalition's part and the value.
        own = (
            self.contrast**2 * residual.var(axis=1, ddof=1)[:, None]
            - 2 * self.contrast * covariance
        )
        variance: Floats = np.maximum(total - (own + total).mean(axis=0) / self.m, 0.0)
        return variance

    def _residual(self, v: Floats, single: Floats, joint: Floats) -> Floats:
        """[m, …]."""
        share = self.share.reshape(-1, *[1] * (v.ndim - 1))
        gain = joint - single
        residual: Floats = self.residuals @ (v - single[self.stratum] - share * gain[self.stratum])
        return residual

    @property
    def m(self) -> int:
        return self.contrast.shape[0]

    @property
    def n(self) -> int:
        return self.contrast.shape[1]

    @property
    def degrees_of_freedom(self) -> int:
        return self.m - 1


def shapley_estimator(players: Bools, stratum: npt.NDArray[np.intp]) -> ShapleyEstimator:
    """The unbiased estimator from sampled coalitions (Covert & Lee 2021, section 3.2).

    `players` [m, n]: the players of each coalition. `stratum` [m]: the number of its fold and seed.
    Least squares would need far more coalitions than players. Here the second moments of the
    players' membership are those of the kernel, which are known. Two control variates reduce the
    variance: the single-task and all-task networks of the stratum, and the other coalitions of
    similar size. The estimate stays unbiased, since membership given the size is random.

    Raises TooFewError if a player is in too few coalitions, or missing from too few.
    """
    x = players.astype(np.float64)
    m, n = x.shape
    size = x.sum(1)
    rarest = int(min(x.sum(0).min(), (1 - x).sum(0).min()))
    if rarest < MIN_COALITIONS:
        raise TooFewError(
            f"{m} coalitions are too few for {n} tasks: each task must be in at least "
            f"{MIN_COALITIONS} and missing from at least {MIN_COALITIONS}, but the fewest are "
            f"{rarest}; draw more"
        )
    sizes = np.arange(1, n)
    kernel = 1 / (sizes * (n - sizes))
    kernel /= kernel.sum()
    spread = (kernel * sizes * (n - sizes)).sum() / (n * (n - 1))
    # The value is a smooth, non-linear function of the size. It is fitted without the coalition
    # itself (leave-one-out).
    curve = np.stack([np.ones(m), np.log(size), size / n], axis=1)
    hat = curve @ np.linalg.pinv(curve)
    residuals = (np.eye(m) - hat) / (1 - np.diag(hat))[:, None]
    return ShapleyEstimator((x - size[:, None] / n) / spread, residuals, size / n, stratum)


def half_width(variance: Floats, degrees_of_freedom: Floats) -> Floats:
    """Half the width of a LEVEL confidence interval (Student's t)."""
    width: Floats = stats.t.ppf((1 + LEVEL) / 2, degrees_of_freedom) * np.sqrt(variance)
    return width


def significant(values: Floats, variance: Floats, degrees_of_freedom: Floats) -> Bools:
    """Which values differ from 0 at a false discovery rate of 1 - LEVEL; a NaN does not.

    Benjamini & Hochberg 1995.
    """
    result = np.zeros(values.shape, dtype=np.bool_)
    measured = ~np.isnan(values)
    score = np.abs(values[measured]) / np.sqrt(variance[measured])
    p = 2 * stats.t.sf(score, np.broadcast_to(degrees_of_freedom, values.shape)[measured])
    result[measured] = stats.false_discovery_control(p) <= 1 - LEVEL
    return result
