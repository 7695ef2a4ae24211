"""Does the explanation name what moves the risk? Asked of made patients, whose true risk is known.

The synthetic cohort (`model/cohorts/synthetic.py`) is drawn from a graph that is known, so that the
risk of a disease given all that was observed of a patient can be computed without any model: by
Gibbs sampling of the latent causes (Albert & Chib 1993 for what is either given or not). Without
one variable, or one modality, the risk is another: that is how far it moves the true risk.

A network learns from other patients of that graph, is exported, and explains. A case is a patient,
a disease, and a variable (or the modality) without which the true risk is another by .1 or more.
The variable is named if it is among those of `explain=full`, with the same sign; the modality, if
its Shapley value is the largest in amount, for the one that moves the true risk most.

    python benchmarks/explanations_synthetic.py --work runs/explanations

Learning takes half an hour, and is not repeated if it is there; the rest takes minutes.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import norm

from export.bundle import export_bundle
from model import labels
from model.cohort import Cohort, write
from model.cohorts import Record, synthetic
from model.cohorts.synthetic import DISEASES, GIVEN, JITTER, MEASURED, PICTURED, SAID, SEEN
from model.prepare import Prepared, TrainConfig
from model.train import Trainer
from schemas.features import FeatureSpec
from schemas.response import MODALITIES
from schemas.tasks import load_tasks
from service.bundle import Bundle
from service.cache import Cache
from service.engine import Engine
from service.metrics import Metrics
from service.predict import Job, Options, Predictor

Floats = npt.NDArray[np.float64]

LEARN, LEARN_SEED = 8000, 144
TEST, TEST_SEED = 300, 145
MOVES = 0.1
SWEEPS, BURN_IN = 3000, 300
NAMES = list(DISEASES)
TASKS = synthetic._TASKS  # noqa: SLF001 - the graph's own order
OBSERVED = synthetic._OBSERVED  # noqa: SLF001
GRAPH = synthetic._graph()  # noqa: SLF001


# ---- the model -----------------------------------------------------------------------------------


def learned(work: Path) -> Path:
    """The bundle of a network that has learned from synthetic patients."""
    bundle, cohort = work / "bundle", work / "cohort"
    if not (bundle / "manifest.json").is_file():
        spec = FeatureSpec.default()
        facts: dict[str, Any] = {"name": "synthetic", "source": synthetic.SOURCE}
        if not (cohort / "cohort.json").is_file():
            records = synthetic.patients(LEARN, LEARN_SEED)
            for done in write(records, cohort, made_by=(synthetic, labels), spec=spec, **facts):
                print(f"{done} patients", flush=True)
        trainer = Trainer(Prepared([Cohort.load(cohort)], TrainConfig(members=2)))
        for epoch in trainer.run(work / "run"):
            print(epoch, flush=True)
        golden = synthetic.examples()
        export_bundle(
            trainer.checkpoint(),
            bundle,
            name="synthetic",
            version="1",
            golden=golden,
            evaluation={},
        )
    return bundle


# ---- the true risk -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What was observed of one patient, of OBSERVED, and what notes and X-ray say.

    `exact` [O]: the shift that a mean of measurements shows, NaN where there is none; `variance`
    [O] of it; `either` [O]: 1 above the threshold, -1 below, 0 not observed. `said`, `excluded` [D]
    in notes; `signs` of PICTURED in the X-ray, or None.
    """

    record: Record
    exact: Floats
    variance: Floats
    either: Floats
    said: npt.NDArray[np.bool_]
    excluded: npt.NDArray[np.bool_]
    signs: frozenset[str] | None


NOISE = GRAPH.noise
# [factors and own parts, O] and [.., T]: what of a shift and of a liability they make.
TO_SHIFT = np.concatenate(
    [GRAPH.from_factors + GRAPH.loadings @ GRAPH.from_tasks, GRAPH.own[:, None] * GRAPH.from_tasks]
)
TO_LIABILITY = np.concatenate([GRAPH.loadings, np.diag(GRAPH.own)])
LIMIT = np.array([norm.ppf(1 - DISEASES[name].share) for name in NAMES])
# Above it a treatment is given; the patient is a woman.
THRESHOLD = np.array([norm.ppf(1 - GIVEN[o].share) if o in GIVEN else 0.0 for o in OBSERVED])
TABULAR = ("age", "weight_kg", "female")


