"""Runs the jobs of the study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort, CohortError
from model.evaluation.baselines import (
    InputColumns,
    Settings,
    gradient_boosting,
    logistic_regression,
    mean_predictions,
)
from model.evaluation.folds import HEADLINE_HOURS, hospital_folds
from model.evaluation.metrics import Rows
from model.evaluation.study.jobs import (
    EXTERNAL,
    INPUTS,
    LIGHTGBM_BAG,
    MASKED,
    SINGLE_TASK,
    SINGLE_TASK_PARTS,
    Job,
)
from model.evaluation.study.networks import multitask_outputs, single_task_outputs, with_members
from model.evaluation.study.tuning import CANDIDATES, SCORED_TASKS, Choices, changed
from model.training.config import TrainConfig
from model.training.data import SampleTensors
from model.training.preparation import PreparedTraining, member_splits
from model.training.processes.jobs import Arrays
from schemas.response import Modality
from schemas.tasks import Task

BASELINES = {
    "logistic_regression": logistic_regression,
    "lightgbm": gradient_boosting,
    LIGHTGBM_BAG: gradient_boosting,
}
# The settings in which each network differs from M3H.
NETWORKS: Mapping[str, Settings] = {
    "m3h": {},
    SINGLE_TASK: {},
    "shared_trunk": {"net": {"attention": "none"}},
    "published": {"net": {"attention": "published"}},
}


@dataclass(frozen=True)
class _Split:
    """The rows to learn from, and the cohort and rows to test on."""

    learn: Rows
    test: Rows
    test_cohort: Cohort


class Study:
    """The cohorts of a study; runs its jobs.

    `external`: the other database; `masked`: the cohort with masked notes. Raises CohortError if
    its records are not the same as those of `cohort`, in the same order.
    """

    def __init__(
        self,
        cohort: Cohort,
        external: Cohort | None,
        config: TrainConfig,
        choices: Choices,
        masked: Cohort | None = None,
    ) -> None:
        self.cohort, self.external, self.config, self.choices = cohort, external, config, choices
        self.masked = masked
        self._last: tuple[Any, PreparedTraining] | None = None
        if masked is not None:
            for name in ("stay", "landmark", "outcomes"):
                original, copy = (getattr(c.samples, name) for c in (cohort, masked))
                if not np.array_equal(original, copy, equal_nan=original.dtype.kind == "f"):
                    raise CohortError(
                        f"the cohorts {cohort.name} and {masked.name} do not hold the same "
                        "records; make both again with one version"
                    )

    def settings(self, job: Job) -> Settings:
        """The settings of the job's candidate, or of the candidate chosen for its inputs."""
        model = "lightgbm" if job.model == LIGHTGBM_BAG else job.model
        model = model if model in CANDIDATES else "m3h"
        candidates = CANDIDATES[model]
        if job.candidate is not None:
            return candidates[job.candidate]
        inputs = "measured" if job.inputs == "measured" else "all"
        return candidates[self.choices.get(model, {}).get(inputs, {}).get(job.fold, 0)]

    def run(self, job: Job) -> Arrays:
        """The test rows, and the outputs of the job's model by name."""
        modalities, with_treatments = INPUTS[job.inputs]
        split = self._split(job)
        cohort, test_cohort = (
            c if with_treatments else without_treatments(c)
            for c in (self._cohort(job), split.test_cohort)
        )
        learn = sample_patients(cohort.samples, split.learn, job.share)
        test_data = SampleTensors([test_cohort], modalities)
        if job.model in BASELINES:
            outputs = self._run_baseline(job, cohort, modalities, learn, test_data, split.test)
        else:
            part = replace(cohort, samples=cohort.samples.take(learn))
            outputs = self._run_network(job, part, modalities, test_data, split.test)
        return {"rows": split.test, **outputs}

    def _cohort(self, job: Job) -> Cohort:
        """The cohort to learn from."""
        if job.inputs != MASKED:
            return self.cohort
        if self.masked is None:
            raise ValueError("the study has no cohort with masked notes")
        return self.masked

    def _split(self, job: Job) -> _Split:
        if job.fold == EXTERNAL:
            if self.external is None:
                raise ValueError("the study has no external cohort")
            split = _Split(
                np.arange(len(self.cohort.samples)),
                np.arange(len(self.external.samples)),
                self.external,
            )
        else:
            fold = next(f for f in hospital_folds(self.cohort) if str(f.number) == job.fold)
            sites = np.unique(self.cohort.samples.site[fold.test])
            test = np.flatnonzero(np.isin(self.cohort.samples.site, sites))
            split = _Split(fold.learn, test, self._cohort(job))
        if job.candidate is None:
            return split
        cohort = self._cohort(job)
        learn, score = member_splits(cohort.samples.take(split.learn), 1, seed=1)[0]
        return _Split(split.learn[learn], split.learn[score], cohort)

    def _run_baseline(
        self,
        job: Job,
        cohort: Cohort,
        modalities: Sequence[Modality],
        learn: Rows,
        test_data: SampleTensors,
        test: Rows,
    ) -> Arrays:
        fit, settings = BASELINES[job.model], self.settings(job)
        data = SampleTensors(
            [cohort if job.candidate is None else with_scored_tasks(cohort)], modalities
        )
        vocabulary = cohort.spec.vocabulary
        # The members of a bag learn from the same hospitals as the members of an ensemble.
        samples = cohort.samples.take(learn)
        splits = member_splits(samples, self.config.members, self.config.seed)
        parts = [learn[rows] for rows, _ in splits] if job.model == LIGHTGBM_BAG else [learn]
        if not settings["every_landmark"]:
            at_headline = cohort.samples.landmark == HEADLINE_HOURS
            learn, parts = learn[at_headline[learn]], [p[at_headline[p]] for p in parts]
        inputs = InputColumns(data, learn, vocabulary)
        members = [
            fit(inputs, data, cohort.tasks, part, settings)(test_data, test) for part in parts
        ]
        return {f"output/{name}": p for name, p in mean_predictions(members, cohort.tasks).items()}

    def _run_network(
        self,
        job: Job,
        part: Cohort,
        modalities: Sequence[Modality],
        test_data: SampleTensors,
        test: Rows,
    ) -> Arrays:
        prepared = PreparedTraining([part], self.network_config(job), modalities=modalities)
        self._share_fits(job, prepared)
        prepared = with_members(prepared, self.members(job))
        if job.model != SINGLE_TASK:
            return multitask_outputs(prepared, test_data, test)
        return single_task_outputs(prepared, test_data, test, task_names(job, prepared.facts.tasks))

    def _share_fits(self, job: Job, prepared: PreparedTraining) -> None:
        """Takes over evidence and trees from the last job, if it had the same samples."""
        key = job.samples, job.candidate, self.settings(job)
        if self._last is not None and self._last[0] == key:
            prepared.per_task = self._last[1].per_task
        self._last = key, prepared

    def network_config(self, job: Job) -> TrainConfig:
        """The training config of a job's network, with the members of the whole ensemble."""
        return changed(self.config, NETWORKS[job.model], self.settings(job))

    def members(self, job: Job) -> int:
        """How many members are trained: all where the report compares models, otherwise one.

        One network learns from the same hospitals as the first member of an ensemble.
        """
        return self.config.members if job.is_ensemble else 1


