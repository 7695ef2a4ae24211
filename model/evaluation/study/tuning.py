"""Tuning: the candidate settings of each model, and the choice among them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model.auroc import binary_auroc
from model.cohorts.store import Cohort
from model.errors import RunError
from model.evaluation.baselines import Settings
from model.evaluation.folds import HEADLINE_HOURS
from model.evaluation.study.jobs import EXTERNAL, FOLDS, SINGLE_TASK, Job
from model.training.config import TrainConfig

# Each model has the same number of candidates. The first candidate is the default.
_NETWORK_CANDIDATES: tuple[Settings, ...] = (
    {},
    {"learning_rate": 1e-3},
    {"batch": 128},
    {"net": {"dropout": 0.3}},
)
CANDIDATES: Mapping[str, tuple[Settings, ...]] = {
    "m3h": _NETWORK_CANDIDATES,
    SINGLE_TASK: _NETWORK_CANDIDATES,
    "shared_trunk": _NETWORK_CANDIDATES,
    "logistic_regression": (
        {"C": 0.001, "words": 3.0, "every_landmark": False},
        {"C": 0.003, "words": 3.0, "every_landmark": False},
        {"C": 0.0003, "words": 3.0, "every_landmark": True},
        {"C": 0.001, "words": 3.0, "every_landmark": True},
    ),
    "lightgbm": (
        {"num_leaves": 7, "learning_rate": 0.05, "n_estimators": 60, "every_landmark": False},
        {"num_leaves": 4, "learning_rate": 0.05, "n_estimators": 120, "every_landmark": False},
        {"num_leaves": 7, "learning_rate": 0.05, "n_estimators": 120, "every_landmark": True},
        {"num_leaves": 15, "learning_rate": 0.02, "n_estimators": 150, "every_landmark": True},
    ),
}
# A model per task is scored on every fifth task only: training 44 networks for each candidate would
# take too long.
SCORED_TASKS = 5
MIN_POSITIVES_TO_SCORE = 8  # among the scoring hospitals

# By model, inputs and fold: the number of the chosen candidate.
Choices = Mapping[str, Mapping[str, Mapping[str, int]]]


def every_trial(*, external: bool) -> list[Job]:
    """All jobs that `choose` needs."""
    folds = (*FOLDS, EXTERNAL) if external else FOLDS
    return [
        Job(model, inputs, fold, candidate=number)
        for model, candidates in CANDIDATES.items()
        for inputs in ("measured", "all")
        for fold in folds
        for number in range(len(candidates))
    ]


def choose(folder: Path, cohort: Cohort) -> dict[str, dict[str, dict[str, int]]]:
    """The candidates with the best mean AUROC at 24 h, from the trials in `folder`."""
    choices: dict[str, dict[str, dict[str, int]]] = {}
    for model, candidates in CANDIDATES.items():
        for inputs in ("measured", "all"):
            for fold in (*FOLDS, EXTERNAL):
                jobs = [Job(model, inputs, fold, candidate=k) for k in range(len(candidates))]
                if all((folder / job.file).is_file() for job in jobs):
                    scores = [_trial_score(folder / job.file, cohort) for job in jobs]
                    by_fold = choices.setdefault(model, {}).setdefault(inputs, {})
                    by_fold[fold] = int(np.argmax(scores))
    return choices


def _trial_score(path: Path, cohort: Cohort) -> float:
    with np.load(path) as arrays:
        rows, p = arrays["rows"], arrays["output/binary"].astype(np.float64)
    at_headline = cohort.samples.landmark[rows] == HEADLINE_HOURS
    outcomes = cohort.samples.outcomes[rows[at_headline]].astype(np.float64)
    columns = [i for i, t in enumerate(cohort.tasks) if t.kind == "binary"]
    areas = []
    for k, i in enumerate(columns):
        known = ~np.isnan(outcomes[:, i])
        positives = np.nansum(outcomes[:, i])
        if positives >= MIN_POSITIVES_TO_SCORE and not np.isnan(p[:, k]).any():
            areas.append(binary_auroc(outcomes[known, i] == 1, p[at_headline, k][known]))
    return float(np.mean(areas))


def tuned(config: TrainConfig, choices: Choices) -> TrainConfig:
    """The config with the candidate chosen for all inputs and all hospitals to learn from.

    These are the settings of the model that the report tests on another database. Raises RunError
    if the choices hold no such candidate.
    """
    number = choices.get("m3h", {}).get("all", {}).get(EXTERNAL)
    if number is None:
        raise RunError(
            "no candidate was chosen for M3H with all inputs and all hospitals to learn from; "
            "run 'm3h-model tune' with --external"
        )
    if not 0 <= number < len(CANDIDATES["m3h"]):
        raise RunError(f"M3H has no candidate {number}; run 'm3h-model tune' again")
    return changed(config, CANDIDATES["m3h"][number])


def changed(config: TrainConfig, *changes: Settings) -> TrainConfig:
    """The config with some of its settings, and of its network's, replaced."""
    raw = config.model_dump()
    for change in changes:
        raw = {**raw, **change, "net": {**raw["net"], **change.get("net", {})}}
    return TrainConfig.model_validate(raw)
