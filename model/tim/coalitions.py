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

from model.errors import UserError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEVEL = 0.95
FEWEST = 5  # coalitions that a player is in, and that it is out of
# The additive recurrence with the golden ratio: any first so many of it are spread evenly.
_GOLDEN = (5**0.5 - 1) / 2


class TooFewError(UserError):
    """Tasks or coalitions that are too few to tell tasks apart."""


@dataclass(frozen=True)
class Coalition:
    """Tasks, by index, that are trained together without the hospitals of `fold`."""

    number: int
    fold: int
    tasks: tuple[int, ...]


def draw(tasks: int, folds: int, seed: int) -> Iterator[Coalition]:
    """Coalitions without end, of 2 to `tasks` - 1 tasks; more are drawn by drawing on.

    In the game of each of its tasks a coalition has the probability of the Shapley kernel (Lundberg
    & Lee 2017), so that no coalition need be weighted. Sizes are spread evenly over
    their distribution, and those of one size dealt from one shuffled deck of tasks after another:
    every task is drawn about as often, and coalitions of half of the tasks come in complementary
    pairs. Folds take turns.
    """
    if tasks < 3:
        raise TooFewError(f"{tasks} tasks have no coalitions between one of them and all")
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

    `v` [m] is what each coalition is worth, `alone` and `together` [strata] what the task alone and
    all tasks together are; replicates, if any, come last. What a coalition is worth beyond its
    share of the whole gain, and `beyond` [m, m] what others of its size are, speaks for who is in
    it and against who is not, `against` [m, n]. The values are the mean over coalitions and an
    equal share of the whole gain: they add up to the mean over strata of together - alone exactly.
    """

    against: Floats
    beyond: Floats
    share: Floats
    stratum: npt.NDArray[np.intp]

    def values(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[n, …]."""
        parts = self.against.T @ self._beyond(v, alone, together) / self.m
        gain: Floats = (together - alone).mean(axis=0)
        values: Floats = parts + gain / self.n
        return values

    def variance_of_coalitions(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[n] how much the values vary with what was drawn: coalitions, and seeds, of ends too."""
        parts = self.against * self._beyond(v, alone, together)[:, None]
        gain = together - alone
        variance: Floats = parts.var(axis=0, ddof=1) / self.m
        return variance + gain.var(ddof=1) / len(gain) / self.n**2

    def variance_of_patients(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[n] how much the values vary with the patients, by replicates [m, R], [strata, R].

        Less how much each network's own errors on these patients do: these are in the variance of
        coalitions already, and added twice would make it too large (Owen 2007, the pigeonhole
        bootstrap of data that are crossed).
        """
        beyond, values = self._beyond(v, alone, together), self.values(v, alone, together)
        whole = values.var(axis=1, ddof=1)
        centred = values - values.mean(axis=1, keepdims=True)
        both = (beyond - beyond.mean(axis=1, keepdims=True)) @ centred.T / (v.shape[1] - 1)
        # Of how far a coalition's part is from the value.
        own = self.against**2 * beyond.var(axis=1, ddof=1)[:, None] - 2 * self.against * both
        variance: Floats = np.maximum(whole - (own + whole).mean(axis=0) / self.m, 0.0)
        return variance

    def _beyond(self, v: Floats, alone: Floats, together: Floats) -> Floats:
        """[m, …]."""
        share = self.share.reshape(-1, *[1] * (v.ndim - 1))
        gain = together - alone
        beyond: Floats = self.beyond @ (v - alone[self.stratum] - share * gain[self.stratum])
        return beyond

    @property
    def m(self) -> int:
        return self.against.shape[0]

    @property
    def n(self) -> int:
        return self.against.shape[1]

    @property
    def degrees_of_freedom(self) -> int:
        return self.m - 1


def estimate(players: Bools, stratum: npt.NDArray[np.intp]) -> Estimate:
    """The unbiased estimate from drawn coalitions (Covert & Lee 2021, section 3.2).

    `players` [m, n]: who is in each coalition; `stratum` [m]: coalitions that have the fold and the
    seed, and so both ends, in common. Least squares would need far more coalitions than players;
    here the second moments of who is in a coalition are those of the kernel, which are known. Two
    control variates leave the estimate unbiased, because who is in a coalition of a size is chance:
    what its stratum's ends tell, and what the others of about its size are worth.

    Raises TooFewError if a player is too seldom in a coalition, or out of one, to tell.
    """
    x = players.astype(np.float64)
    m, n = x.shape
    size = x.sum(1)
    rarest = int(min(x.sum(0).min(), (1 - x).sum(0).min()))
    if rarest < FEWEST:
        raise TooFewError(
            f"{m} coalitions are too few to tell {n} tasks apart: one is in {rarest} of them, or "
            f"out of as few, and {FEWEST} are needed; draw more"
        )
    sizes = np.arange(1, n)
    kernel = 1 / (sizes * (n - sizes))
    kernel /= kernel.sum()
    spread = (kernel * sizes * (n - sizes)).sum() / (n * (n - 1))
    # Worth falls or rises with size, and not in a line; of each as all but itself tell.
    curve = np.stack([np.ones(m), np.log(size), size / n], axis=1)
    hat = curve @ np.linalg.pinv(curve)
    beyond = (np.eye(m) - hat) / (1 - np.diag(hat))[:, None]
    return Estimate((x - size[:, None] / n) / spread, beyond, size / n, stratum)


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
