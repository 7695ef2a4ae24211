"""The image encoder by itself: chest X-rays, cross-validated by patient.

The hospitals of the report have no images, and the images have no series and no notes. So this
study tests the findings of the images alone, on patients that the networks never saw.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from model.cohorts.store import Cohort, CohortError
from model.evaluation.bootstrap import Comparison, interval
from model.evaluation.predictions import Predictions, auprc_and_brier
from model.evaluation.study.networks import multitask_outputs
from model.training.config import TrainConfig
from model.training.data import SampleTensors
from model.training.preparation import PreparedTraining
from model.training.processes.jobs import Arrays
from schemas.tasks import load_tasks

FOLDS = 5
MIN_POSITIVES = 8  # of 976 films, few show an emphysema


@dataclass(frozen=True)
class ImageJob:
    """A fold: an ensemble that learns from the other folds' patients."""

    fold: int

    @property
    def file(self) -> str:
        return f"images-{self.fold}.npz"


JOBS = tuple(ImageJob(fold) for fold in range(FOLDS))


class ImageStudy:
    """Runs the jobs on a cohort. Raises CohortError if it has no labelled images."""

    def __init__(self, cohort: Cohort, config: TrainConfig) -> None:
        self.cohort = _labelled_images(cohort)
        self.config = config

    def run(self, job: ImageJob) -> Arrays:
        """The patients, outcomes and predictions of the fold's test images."""
        cohort, patients = self.cohort, self.cohort.samples.patient
        folds = GroupKFold(FOLDS, shuffle=True, random_state=0).split(patients, groups=patients)
        learn, test = list(folds)[job.fold]
        part = replace(cohort, samples=cohort.samples.take(learn))
        prepared = PreparedTraining([part], self.config, modalities=("image",))
        outputs = multitask_outputs(prepared, SampleTensors([cohort], ("image",)), test)
        return {
            "tasks": np.array([task.name for task in cohort.tasks]),
            "patient": patients[test],
            "outcome": cohort.samples.outcomes[test],
            "output": outputs["output/binary"],
            "one": outputs["one/binary"],
        }


@dataclass(frozen=True)
class OpenImageStudy:
    """Opens the study of a cohort on disk, in the process that runs its jobs."""

    cohort: Path
    config: TrainConfig

    def __call__(self) -> Callable[[ImageJob], Arrays]:
        return ImageStudy(Cohort.load(self.cohort), self.config).run


def _labelled_images(cohort: Cohort) -> Cohort:
    """The samples with an image, and the binary tasks that have labels of both classes."""
    rows = np.flatnonzero(cohort.samples.present[:, -1])
    samples = cohort.samples.take(rows)
    # An image alone has no hours since admission.
    samples = replace(samples, landmark=np.zeros(len(samples), np.float32))
    names = [
        task.name
        for task, outcome in zip(cohort.tasks, samples.outcomes.T, strict=True)
        if task.kind == "binary" and {0.0, 1.0} <= set(np.unique(outcome))
    ]
    if not names:
        raise CohortError(f"the cohort {cohort.name} has no labelled images")
    return replace(cohort, samples=samples).of_tasks(names)


def summarise(work: Path) -> dict[str, Any]:
    """AUROC and calibration by task, with intervals of bootstraps over patients.

    Raises FileNotFoundError if a fold was not run.
    """
    folds = []
    for job in JOBS:
        with np.load(work / job.file) as arrays:
            folds.append({name: arrays[name] for name in arrays.files})
    by_row = ("patient", "outcome", "output", "one")
    joined = {name: np.concatenate([f[name] for f in folds]) for name in by_row}
    names = folds[0]["tasks"].tolist()
    tasks = tuple(task for task in load_tasks() if task.name in names)
    predictions = {
        model: Predictions(
            tasks=tasks,
            scores=dict(zip(names, joined[key].astype(np.float64).T, strict=True)),
            outcome=joined["outcome"].astype(np.float64),
            fold=np.repeat(np.arange(FOLDS), [len(f["patient"]) for f in folds]),
            site=joined["patient"],
            rows=np.arange(len(joined["patient"])),
        )
        for model, key in (("m3h", "output"), ("m3h_one", "one"))
    }
    comparison = Comparison(predictions, MIN_POSITIVES)
    outcome = predictions["m3h"].outcome
    return {
        "images": len(outcome),
        "patients": len(np.unique(joined["patient"])),
        "display": {task.name: task.display for task in tasks},
        "positives": {
            task: int(np.nansum(outcome[:, predictions["m3h"].column(task)]))
            for task in comparison.tasks
        },
        "models": {
            model: {
                "auroc": interval(comparison.mean[model]),
                "by_task": {t: interval(a) for t, a in comparison.by_task[model].items()},
                **auprc_and_brier(of_model, MIN_POSITIVES),
            }
            for model, of_model in predictions.items()
        },
    }
