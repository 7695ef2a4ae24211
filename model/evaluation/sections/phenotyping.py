"""Phenotypes: whether they are stable and apart, and what sets each apart."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor

from model.cohorts.store import Cohort
from model.evaluation.evaluate import hospital_folds
from model.evaluation.measure import Found
from model.evaluation.sections import Section
from model.evaluation.sections.markdown import figure, percent, prose, table
from model.evaluation.study_results import Kept, NotYet
from model.network.losses import nearest_prototype
from model.training.data import Rows, SampleTensors
from model.training.phenotypes import explained_variance, fit_prototypes, fit_scaler, standardise

SEEDS, BOOTSTRAPS = 5, 20
SILHOUETTE_OF = 2000  # samples: it compares each with each


def _phenotyping(kept: Kept) -> Found:
    cohort, tested = kept.cohort, kept.tested("m3h", "all")
    names = [t.name for t in tested.tasks if t.kind == "clustering" and t.name in tested.scores]
    if not names:
        raise NotYet("no predictions of a phenotype")
    name = names[0]
    elsewhere = kept.tested("m3h", "all", external=kept.other is not None)
    told = tested.scores[name].argmax(axis=1)
    clusters = tested.scores[name].shape[1]
    unseen = [
        _on_hospitals_unseen(cohort, fold.learn, tested.rows[here], told[here])
        for fold in hospital_folds(cohort)
        if (here := tested.fold == fold.number).any()
    ]
    return {
        "clusters": clusters,
        **_stability(cohort, clusters),
        **{key: float(np.mean([of_fold[key] for of_fold in unseen])) for key in unseen[0]},
        "phenotypes": elsewhere.facts[0]["phenotypes"],
        "display": {t.name: t.display for t in tested.tasks}
        | {v.name: v.display for v in cohort.spec.variables},
    }


def _stability(cohort: Cohort, clusters: int) -> Found:
    """How alike the clusters of k-means are with other seeds, and from other hospitals."""
    statistics = _standardised(cohort, np.arange(len(cohort.samples)))
    known = ~torch.isnan(statistics).all(dim=1)
    x = statistics[known]
    of_seeds = [_clusters(x, x, clusters, seed) for seed in range(SEEDS)]
    sites, site = np.unique(cohort.samples.site[known.numpy()], return_inverse=True)
    draw = np.random.default_rng(0)
    of_bootstraps = []
    for _ in range(BOOTSTRAPS):
        times = np.bincount(draw.choice(len(sites), len(sites)), minlength=len(sites))
        drawn = np.repeat(np.arange(len(x)), times[site])
        of_bootstraps.append(_clusters(x[torch.from_numpy(drawn)], x, clusters, 0))
    pairs = combinations(of_seeds, 2)
    return {
        "samples": len(x),
        "rand_of_seeds": float(np.mean([adjusted_rand_score(*pair) for pair in pairs])),
        "rand_of_bootstraps": float(
            np.mean([adjusted_rand_score(of_seeds[0], other) for other in of_bootstraps])
        ),
        "silhouette": float(
            silhouette_score(
                torch.nan_to_num(x).numpy(),
                of_seeds[0],
                sample_size=min(SILHOUETTE_OF, len(x)),
                random_state=0,
            )
        ),
    }


def _on_hospitals_unseen(
    cohort: Cohort, learn: Rows, test: Rows, told: npt.NDArray[np.intp]
) -> dict[str, float]:
    """What the model's clusters, and those of the nearest prototype, explain of other patients."""
    statistics = _standardised(cohort, learn)
    clusters = int(told.max()) + 1
    known = ~torch.isnan(statistics[test]).all(dim=1)
    x, model = statistics[test][known], torch.from_numpy(told)[known]
    by_distance = _clusters(statistics[learn], x, clusters, 0)
    return {
        "explained": explained_variance(x, model),
        "explained_by_distance": explained_variance(x, torch.from_numpy(by_distance)),
    }


def _standardised(cohort: Cohort, learn: Rows) -> Tensor:
    """[N, V] every sample's statistics, in spreads of the patients at `learn`."""
    return standardise(SampleTensors([cohort], ("series",)), fit_scaler(cohort, learn))


def _clusters(learn: Tensor, x: Tensor, clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """Of k-means on those to `learn` from, the cluster of each of `x`."""
    found: npt.NDArray[np.int64] = nearest_prototype(
        x, fit_prototypes(learn, clusters, seed)
    ).numpy()
    return found


def _tell(found: Found) -> list[str]:
    display = found["display"]
    rows = [
        [
            phenotype["cluster"] + 1,
            percent(phenotype["share"]),
            _each(phenotype["distinguished_by"], display, "{:+.1f}"),
            _each(phenotype["more_often"], display, "{:.1f} times"),
        ]
        for phenotype in found["phenotypes"]
    ]
    return [
        prose(
            f"""{found["clusters"]} clusters of the standardised means of vital signs and laboratory
            values, made without labels (k-means) and learned by M3H as a task. {found["samples"]}
            samples at all landmarks. Adjusted Rand index (1: the same clusters, 0: chance) across
            seeds {figure(found["rand_of_seeds"], digits=2)}, across bootstraps of hospitals
            {figure(found["rand_of_bootstraps"], digits=2)}; silhouette
            {figure(found["silhouette"], digits=2)}: groups along a continuum, not kinds of
            patients. In hospitals never seen, the clusters that M3H tells explain
            {percent(found["explained"])} of the statistics' variance, those of the nearest
            centre {percent(found["explained_by_distance"])}."""
        ),
        prose(
            """Of the model that learned from all of eICU: variables in patients' spreads from the
            median; tasks as the ratio of their rate to that of all patients."""
        ),
        table(["phenotype", "share", "stands out by", "more often"], rows),
    ]


def _each(values: dict[str, float], display: dict[str, str], form: str) -> str:
    return "; ".join(f"{display[name]} {form.format(value)}" for name, value in values.items())


PHENOTYPING = Section("phenotyping", "Phenotypes", _phenotyping, _tell)