def observed() -> Iterator[Seen]:
    """Test patients who have tabular data, series and notes."""
    drawn: list[frozenset[str]] = []
    draw_xray = synthetic.chest_xray

    def recording(signs: set[str], *rest: Any, **more: Any) -> bytes:
        drawn.append(frozenset(signs))
        return draw_xray(signs, *rest, **more)

    synthetic.chest_xray = recording  # an X-ray does not say what was drawn into it
    for record in synthetic.patients(TEST, TEST_SEED):
        payload = record.payload
        if payload.tabular is None or not payload.series or not payload.notes:
            continue
        exact, variance = np.full(len(OBSERVED), np.nan), NOISE**2
        either = np.zeros(len(OBSERVED))
        weight = payload.tabular.weight_kg or math.nan
        exact[OBSERVED.index("age")] = ((payload.tabular.age or math.nan) - 64) / 15
        exact[OBSERVED.index("weight_kg")] = math.log(weight / 80) / math.log(1.22)
        either[OBSERVED.index("female")] = 1 if payload.tabular.sex == "female" else -1
        for series in payload.series:
            known, i = MEASURED[series.variable], OBSERVED.index(series.variable)
            values = np.array(series.values)
            if known.skewed:
                z = np.log(values / known.typical) / math.log(known.spread)
            else:
                z = (values - known.typical) / known.spread
            exact[i] = z.mean() * math.hypot(1, JITTER)
            variance[i] = NOISE[i] ** 2 + JITTER**2 / len(values)
        given = {treatment.name for treatment in payload.treatments}
        for name in GIVEN:
            either[OBSERVED.index(name)] = 1 if name in given else -1
        found, _, absent = payload.notes[0].text.partition("Not found:")
        words, excluded = (
            np.array([DISEASES[name].words in text for name in NAMES]) for text in (found, absent)
        )
        signs = drawn[-1] if payload.images else None
        yield Seen(record, exact, variance, either, words, excluded, signs)


