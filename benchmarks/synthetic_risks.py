"""The true risks of synthetic patients, by Gibbs sampling of the latent causes of their diseases.

The synthetic cohort (`model/cohorts/synthetic/`) is drawn from a known graph. So the risk of a
disease, given a patient's observations, can be computed without a model.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import norm

from model.cohorts import Record, synthetic
from model.cohorts.synthetic import (
    DISEASES,
    JITTER,
    MEASUREMENTS,
    MENTION_RATES,
    OBSERVABLES,
    SIGN_RATES,
    TASKS,
    TREATMENTS,
    X_RAY_SIGNS,
    generator,
)
from schemas.response import MODALITIES
from schemas.tasks import load_tasks

Floats = npt.NDArray[np.float64]
TEST, TEST_SEED = 300, 145
CHAINS, SWEEPS, BURN_IN = 200, 60, 20
TINY = 1e-300
NAMES = list(DISEASES)
PARENT = {task.name: task.subset_of for task in load_tasks()}
GRAPH = synthetic.causal_graph()
# Above the limit, a liability means the disease. Above the threshold, an observable is present (a
# treatment, female sex).
LIMIT = np.array(
    [norm.ppf(1 - DISEASES[t].prevalence) if t in DISEASES else math.inf for t in TASKS]
)
THRESHOLD = np.array(
    [norm.ppf(1 - TREATMENTS[o].prevalence) if o in TREATMENTS else 0.0 for o in OBSERVABLES]
)
TABULAR = ("age", "weight_kg", "female")


@dataclass(frozen=True)
class Observations:
    """A patient's observations: OBSERVABLES, and the statements of notes and X-ray.

    `exact` [O]: the shift by the mean of the measurements, NaN without any; `variance` [O] of it;
    `either` [O]: 1 above the threshold, -1 below, 0 not observed. `mentioned`, `excluded`: diseases
    in the notes; `signs` of X_RAY_SIGNS in the X-ray, None without X-ray.
    """

    record: Record
    exact: Floats
    variance: Floats
    either: Floats
    mentioned: frozenset[str]
    excluded: frozenset[str]
    signs: frozenset[str] | None

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m != "image" or self.signs is not None)

    @property
    def requested(self) -> list[str]:
        """The variables of the request: a treatment that was not given is not in it."""
        requested = np.isfinite(self.exact) | (self.either > 0)
        return [
            o for o, known in zip(OBSERVABLES, requested, strict=True) if known or o == "female"
        ]


def observed() -> Iterator[Observations]:
    """Test patients with tabular data, series and notes."""
    drawn: list[frozenset[str]] = []
    draw_xray = generator.chest_xray

    def recording(signs: set[str], *rest: Any, **more: Any) -> bytes:
        drawn.append(frozenset(signs))
        return draw_xray(signs, *rest, **more)

    generator.chest_xray = recording  # the image does not state its signs
    for record in synthetic.patients(TEST, TEST_SEED):
        payload = record.payload
        if payload.tabular is None or not payload.series or not payload.notes:
            continue
        exact, variance = np.full(len(OBSERVABLES), np.nan), GRAPH.noise**2
        either = np.zeros(len(OBSERVABLES))
        weight = payload.tabular.weight_kg or math.nan
        exact[OBSERVABLES.index("age")] = ((payload.tabular.age or math.nan) - 64) / 15
        exact[OBSERVABLES.index("weight_kg")] = math.log(weight / 80) / math.log(1.22)
        either[OBSERVABLES.index("female")] = 1 if payload.tabular.sex == "female" else -1
        for series in payload.series:
            known, i = MEASUREMENTS[series.variable], OBSERVABLES.index(series.variable)
            values = np.array(series.values)
            if known.skewed:
                z = np.log(values / known.typical) / math.log(known.spread)
            else:
                z = (values - known.typical) / known.spread
            exact[i] = z.mean() * math.hypot(1, JITTER)
            variance[i] += JITTER**2 / len(values)
        given = {treatment.name for treatment in payload.treatments}
        for name in TREATMENTS:
            either[OBSERVABLES.index(name)] = 1 if name in given else -1
        present, _, absent = payload.notes[0].text.partition("Not found:")
        mentioned, excluded = (
            frozenset(name for name in NAMES if DISEASES[name].phrase in text)
            for text in (present, absent)
        )
        signs = drawn[-1] if payload.images else None
        yield Observations(record, exact, variance, either, mentioned, excluded, signs)


def evidence(patient: Observations, known: Collection[str]) -> Iterator[tuple[list[int], float]]:
    """Evidence of notes and X-ray: diseases, and the log-likelihood ratio if any is present."""

    def ratio(chances: tuple[float, float], *, present: bool) -> float:
        ill, well = chances if present else (1 - chance for chance in chances)
        return math.log(ill / well)

    for name in NAMES if "notes" in known else ():
        certain = -50.0 if name in patient.excluded else None
        yield _any_of(name), certain or ratio(MENTION_RATES, present=name in patient.mentioned)
    if "image" in known and patient.signs is not None:
        for sign, names in X_RAY_SIGNS.items():
            yield _any_of(*names), ratio(SIGN_RATES, present=sign in patient.signs)


def _any_of(*names: str) -> list[int]:
    """The indices of the diseases and of their subtypes."""
    return [i for i, name in enumerate(NAMES) if name in names or PARENT.get(name) in names]


def _sample_liabilities(
    liability: Floats,
    pull: Floats,
    precision: Floats,
    ratios: Sequence[tuple[list[int], float]],
    draw: np.random.Generator,
) -> None:
    """Samples each liability in place, given all others and the evidence `ratios`."""
    for t, limit in enumerate(LIMIT):
        spread = 1 / math.sqrt(precision[t, t])
        mean = liability[:, t] + spread**2 * (pull[:, t] - liability @ precision[t])
        log_ratio = np.zeros(CHAINS)
        for causes, ratio in ratios:
            if t in causes:
                others = [i for i in causes if i != t]
                log_ratio += ratio * (liability[:, others] <= LIMIT[others]).all(1)
        below, odds = ndtr((limit - mean) / spread), np.exp(log_ratio)
        u = draw.random(CHAINS) * (below + odds * (1 - below))
        u = np.where(u < below, u, below + (u - below) / odds)
        liability[:, t] = mean + spread * ndtri(np.clip(u, 1e-12, 1 - 1e-12))


class Draws:
    """Posterior draws of a patient's `factors` [draws, F] and `liabilities` [draws, T].

    Gibbs sampling with CHAINS parallel chains: the latent shifts of binary observables (Albert &
    Chib 1993), the factors jointly, and each liability, whose probability above its limit depends
    on notes and X-ray.
    """

    def __init__(
        self, patient: Observations, known: Collection[str], draw: np.random.Generator
    ) -> None:
        visible = np.where(np.isin(OBSERVABLES, TABULAR), "tabular" in known, "series" in known)
        self.patient, either = patient, patient.either * visible
        used = visible & (np.isfinite(patient.exact) | (either != 0))
        side, variance = either[used], patient.variance[used]
        by_factors, by_tasks = GRAPH.from_factors[:, used], GRAPH.from_tasks[:, used]
        given, own = side != 0, GRAPH.own**2
        edge, noise = THRESHOLD[used][given], GRAPH.noise[used][given]
        covariance = np.linalg.inv(
            np.eye(len(by_factors))
            + (GRAPH.loadings / own) @ GRAPH.loadings.T
            + (by_factors / variance) @ by_factors.T
        )
        root = np.linalg.cholesky(covariance)
        precision = np.diag(1 / own) + (by_tasks / variance) @ by_tasks.T
        ratios = list(evidence(patient, known))
        shift = np.tile(np.nan_to_num(patient.exact[used]), (CHAINS, 1))
        factors = np.zeros((CHAINS, len(by_factors)))
        liability = np.zeros((CHAINS, len(TASKS)))
        samples = []
        for sweep in range(BURN_IN + SWEEPS):
            centre = (factors @ by_factors + liability @ by_tasks)[:, given]
            # A normal distribution around the centre, truncated to the observed side.
            inside = ndtr(side[given] * (centre - edge) / noise)
            beyond = ndtri(np.maximum(draw.random(centre.shape) * inside, TINY))
            shift[:, given] = centre - side[given] * noise * beyond
            pull = liability / own @ GRAPH.loadings.T
            pull += (shift - liability @ by_tasks) / variance @ by_factors.T
            factors = pull @ covariance + draw.normal(size=factors.shape) @ root.T
            pull = factors @ GRAPH.loadings / own
            pull += (shift - factors @ by_factors) / variance @ by_tasks.T
            _sample_liabilities(liability, pull, precision, ratios, draw)
            if sweep >= BURN_IN:
                samples.append((factors, liability.copy()))
        self.factors, self.liabilities = map(np.concatenate, zip(*samples, strict=True))
        ill = self.liabilities > LIMIT
        self.ill = np.stack([ill[:, _any_of(name)].any(1) for name in NAMES], axis=1)

    def risk(self) -> Floats:
        """[D] the risk of each disease."""
        risk: Floats = self.ill.mean(0)
        return risk

    def risk_without(self, name: str) -> Floats:
        """[D] the risks without one variable, by importance weights on the draws."""
        i, patient = OBSERVABLES.index(name), self.patient
        centre = self.factors @ GRAPH.from_factors[:, i] + self.liabilities @ GRAPH.from_tasks[:, i]
        if patient.either[i]:
            weight = -log_ndtr(patient.either[i] * (centre - THRESHOLD[i]) / GRAPH.noise[i])
        else:
            weight = (patient.exact[i] - centre) ** 2 / patient.variance[i] / 2
        counts = np.exp(weight - weight.max())
        risk: Floats = counts @ self.ill / counts.sum()
        return risk


def true_effects(
    patient: Observations, draw: np.random.Generator
) -> tuple[dict[str, Floats], Floats]:
    """The true effects of the request's variables [D], and Shapley values of modalities [4, D]."""
    drawn = {some: Draws(patient, some, draw) for some in _subsets(patient.modalities)}
    risks = {some: draws.risk() for some, draws in drawn.items()}
    every = risks[frozenset(patient.modalities)]
    variables = {
        name: every - drawn[frozenset(patient.modalities)].risk_without(name)
        for name in patient.requested
    }
    modalities = np.zeros((len(MODALITIES), len(NAMES)))
    for modality in patient.modalities:
        others = [m for m in patient.modalities if m != modality]
        for some in _subsets(others):
            share = 1 / (len(patient.modalities) * math.comb(len(others), len(some)))
            gain = risks[some | {modality}] - risks[some]
            modalities[MODALITIES.index(modality)] += share * gain
    return variables, modalities


def _subsets(names: Sequence[str]) -> list[frozenset[str]]:
    """All subsets, by size."""
    return [frozenset(some) for n in range(len(names) + 1) for some in combinations(names, n)]
