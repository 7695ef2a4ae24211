"""Phenotypes: groups of patients alike in vital signs and laboratory values, without labels."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from model.cohorts.store import Cohort
from model.network.checkpoint import Facts
from model.representations.represent import Normalise
from model.training.data import Data, Rows
from schemas.features import STATISTICS
from schemas.manifest import Phenotype

# Share of samples that must have a variable for it to shape the phenotypes.
OFTEN = 0.3
TOLD = 3  # variables, and tasks, that a description names


def spreads(cohort: Cohort, rows: Rows) -> Normalise:
    """Centre and spread of each statistic among some samples, as the series encoder has them."""
    data = Data([replace(cohort, samples=cohort.samples.take(rows))], ("series",))
    statistics = data.inputs("series", data.rows_with("series"))["statistics"]
    normalise = Normalise((statistics.shape[1], statistics.shape[2]))
    normalise.fit(statistics)
    return normalise


@torch.no_grad()
def standardised(data: Data, normalise: Normalise) -> Tensor:
    """[N, V] each variable's mean, in patients' spreads; NaN if not measured.

    Of variables that most patients have no value of it is NaN for all: a phenotype of who had a
    rare test ordered would say nothing of the others.
    """
    column = STATISTICS.index("mean")
    values = torch.from_numpy(data.samples.statistics)
    rows = data.rows_with("series")
    scaled = torch.full(values.shape[:2], torch.nan)
    scaled[rows] = normalise(values[rows])[:, :, column]
    scaled[torch.isnan(values[:, :, column])] = torch.nan
    often = (~torch.isnan(scaled)).float().mean(dim=0) > OFTEN
    return scaled.masked_fill(~often, torch.nan)


def prototypes(statistics: Tensor, clusters: int, seed: int) -> Tensor:
    """[clusters, V] k-means centres, missing values at the median."""
    rows = torch.nan_to_num(statistics[~torch.isnan(statistics).all(dim=1)])
    if len(rows) < clusters:
        return torch.zeros(clusters, statistics.shape[1])
    found = KMeans(clusters, n_init=10, random_state=seed).fit(rows.numpy())
    # The largest first, so that a cluster's number says something.
    order = np.argsort(-np.bincount(found.labels_, minlength=clusters), kind="stable")
    return torch.tensor(found.cluster_centers_[order], dtype=torch.float32)


def nearest(statistics: Tensor, prototypes: Tensor) -> Tensor:
    """[N] the nearest prototype, missing values at the median, as where the prototypes are from."""
    return torch.cdist(torch.nan_to_num(statistics), prototypes).argmin(dim=1)


def explained(statistics: Tensor, cluster: Tensor) -> float:
    """The share of the statistics' variance [N, V] that lies between the clusters [N]."""
    x = torch.nan_to_num(statistics).double()
    within = sum(
        float(((mine := x[cluster == k]) - mine.mean(dim=0)).square().sum())
        for k in cluster.unique()
    )
    return 1 - within / float((x - x.mean(dim=0)).square().sum())


def describe(
    logits: Tensor, statistics: Tensor, outcomes: Tensor, facts: Facts
) -> tuple[Phenotype, ...]:
    """Each cluster's share, and the variables and tasks that set it apart.

    logits [N, clusters] (NaN where unknown), statistics [N, V], outcomes [N, all tasks]. Variables
    in patients' spreads from the median; tasks as the ratio of the rate here to that of all.
    """
    known = ~torch.isnan(logits[:, 0]) & ~torch.isnan(statistics).all(dim=1)
    cluster = torch.where(known, logits.nan_to_num().argmax(dim=1), -1)
    binary = [i for i, t in enumerate(facts.tasks) if t.kind == "binary"]
    overall = torch.nanmean(outcomes[known][:, binary], dim=0)
    found = []
    for k in range(logits.shape[1]):
        mine = cluster == k
        mean = torch.nan_to_num(torch.nanmean(statistics[mine], dim=0))
        rate = torch.nanmean(outcomes[mine][:, binary], dim=0)
        patients = (~torch.isnan(outcomes[mine][:, binary])).sum(dim=0)
        # Shrunk by five patients of the usual rate, so that a rare disease does not lead by chance.
        ratio = (torch.nan_to_num(rate) * patients + 5 * overall) / (patients + 5) / overall
        ratio = torch.nan_to_num(ratio, nan=1.0)
        variables = mean.abs().argsort(descending=True)[:TOLD].tolist()
        tasks = [t for t in ratio.argsort(descending=True)[:TOLD].tolist() if ratio[t] > 1]
        by_variable = {facts.spec.variables[v].name: round(float(mean[v]), 2) for v in variables}
        by_task = {facts.tasks[binary[t]].name: round(float(ratio[t]), 2) for t in tasks}
        found.append(
            Phenotype(
                cluster=k,
                share=float(mine.sum() / known.sum()),
                distinguished_by=by_variable,
                more_often=by_task,
            )
        )
    return tuple(found)
