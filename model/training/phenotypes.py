"""Phenotypes: clusters of patients with similar vital signs and laboratory values.

They are learned without labels.
"""

from dataclasses import replace

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from model.cohorts.store import Cohort
from model.network.checkpoint import Facts
from model.representations.modalities import RobustScaler
from model.training.data import Rows, SampleTensors
from schemas.features import STATISTICS
from schemas.manifest import Phenotype

# A variable shapes the phenotypes if more than this share of the samples with series has it.
MIN_MEASURED_SHARE = 0.3
MAX_NAMED = 3  # variables, and tasks, in a description
PRIOR_PATIENTS = 5  # patients with the overall rate, added to each cluster's rates


def fit_scaler(cohort: Cohort, rows: Rows) -> RobustScaler:
    """The scaling of the statistics among the samples `rows`, as in the series encoder."""
    samples = cohort.samples.take(rows)
    data = SampleTensors([replace(cohort, samples=samples)], ("series",))
    statistics = data.inputs("series", data.rows_with("series"))["statistics"]
    scaler = RobustScaler((statistics.shape[1], statistics.shape[2]))
    scaler.fit(statistics)
    return scaler


@torch.no_grad()
def standardise(data: SampleTensors, scaler: RobustScaler) -> Tensor:
    """[N, V] the mean of each variable, in spreads from the median; NaN if not measured.

    A rarely measured variable is NaN for all samples: a phenotype of the patients with a rare test
    would not describe the others. Samples without series do not count, so that adding a cohort of
    images changes no phenotype.
    """
    column = STATISTICS.index("mean")
    values = torch.from_numpy(data.samples.statistics)
    rows = data.rows_with("series")
    scaled = torch.full(values.shape[:2], torch.nan)
    scaled[rows] = scaler(values[rows])[:, :, column]
    scaled[torch.isnan(values[:, :, column])] = torch.nan
    common = (~torch.isnan(scaled[rows])).float().mean(dim=0) > MIN_MEASURED_SHARE
    return scaled.masked_fill(~common, torch.nan)


def fit_prototypes(statistics: Tensor, clusters: int, seed: int) -> Tensor:
    """[clusters, V] k-means centres, the largest cluster first; missing values at the median."""
    rows = torch.nan_to_num(statistics[~torch.isnan(statistics).all(dim=1)])
    if len(rows) < clusters:
        return torch.zeros(clusters, statistics.shape[1])
    kmeans = KMeans(clusters, n_init=10, random_state=seed).fit(rows.numpy())
    order = np.argsort(-np.bincount(kmeans.labels_, minlength=clusters), kind="stable")
    return torch.tensor(kmeans.cluster_centers_[order], dtype=torch.float32)


def explained_variance(statistics: Tensor, cluster: Tensor) -> float:
    """The share of the statistics' variance [N, V] that lies between the clusters [N]."""
    x = torch.nan_to_num(statistics).double()
    within = sum(
        float(((members := x[cluster == k]) - members.mean(dim=0)).square().sum())
        for k in cluster.unique()
    )
    return 1 - within / float((x - x.mean(dim=0)).square().sum())


def describe(
    logits: Tensor, statistics: Tensor, outcomes: Tensor, facts: Facts
) -> tuple[Phenotype, ...]:
    """Each cluster's share, and the variables and tasks that distinguish it.

    logits [N, clusters] (NaN if unknown), statistics [N, V], outcomes [N, all tasks]. Variables are
    in spreads from the median, tasks as the ratio of the cluster's rate to that of all patients.
    """
    known = ~torch.isnan(logits[:, 0]) & ~torch.isnan(statistics).all(dim=1)
    cluster = torch.where(known, logits.nan_to_num().argmax(dim=1), -1)
    binary = [i for i, t in enumerate(facts.tasks) if t.kind == "binary"]
    overall = torch.nanmean(outcomes[known][:, binary], dim=0)
    phenotypes = []
    for k in range(logits.shape[1]):
        members = cluster == k
        mean = torch.nan_to_num(torch.nanmean(statistics[members], dim=0))
        rate = torch.nanmean(outcomes[members][:, binary], dim=0)
        patients = (~torch.isnan(outcomes[members][:, binary])).sum(dim=0)
        # Shrunk, so that a rare disease does not have the highest ratio by chance.
        positives = torch.nan_to_num(rate) * patients + PRIOR_PATIENTS * overall
        ratio = positives / (patients + PRIOR_PATIENTS) / overall
        ratio = torch.nan_to_num(ratio, nan=1.0)
        variables = mean.abs().argsort(descending=True)[:MAX_NAMED].tolist()
        tasks = [t for t in ratio.argsort(descending=True)[:MAX_NAMED].tolist() if ratio[t] > 1]
        by_variable = {facts.spec.variables[v].name: round(float(mean[v]), 2) for v in variables}
        by_task = {facts.tasks[binary[t]].name: round(float(ratio[t]), 2) for t in tasks}
        phenotypes.append(
            Phenotype(
                cluster=k,
                share=float(members.sum() / known.sum()),
                distinguished_by=by_variable,
                more_often=by_task,
            )
        )
    return tuple(phenotypes)