def task_names(job: Job, tasks: Sequence[Task]) -> list[str]:
    """The tasks of a job of single-task networks. A clustering needs no labels and is left out."""
    step = 1 if job.candidate is None else SCORED_TASKS
    names = [task.name for task in tasks[::step] if task.kind != "clustering"]
    return names if job.part is None else names[job.part :: SINGLE_TASK_PARTS]


def without_treatments(cohort: Cohort) -> Cohort:
    """The same patients without treatments."""
    treatments = np.zeros_like(cohort.samples.treatments)
    return replace(cohort, samples=replace(cohort.samples, treatments=treatments))


def with_scored_tasks(cohort: Cohort) -> Cohort:
    """The same patients with only the labels by which candidates are scored."""
    outcomes = np.full_like(cohort.samples.outcomes, np.nan)
    outcomes[:, ::SCORED_TASKS] = cohort.samples.outcomes[:, ::SCORED_TASKS]
    return replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))


def sample_patients(samples: Samples, rows: Rows, share: float) -> Rows:
    """The rows of a random share of the patients. A larger share contains the smaller."""
    if share == 1:
        return rows
    patients = np.unique(samples.patient[rows])
    chosen = np.random.default_rng(0).permutation(patients)[: round(share * len(patients))]
    return rows[np.isin(samples.patient[rows], chosen)]


@dataclass(frozen=True)
class OpenStudy:
    """Opens a study of cohorts on disk, in the process that runs its jobs."""

    cohort: Path
    external: Path | None
    config: TrainConfig
    choices: Choices
    masked: Path | None = None

    def __call__(self) -> Callable[[Job], Arrays]:
        external, masked = (
            None if folder is None else Cohort.load(folder)
            for folder in (self.external, self.masked)
        )
        cohort = Cohort.load(self.cohort)
        return Study(cohort, external, self.config, self.choices, masked).run