class Posterior:
    """What a patient may be, by what is known of series and tabular data: draws of it.

    Of what was either given or not, the shift is drawn by turns with the latent causes; given those
    shifts the causes are normal. So what is left out is left out exactly, and a draw counts as
    much as it is more likely without.
    """

    def __init__(self, one: Seen, known: Sequence[str], draw: np.random.Generator) -> None:
        there = np.where(np.isin(OBSERVED, TABULAR), "tabular" in known, "series" in known)
        self._one = one
        exact = there & np.isfinite(one.exact)
        self._either = there & (one.either != 0)
        self.used = np.flatnonzero(exact | self._either)
        self._variance = np.where(exact, one.variance, NOISE**2)
        shift = np.where(exact, np.nan_to_num(one.exact), 0.0)
        # [draws, O] and a normal for each draw of the latent causes, the same whatever is left out.
        self._shifts = self._sweeps(shift, draw)
        self._normal = draw.normal(size=(SWEEPS, len(TO_SHIFT)))

    def _sweeps(self, shift: Floats, draw: np.random.Generator) -> Floats:
        either, sign = self._either, self._one.either[self._either]
        to_mean, spread = self._given(self.used)
        latent, kept = np.zeros(len(TO_SHIFT)), np.tile(shift, (SWEEPS, 1))
        for sweep in range(-BURN_IN, SWEEPS if either.any() else 0):
            centre = latent @ TO_SHIFT[:, either]
            # Of the normal around it, what lies on the side that was seen.
            edge = sign * (THRESHOLD[either] - centre) / NOISE[either]
            beyond = -ndtri(draw.random(len(edge)) * ndtr(-edge))
            shift[either] = centre + sign * NOISE[either] * np.maximum(beyond, edge)
            latent = shift[self.used] @ to_mean + spread @ draw.normal(size=len(latent))
            kept[max(sweep, 0)] = shift
        return kept

    def _given(self, used: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """What makes the mean of the latent causes of these shifts, and the root of the variance."""
        a = TO_SHIFT[:, used]
        covariance = np.linalg.inv(np.eye(len(a)) + (a / self._variance[used]) @ a.T)
        return (a / self._variance[used]).T @ covariance, np.linalg.cholesky(covariance)

    def without(self, left_out: int | None = None) -> tuple[npt.NDArray[np.bool_], Floats]:
        """[draws, D] who is ill; [draws] log of how much each counts."""
        used = self.used[self.used != left_out]
        to_mean, spread = self._given(used)
        mean = self._shifts[:, used] @ to_mean
        weight = np.zeros(SWEEPS)
        if left_out is not None:
            centre = mean @ TO_SHIFT[:, left_out]
            wide = np.sqrt(self._variance[left_out] + ((TO_SHIFT[:, left_out] @ spread) ** 2).sum())
            if self._either[left_out]:
                sign = self._one.either[left_out]
                weight = -log_ndtr(sign * (centre - THRESHOLD[left_out]) / wide)
            else:
                weight = -norm.logpdf(self._shifts[:, left_out], centre, wide)
        liability = (mean + self._normal @ spread.T) @ TO_LIABILITY
        ill = liability[:, [TASKS.index(name) for name in NAMES]] > LIMIT
        for task in load_tasks():
            if task.subset_of is not None:
                ill[:, NAMES.index(task.subset_of)] |= ill[:, NAMES.index(task.name)]
        return ill, weight


def said(one: Seen, ill: npt.NDArray[np.bool_]) -> Floats:
    """[draws] log-likelihood of what the notes say."""
    chance = np.where(ill, *SAID)
    found = np.log(np.where(one.said, chance, 1 - chance))
    return np.where(one.excluded & ill, -50.0, found).sum(1)


def shown(one: Seen, ill: npt.NDArray[np.bool_]) -> Floats:
    """[draws] log-likelihood of what the X-ray shows."""
    found = np.zeros(len(ill))
    for sign, names in PICTURED.items() if one.signs is not None else ():
        chance = np.where(ill[:, [NAMES.index(name) for name in names]].any(1), *SEEN)
        found += np.log(chance if one.signs and sign in one.signs else 1 - chance)
    return found


def risk(ill: npt.NDArray[np.bool_], weight: Floats) -> Floats:
    """[D] by draws of which each counts exp(weight)."""
    counts = np.exp(weight - weight.max())
    found: Floats = counts @ ill / counts.sum()
    return found


def true_moves(one: Seen, draw: np.random.Generator) -> tuple[dict[str, Floats], Floats, Floats]:
    """By how much each variable moves the true risks [D]; Shapley values of modalities [4, D]; the
    risks [D].
    """
    worth: dict[frozenset[str], Floats] = {}
    for some in _subsets(("tabular", "series")):
        whole = Posterior(one, some, draw)
        ill, weight = whole.without()
        notes, image = said(one, ill), shown(one, ill)
        for also in _subsets(("notes", "image")):
            more = ("notes" in also) * notes + ("image" in also) * image
            worth[frozenset((*some, *also))] = risk(ill, weight + more)
    every = worth[frozenset(MODALITIES)]
    variables = {}
    for i in whole.used.tolist():  # the last, which knows both
        ill, weight = whole.without(i)
        variables[OBSERVED[i]] = every - risk(ill, weight + said(one, ill) + shown(one, ill))
    modalities = np.zeros((len(MODALITIES), len(NAMES)))
    for i, modality in enumerate(MODALITIES):
        others = [m for m in MODALITIES if m != modality]
        for some in _subsets(others):
            size = 1 / (len(MODALITIES) * math.comb(len(others), len(some)))
            modalities[i] += size * (worth[frozenset((*some, modality))] - worth[frozenset(some)])
    return variables, modalities, every


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """From none to all."""
    return [
        tuple(name for i, name in enumerate(names) if bits >> i & 1)
        for bits in range(1 << len(names))
    ]


# ---- what the explanation names ------------------------------------------------------------------


class Explained:
    """One patient as the service explains them."""

    def __init__(self, predictor: Predictor, record: Record) -> None:
        self._predictor = predictor
        self._body = to_json(record.payload)
        self.modalities = self._asked(explain="default")["modalities"]

    def _asked(self, **options: Any) -> Mapping[str, Any]:
        prepared = self._predictor.prepare(Job(self._body, Options(**options)))
        explanation: Mapping[str, Any] = json.loads(self._predictor.run([prepared])[0])[
            "explanation"
        ]
        return explanation

    def named(self, disease: str) -> dict[str, float]:
        """The contributions of what is named for a disease."""
        (told,) = self._asked(explain="full", task=disease)["variables"]
        names = {"sex": "female"}
        return {names.get(p["name"], p["name"]): p["contribution"] for p in told["because"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/explanations"))
    arguments = parser.parse_args()
    engine = Engine(Bundle.load(learned(arguments.work), "cpu", threads=2))
    metrics = Metrics()
    predictor = Predictor(engine, Cache(0, None, metrics), metrics)
    draw = np.random.default_rng(0)
    hits: dict[str, list[bool]] = defaultdict(list)
    for one in observed():
        variables, modalities, _ = true_moves(one, draw)
        told = Explained(predictor, one.record)
        for d, disease in enumerate(NAMES):
            moved = {name: move[d] for name, move in variables.items() if abs(move[d]) >= MOVES}
            named = told.named(disease) if moved else {}
            for name, move in moved.items():
                hits["variable"].append(named.get(name, 0.0) * move > 0)
            if moved:
                first = max(moved, key=lambda name: abs(moved[name]))
                hits["variable, the first"].append(named.get(first, 0.0) * moved[first] > 0)
            largest = int(np.abs(modalities[:, d]).argmax())
            if abs(modalities[largest, d]) >= MOVES:
                found = [told.modalities[disease][m] for m in MODALITIES]
                hits["modality"].append(int(np.abs(found).argmax()) == largest)
    print("| named | cases | share |", "|---|---|---|", sep="\n")
    for what, found in sorted(hits.items()):
        print(f"| {what} | {len(found)} | {np.mean(found):.3f} |")


if __name__ == "__main__":
    main()
