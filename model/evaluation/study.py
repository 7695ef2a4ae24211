"""The study behind the report: every model on every fold, predictions kept, resumable.

A job is one model, on one set of inputs, tested where it never learned: on a fold's hospitals, or
on another database. Its predictions are a file; a job whose file is there is not run again.

How to train is chosen within the hospitals to learn from: each candidate is trained on some of them
and judged by the others, so that no hospital that tests a model has had a say in it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort, CohortError
from model.errors import RunError
from model.evaluation.baselines import Inputs, Settings, gradient_boosting, logistic_regression
from model.evaluation.evaluate import HEADLINE_HOURS, auroc, hospital_folds
from model.network.m3h import M3H
from model.training.config import TrainConfig
from model.training.data import (
    RepresentedSamples,
    Rows,
    SampleTensors,
    ensemble_outputs,
    member_outputs,
)
from model.training.jobs import Arrays
from model.training.preparation import PreparedTraining, member_splits
from model.training.trainer import Trainer
from schemas.response import MODALITIES, Modality

EXTERNAL = "external"
FOLDS = ("0", "1", "2", "3", "4")

MASKED = "masked"
# Modalities, and whether treatments are among the series. "masked": from the cohort whose notes
# name no disease.
INPUTS: Mapping[str, tuple[tuple[Modality, ...], bool]] = {
    "measured": (("tabular", "series"), False),
    "all": (("tabular", "series", "notes"), True),
    "only_tabular": (("tabular",), True),
    "only_series": (("series",), True),
    "only_notes": (("notes",), True),
    "without_tabular": (("series", "notes"), True),
    "without_series": (("tabular", "notes"), True),
    "without_notes": (("tabular", "series"), True),
    MASKED: (("tabular", "series", "notes"), True),
}
ALONE = ("only_tabular", "only_series", "only_notes")
WITHOUT = ("without_tabular", "without_series", "without_notes")
SHARES = (0.1, 0.25, 0.5)  # of the learning curve, beside the whole
SINGLE_TASK = "single_task"
BASELINES = {"logistic_regression": logistic_regression, "lightgbm": gradient_boosting}
# What a network differs in from M3H.
NETWORKS: Mapping[str, Settings] = {
    "m3h": {},
    SINGLE_TASK: {},
    "shared_trunk": {"net": {"attention": "none"}},
    "published": {"net": {"attention": "published"}},
}
# As many for each kind of model; the first are the defaults.
_NETWORK_CANDIDATES: tuple[Settings, ...] = (
    {},
    {"learning_rate": 5e-4},
    {"batch": 128},
    {"net": {"dropout": 0.5}},
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
# Candidates for one model per task are judged by every fifth task: 44 for each are too many.
JUDGED_TASKS = 5
FEWEST_TO_JUDGE = 8  # positives among the judging hospitals

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """`fold`: of FOLDS, or EXTERNAL. `share`: of the patients, to learn from.

    With a `candidate` it is that one's trial, on hospitals held out of those to learn from.
    """

    model: str
    inputs: str
    fold: str
    share: float = 1.0
    candidate: int | None = None

    @property
    def file(self) -> str:
        part = "" if self.share == 1 else f"-{self.share:g}"
        trial = "" if self.candidate is None else f"-candidate{self.candidate}"
        return f"{self.model}-{self.inputs}{part}-{self.fold}{trial}.npz"


def every_job(*, external: bool, masked: bool) -> list[Job]:
    """What the report needs, the headline first."""
    places = (*FOLDS, EXTERNAL) if external else FOLDS
    models = ("m3h", "logistic_regression", "lightgbm", SINGLE_TASK, "shared_trunk")
    jobs = [Job(m, i, place) for m in models for i in ("measured", "all") for place in places]
    if masked:
        jobs += [Job(m, MASKED, fold) for m in ("m3h", "logistic_regression") for fold in FOLDS]
    jobs += [Job("published", i, fold) for i in ("measured", "all") for fold in FOLDS]
    jobs += [Job("m3h", inputs, fold) for inputs in (*WITHOUT, *ALONE) for fold in FOLDS]
    jobs += [
        Job(model, "measured", fold, share)
        for share in SHARES
        for model in ("m3h", SINGLE_TASK)
        for fold in FOLDS
    ]
    jobs += [Job(SINGLE_TASK, inputs, fold) for inputs in ALONE for fold in FOLDS]
    return jobs


def every_trial(*, external: bool) -> list[Job]:
    """What a choice of candidates needs."""
    places = (*FOLDS, EXTERNAL) if external else FOLDS
    return [
        Job(model, inputs, place, candidate=number)
        for model, candidates in CANDIDATES.items()
        for inputs in ("measured", "all")
        for place in places
        for number in range(len(candidates))
    ]


# By model, inputs and place: the candidate that was chosen.
Chosen = Mapping[str, Mapping[str, Mapping[str, int]]]


class Study:
    """The cohorts of a study, and how to run its jobs.

    `masked`: the cohort with notes that name no disease. Raises CohortError unless its records are
    the same patients' in the same order.
    """

    def __init__(
        self,
        cohort: Cohort,
        other: Cohort | None,
        config: TrainConfig,
        chosen: Chosen,
        masked: Cohort | None = None,
    ) -> None:
        self.cohort, self.other, self.config, self.chosen = cohort, other, config, chosen
        self.masked = masked
        if masked is not None:
            for name in ("stay", "landmark", "outcomes"):
                one, two = (getattr(c.samples, name) for c in (cohort, masked))
                if not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
                    raise CohortError(
                        f"the cohorts {cohort.name} and {masked.name} are not of the same records; "
                        "make both anew with one version"
                    )

    def settings(self, job: Job) -> Settings:
        """Those of the job's candidate, or of the one that was chosen for such a job."""
        candidates = CANDIDATES.get(job.model, CANDIDATES["m3h"])
        if job.candidate is not None:
            return candidates[job.candidate]
        model = job.model if job.model in CANDIDATES else "m3h"
        inputs = "measured" if job.inputs == "measured" else "all"
        return candidates[self.chosen.get(model, {}).get(inputs, {}).get(job.fold, 0)]

    def run(self, job: Job) -> Arrays:
        """Test rows, and what the job's model says of them by output name."""
        modalities, treated = INPUTS[job.inputs]
        home = self._home(job)
        learn, test, where = self._rows(job)
        if job.candidate is not None:
            some, judges = member_splits(home.samples.take(learn), 1, seed=1)[0]
            learn, test, where = learn[some], learn[judges], home
        cohort, place = (c if treated else without_treatments(c) for c in (home, where))
        learn = some_patients(cohort.samples, learn, job.share)
        at_test = SampleTensors([place], modalities)
        if job.model in BASELINES:
            found = self._baseline(job, cohort, modalities, learn, at_test, test)
        else:
            part = replace(cohort, samples=cohort.samples.take(learn))
            found = self._network(job, part, modalities, at_test, test)
        return {"rows": test, **found}

    def _home(self, job: Job) -> Cohort:
        """The cohort of the hospitals to learn from."""
        if job.inputs != MASKED:
            return self.cohort
        if self.masked is None:
            raise ValueError("the study has no cohort whose notes name no disease")
        return self.masked

    def _rows(self, job: Job) -> tuple[Rows, Rows, Cohort]:
        if job.fold == EXTERNAL:
            if self.other is None:
                raise ValueError("the study has no external cohort")
            everyone = np.arange(len(self.cohort.samples))
            return everyone, np.arange(len(self.other.samples)), self.other
        fold = next(f for f in hospital_folds(self.cohort) if str(f.number) == job.fold)
        sites = np.unique(self.cohort.samples.site[fold.test])
        return fold.learn, np.flatnonzero(np.isin(self.cohort.samples.site, sites)), self._home(job)

    def _baseline(
        self,
        job: Job,
        cohort: Cohort,
        modalities: Sequence[Modality],
        learn: Rows,
        at_test: SampleTensors,
        test: Rows,
    ) -> Arrays:
        make, settings = BASELINES[job.model], self.settings(job)
        data = SampleTensors([cohort if job.candidate is None else judged(cohort)], modalities)
        vocabulary = cohort.spec.vocabulary
        if not settings["every_landmark"]:
            learn = learn[cohort.samples.landmark[learn] == HEADLINE_HOURS]
        inputs = Inputs(data, learn, vocabulary)
        predict = make(inputs, data, cohort.tasks, learn, settings)
        return {f"output/{name}": p for name, p in predict(at_test, test).items()}

    def _network(
        self,
        job: Job,
        part: Cohort,
        modalities: Sequence[Modality],
        at_test: SampleTensors,
        test: Rows,
    ) -> Arrays:
        single = job.model == SINGLE_TASK
        config = self._config(job)
        prepared = PreparedTraining([part], config, modalities=modalities)
        represented = RepresentedSamples.compute(at_test, prepared.encoders)
        if single:
            step = 1 if job.candidate is None else JUDGED_TASKS
            return self._single_tasks(prepared, represented, at_test, test, step)
        trainer = _trained(Trainer(prepared))
        with torch.no_grad():
            raw, attention = ensemble_outputs(trainer.net, represented, at_test, test)
            first, of_first = member_outputs(trainer.net.member(0), represented, at_test, test)
            served = trainer.net.calibrate(raw)
            found = {f"output/{name}": value.numpy() for name, value in served.items()}
            found |= {f"one/{name}": v.numpy() for name, v in trainer.net.calibrate(first).items()}
        facts = trainer.checkpoint().facts
        told = facts.model_dump(mode="json", include={"intervals", "sets", "phenotypes"})
        found["attention"] = attention.mean(dim=0).numpy()
        found["one_attention"] = of_first.mean(dim=0).numpy()
        found["unusual"] = _unusual(trainer.net, represented, at_test)[test]
        found["facts"] = np.array(json.dumps(told))
        return found

    def _single_tasks(
        self,
        prepared: PreparedTraining,
        represented: RepresentedSamples,
        at_test: SampleTensors,
        test: Rows,
        step: int,
    ) -> Arrays:
        """Of every `step`-th binary task; of the others NaN, or nothing."""
        count = sum(task.kind == "binary" for task in prepared.facts.tasks)
        binary, found = np.full((len(test), count), np.nan), {}
        column = -1
        for number, task in enumerate(prepared.facts.tasks):
            column += task.kind == "binary"
            if task.kind == "clustering" or number % step:
                continue
            trainer = _trained(Trainer(prepared, tasks=[task.name]))
            with torch.no_grad():
                raw, _ = ensemble_outputs(trainer.net, represented, at_test, test)
                served = trainer.net.calibrate(raw)
            if task.kind == "binary":
                binary[:, column] = served["binary"][:, 0].numpy()
            else:
                found[f"output/{task.name}"] = served[task.name].numpy()
        return {"output/binary": binary, **found}

    def _config(self, job: Job) -> TrainConfig:
        # Several networks where the models stand side by side; all else is told by one.
        several = job.model in ("m3h", "shared_trunk") and job.inputs in ("measured", "all")
        alone = not several or job.share < 1 or job.candidate is not None
        changes = [NETWORKS[job.model], self.settings(job), {"members": 1} if alone else {}]
        return _changed(self.config, *changes)


