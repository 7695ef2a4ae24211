"""Shapley values of games in which coalitions of tasks are trained together, from few of them.

A coalition S of tasks is trained once and tells v_i(S) for each of its tasks i: it is a draw for as
many games. The game of task i has the other tasks as players, n of them, and the value of a set of
players is v_i of that set with i. Nothing here trains or measures: arrays in, arrays out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEVEL = 0.95
# The additive recurrence with the golden ratio: any first so many of it are spread evenly.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Coalition:
    """Tasks, by index, that are trained together without the hospitals of `fold`."""

    number: int
    fold: int
    tasks: tuple[int, ...]


def draw(tasks: int, folds: int, seed: int) -> Iterator[Coalition]:
    """Coalitions without end, of 2 to `tasks` - 1 tasks; more are drawn by drawing on.

    In the game of each of its tasks a coalition has the probability of the Shapley kernel (Lundberg
    & Lee 2017), so that plain least squares estimates Shapley values. Sizes are spread evenly over
    their distribution, and those of one size dealt from one shuffled deck of tasks after another:
    every task is drawn about as often, and coalitions of half of the tasks come in complementary
    pairs. Folds take turns.
    """
    if tasks < 3:
        raise ValueError(f"{tasks} tasks have no coalitions between one of them and all")
    sizes = np.arange(2, tasks)
    # A coalition of s tasks is a draw for s games: the kernel of a game, divided by s.
    share = 1 / (sizes * (sizes - 1) * (tasks - sizes))
    upper = np.cumsum(share / share.sum())
    start = np.random.default_rng(seed).random()
    decks = {int(size): _Deck(tasks, np.random.default_rng((seed, int(size)))) for size in sizes}
    number = 0
    while True:
        at = (start + number * _GOLDEN) % 1.0
        size = int(sizes[min(int(np.searchsorted(upper, at)), len(sizes) - 1)])
        yield Coalition(number, number % folds, decks[size].deal(size))
        number += 1


class _Deck:
    """Tasks in random order, shuffled anew when all are dealt; no hand holds one twice."""

    def __init__(self, tasks: int, random: np.random.Generator) -> None:
        self.random, self.tasks = random, tasks
        self.left: list[int] = []

    def deal(self, size: int) -> tuple[int, ...]:
        hand, self.left = self.left[:size], self.left[size:]
        if len(hand) < size:
            deck: list[int] = self.random.permutation(self.tasks).tolist()
            more = [task for task in deck if task not in hand][: size - len(hand)]
            self.left = [task for task in deck if task not in more]
            hand = hand + more
        return tuple(sorted(hand))


@dataclass(frozen=True)
class Estimate:
    """Shapley values of a game's n players as a linear function of what was measured.

    values = `of_values` @ v + `of_alone` @ alone + `of_all` @ together, with v [m] what each
    coalition is worth, `alone` and `together` [strata] what the task alone and all tasks together
    are. They add up to the mean over strata of together - alone exactly. `leverage` [m].
    """

    of_values: Floats
    of_alone: Floats
    of_all: Floats
    leverage: Floats
    players: Floats
    stratum: npt.NDArray[np.intp]

    def values(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[…, n], for `v` [m, …] and ends [strata, …] alike: replicates come last."""
        found: Floats = (
            np.tensordot(self.of_values, v, axes=1)
            + np.tensordot(self.of_alone, alone, axes=1)
            + np.tensordot(self.of_all, together, axes=1)
        )
        return np.moveaxis(found, 0, -1)

    def variance_of_coalitions(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[n] how much the values vary with what was drawn: coalitions, and seeds, of ends too.

        Robust to coalitions that vary differently (HC2, MacKinnon & White 1985). What the ends of a
        stratum vary by is in what is left of its coalitions; and in the gain that is shared by all.
        """
        gain = together - alone
        shared = gain.var(ddof=1) / len(gain) / self.n**2
        left = self._residuals(v, alone, together) ** 2
        return self._carried(left) + shared

    def variance_of_patients(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[n] how much the values vary with the patients, by replicates [m, R], [strata, R].

        Less how much each network's own errors on these patients do: these are in the variance of
        coalitions already, and added twice would make it too large (Owen 2007, the pigeonhole
        bootstrap of data that are crossed). NaN: a replicate that cannot be measured.
        """
        whole = np.nanvar(self.values(v, alone, together), axis=0, ddof=1)
        own = np.nanvar(self._residuals(v, alone, together), axis=1, ddof=1)
        variance: Floats = np.maximum(whole - self._carried(own), 0.0)
        return variance

    def _residuals(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[m, …] what of `v` the values do not explain."""
        gain = together - alone
        apart = self.values(v, alone, together) - gain.mean(axis=0)[..., None] / self.n
        share = self.players.sum(1).reshape(-1, *[1] * (v.ndim - 1)) / self.n
        alike = alone[self.stratum] + share * gain[self.stratum]
        residuals: Floats = v - alike - np.moveaxis(apart @ self.players.T, -1, 0)
        return residuals

    def _carried(self, variance: Floats) -> Floats:
        """[n] the variance of the values, of that of what is left of each coalition, [m]."""
        carried: Floats = self.of_values**2 @ (variance / (1 - self.leverage))
        return carried

    @property
    def n(self) -> int:
        return self.players.shape[1]

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.players) - self.n + 1


def estimate(players: Bools, stratum: npt.NDArray[np.intp], strata: int) -> Estimate:
    """The least-squares estimate from drawn coalitions (KernelSHAP, Lundberg & Lee 2017).

    `players` [m, n]: who is in each coalition; `stratum` [m]: coalitions that have the fold and the
    seed in common. What a stratum's ends tell is taken off first, so that strata may differ in the
    whole gain, and what a fold's patients or a seed's first weights make of every network is no
    chance. Raises ValueError if the coalitions are too few to tell the players apart.
    """
    x = players.astype(np.float64)
    count, n = x.shape
    # The values are an equal share of the whole gain each, and what adds up to 0.
    basis = np.linalg.svd(np.ones((1, n)))[2][1:].T
    design = x @ basis
    inverse = np.linalg.pinv(design)
    leverage = (design * inverse.T).sum(1)
    # One that decides a value alone leaves nothing to tell how far that value is to be believed.
    if np.linalg.matrix_rank(design) < n - 1 or leverage.max() > 1 - 1e-6:
        raise ValueError(f"{count} coalitions are too few to tell {n} tasks apart; draw more")
    of_values = basis @ inverse
    member = stratum[:, None] == np.arange(strata)
    share = x.sum(1, keepdims=True) / n
    of_alone = of_values @ (-(1 - share) * member) - 1 / (strata * n)
    of_all = of_values @ (-share * member) + 1 / (strata * n)
    return Estimate(of_values, of_alone, of_all, leverage, x, stratum)


def margin(variance: Floats, degrees_of_freedom: Floats) -> Floats:
    """Half of a LEVEL confidence interval."""
    found: Floats = stats.t.ppf((1 + LEVEL) / 2, degrees_of_freedom) * np.sqrt(variance)
    return found


def certain(values: Floats, variance: Floats, degrees_of_freedom: Floats) -> Bools:
    """Which values are not 0, at a false discovery rate of 1 - LEVEL (Benjamini & Hochberg 1995).

    NaN values are no comparison.
    """
    found = np.zeros(values.shape, dtype=np.bool_)
    told = ~np.isnan(values)
    score = np.abs(values[told]) / np.sqrt(variance[told])
    p = 2 * stats.t.sf(score, np.broadcast_to(degrees_of_freedom, values.shape)[told])
    found[told] = stats.false_discovery_control(p) <= 1 - LEVEL
    return found
