"""Phenotypes: stability, separation, and distinguishing features."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor

from model.cohorts.store import Cohort
from model.evaluation.folds import hospital_folds
from model.evaluation.metrics import Rows
from model.evaluation.sections import Figures, Section
from model.evaluation.sections.markdown import decimal, paragraph, percent, table
from model.evaluation.study.results import MissingPredictionsError, StudyResults
from model.network.losses import nearest_prototype
from model.training.data import SampleTensors
from model.training.phenotypes import explained_variance, fit_prototypes, fit_scaler, standardise

SEEDS, BOOTSTRAPS = 5, 20
SILHOUETTE_SAMPLES = 2000  # the silhouette compares all pairs


def _phenotyping(study: StudyResults) -> Figures:
    cohort, predictions = study.cohort, study.predictions("m3h", "all")
    names = [
        t.name for t in predictions.tasks if t.kind == "clustering" and t.name in predictions.scores
    ]
    if not names:
        raise MissingPredictionsError("no predictions of a phenotype")
    scores = predictions.scores[names[0]]
    assigned, clusters = scores.argmax(axis=1), scores.shape[1]
    # With another database, this model learned from all hospitals.
    described = study.predictions("m3h", "all", external=study.external is not None)
    unseen = [
        _variance_on_unseen_hospitals(cohort, fold.learn, predictions.rows[rows], assigned[rows])
        for fold in hospital_folds(cohort)
        if (rows := predictions.fold == fold.number).any()
    ]
    return {
        "clusters": clusters,
        **_stability(cohort, clusters),
        **{key: float(np.mean([figures[key] for figures in unseen])) for key in unseen[0]},
        "phenotypes": described.facts[0]["phenotypes"],
        "display": {t.name: t.display for t in predictions.tasks}
        | {v.name: v.display for v in cohort.spec.variables},
    }


def _stability(cohort: Cohort, clusters: int) -> Figures:
    """Agreement of k-means clusters across seeds and across bootstraps of hospitals."""
    statistics = _standardised(cohort, np.arange(len(cohort.samples)))
    known = ~torch.isnan(statistics).all(dim=1)
    x = statistics[known]
    by_seed = [_clusters(x, x, clusters, seed) for seed in range(SEEDS)]
    sites, site = np.unique(cohort.samples.site[known.numpy()], return_inverse=True)
    draw = np.random.default_rng(0)
    by_bootstrap = []
    for _ in range(BOOTSTRAPS):
        counts = np.bincount(draw.choice(len(sites), len(sites)), minlength=len(sites))
        drawn = np.repeat(np.arange(len(x)), counts[site])
        by_bootstrap.append(_clusters(x[torch.from_numpy(drawn)], x, clusters, 0))
    pairs = combinations(by_seed, 2)
    return {
        "samples": len(x),
        "rand_of_seeds": float(np.mean([adjusted_rand_score(*pair) for pair in pairs])),
        "rand_of_bootstraps": float(
            np.mean([adjusted_rand_score(by_seed[0], other) for other in by_bootstrap])
        ),
        "silhouette": float(
            silhouette_score(
                torch.nan_to_num(x).numpy(),
                by_seed[0],
                sample_size=min(SILHOUETTE_SAMPLES, len(x)),
                random_state=0,
            )
        ),
    }


def _variance_on_unseen_hospitals(
    cohort: Cohort, learn: Rows, test: Rows, assigned: npt.NDArray[np.intp]
) -> dict[str, float]:
    """The variance of the test patients that clusters explain: the model's, and the nearest centre.

    assigned [n]: the model's cluster of each test patient.
    """
    statistics = _standardised(cohort, learn)
    clusters = int(assigned.max()) + 1
    known = ~torch.isnan(statistics[test]).all(dim=1)
    x, model = statistics[test][known], torch.from_numpy(assigned)[known]
    by_distance = _clusters(statistics[learn], x, clusters, 0)
    return {
        "explained": explained_variance(x, model),
        "explained_by_distance": explained_variance(x, torch.from_numpy(by_distance)),
    }


def _standardised(cohort: Cohort, learn: Rows) -> Tensor:
    """[N, V] the statistics of every sample, in spreads of the patients at `learn`."""
    return standardise(SampleTensors([cohort], ("series",)), fit_scaler(cohort, learn))


def _clusters(learn: Tensor, x: Tensor, clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """The nearest cluster of each row of `x`, of k-means clusters of the rows of `learn`."""
    cluster: npt.NDArray[np.int64] = nearest_prototype(
        x, fit_prototypes(learn, clusters, seed)
    ).numpy()
    return cluster


def _render(figures: Figures) -> list[str]:
    display = figures["display"]
    rows = [
        [
            phenotype["cluster"] + 1,
            percent(phenotype["share"]),
            _list(phenotype["distinguished_by"], display, "{:+.1f}"),
            _list(phenotype["more_often"], display, "{:.1f} times"),
        ]
        for phenotype in figures["phenotypes"]
    ]
    return [
        paragraph(
            f"""{figures["clusters"]} clusters of the standardised means of vital signs and
            laboratory values, found without labels (k-means) and learned by M3H as a task.
            {figures["samples"]} samples at all landmarks. Adjusted Rand index (1: equal clusters,
            0: chance) across seeds {decimal(figures["rand_of_seeds"], digits=2)}, across
            bootstraps of hospitals {decimal(figures["rand_of_bootstraps"], digits=2)}; silhouette
            {decimal(figures["silhouette"], digits=2)}: groups along a continuum, not distinct
            kinds of patients. In unseen hospitals, the clusters that M3H assigns explain
            {percent(figures["explained"])} of the statistics' variance, those of the nearest
            centre {percent(figures["explained_by_distance"])}."""
        ),
        paragraph(
            """The phenotypes of the model that learned from all of eICU. Variables: the distance
            from the median in spreads of the patients. Tasks: the ratio of the rate to that of all
            patients."""
        ),
        table(["phenotype", "share", "distinguished by", "more frequent"], rows),
    ]


def _list(values: dict[str, float], display: dict[str, str], form: str) -> str:
    return "; ".join(f"{display[name]} {form.format(value)}" for name, value in values.items())


PHENOTYPING = Section("phenotyping", "Phenotypes", _phenotyping, _render)