def tuned(config: TrainConfig, chosen: Chosen) -> TrainConfig:
    """What was chosen for all inputs with all the cohort's hospitals to learn from.

    So is the model trained that the report tests on another database. Raises RunError where
    nothing was chosen for that.
    """
    number = chosen.get("m3h", {}).get("all", {}).get(EXTERNAL)
    if number is None:
        raise RunError(
            "nothing was chosen for M3H with all inputs and all hospitals to learn from; "
            "'m3h-model tune' does so with --external"
        )
    if not 0 <= number < len(CANDIDATES["m3h"]):
        raise RunError(f"M3H has no candidate {number} to be trained as: choose anew")
    return _changed(config, CANDIDATES["m3h"][number])


def _changed(config: TrainConfig, *changes: Settings) -> TrainConfig:
    raw = config.model_dump()
    for change in changes:
        raw = {**raw, **change, "net": {**raw["net"], **change.get("net", {})}}
    return TrainConfig.model_validate(raw)


@torch.no_grad()
def _unusual(net: M3H, represented: RepresentedSamples, data: SampleTensors) -> Floats:
    """[N, 4] how unusual each modality of each sample is; NaN where it is absent."""
    found = np.full(data.present.shape, np.nan)
    for i, modality in enumerate(MODALITIES):
        if modality in represented.vectors:
            ordinary = cast("Any", net.encoders[modality]).ordinary
            there = data.present[:, i].numpy()
            found[there, i] = ordinary(represented.vectors[modality]).numpy()
    return found


def _trained(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer


def choose(folder: Path, cohort: Cohort) -> dict[str, dict[str, dict[str, int]]]:
    """The candidate with the best mean AUROC at 24 h, of the trials that are kept in `folder`."""
    chosen: dict[str, dict[str, dict[str, int]]] = {}
    for model, candidates in CANDIDATES.items():
        for inputs in ("measured", "all"):
            for place in (*FOLDS, EXTERNAL):
                jobs = [Job(model, inputs, place, candidate=k) for k in range(len(candidates))]
                if all((folder / job.file).is_file() for job in jobs):
                    scores = [_judge(folder / job.file, cohort) for job in jobs]
                    here = chosen.setdefault(model, {}).setdefault(inputs, {})
                    here[place] = int(np.argmax(scores))
    return chosen


def _judge(path: Path, cohort: Cohort) -> float:
    with np.load(path) as kept:
        rows, p = kept["rows"], kept["output/binary"].astype(np.float64)
    at = cohort.samples.landmark[rows] == HEADLINE_HOURS
    outcomes = cohort.samples.outcomes[rows[at]].astype(np.float64)
    columns = [i for i, t in enumerate(cohort.tasks) if t.kind == "binary"]
    areas = [
        auroc(outcomes[:, i], p[at, k], np.zeros(int(at.sum()), np.intp))
        for k, i in enumerate(columns)
        if np.nansum(outcomes[:, i]) >= FEWEST_TO_JUDGE and not np.isnan(p[:, k]).any()
    ]
    return float(np.mean(areas))


def without_treatments(cohort: Cohort) -> Cohort:
    """The same patients, of whose treatments nothing is known."""
    treatments = np.zeros_like(cohort.samples.treatments)
    return replace(cohort, samples=replace(cohort.samples, treatments=treatments))


def judged(cohort: Cohort) -> Cohort:
    """The same patients, with the labels alone by which candidates are judged."""
    outcomes = np.full_like(cohort.samples.outcomes, np.nan)
    outcomes[:, ::JUDGED_TASKS] = cohort.samples.outcomes[:, ::JUDGED_TASKS]
    return replace(cohort, samples=replace(cohort.samples, outcomes=outcomes))


def some_patients(samples: Samples, rows: Rows, share: float) -> Rows:
    """The rows of a random share of the patients."""
    if share == 1:
        return rows
    patients = np.unique(samples.patient[rows])
    chosen = np.random.default_rng(0).permutation(patients)[: round(share * len(patients))]
    return rows[np.isin(samples.patient[rows], chosen)]


@dataclass(frozen=True)
class Opened:
    """What a process reads before it runs jobs: the study of cohorts that are files."""

    cohort: Path
    other: Path | None
    config: TrainConfig
    chosen: Chosen
    masked: Path | None = None

    def __call__(self) -> Callable[[Job], Arrays]:
        external, nameless = (
            None if folder is None else Cohort.load(folder) for folder in (self.other, self.masked)
        )
        cohort = Cohort.load(self.cohort)
        return Study(cohort, external, self.config, self.chosen, nameless).run
