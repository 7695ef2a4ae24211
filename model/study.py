"""The study behind the report: every model on every fold, predictions kept, resumable.

A job is one model, on one set of inputs, tested where it never learned: on a fold's hospitals, or
on another database. Its predictions are a file; a job whose file is there is not run again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.baselines import LIGHTGBM, LOGISTIC, Inputs, gradient_boosting, logistic_regression
from model.cohort import Cohort, Samples
from model.data import Data, Represented, Rows, member_outputs, raw_outputs
from model.evaluate import HEADLINE_HOURS, hospital_folds
from model.net import NetConfig
from model.train import Prepared, TrainConfig, Trainer
from schemas.response import Modality

EXTERNAL = "external"
FOLDS = ("0", "1", "2", "3", "4")

# Modalities, and whether treatments are among the series.
INPUTS: Mapping[str, tuple[tuple[Modality, ...], bool]] = {
    "measured": (("tabular", "series"), False),
    "all": (("tabular", "series", "notes"), True),
    "only_tabular": (("tabular",), True),
    "only_series": (("series",), True),
    "only_notes": (("notes",), True),
    "without_tabular": (("series", "notes"), True),
    "without_series": (("tabular", "notes"), True),
    "without_notes": (("tabular", "series"), True),
}
BASELINES = {
    "logistic_regression": (logistic_regression, LOGISTIC),
    "lightgbm": (gradient_boosting, LIGHTGBM),
}
NETWORKS = {
    "m3h": {},
    "shared_trunk": {"attention": "none"},
    "published": {"attention": "published"},
}
SINGLE_TASK = "single_task"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """`fold`: of FOLDS, or EXTERNAL. `share`: of the patients, to learn from."""

    model: str
    inputs: str
    fold: str
    share: float = 1.0

    @property
    def file(self) -> str:
        part = "" if self.share == 1 else f"-{self.share:g}"
        return f"{self.model}-{self.inputs}{part}-{self.fold}.npz"


def every_job(*, external: bool) -> list[Job]:
    """What the report needs, the headline first."""
    places = (*FOLDS, EXTERNAL) if external else FOLDS
    models = ("m3h", "logistic_regression", "lightgbm", "shared_trunk")
    jobs = [Job(m, i, fold) for m in models for i in ("measured", "all") for fold in places]
    jobs += [Job(SINGLE_TASK, i, fold) for i in ("measured", "all") for fold in places]
    jobs += [Job("published", "measured", fold) for fold in FOLDS]
    jobs += [
        Job("m3h", inputs, fold)
        for inputs in INPUTS
        if inputs not in ("measured", "all")
        for fold in FOLDS
    ]
    jobs += [
        Job(model, "measured", fold, share)
        for share in (0.1, 0.25, 0.5)
        for model in ("m3h", SINGLE_TASK)
        for fold in FOLDS
    ]
    return jobs


class Study:
    """The cohorts of a study, and how to run its jobs."""

    def __init__(self, cohort: Cohort, other: Cohort | None, config: TrainConfig) -> None:
        self.cohort, self.other, self.config = cohort, other, config

    def run(self, job: Job) -> Arrays:
        """Test rows, and what the job's model says of them by output name."""
        modalities, treated = INPUTS[job.inputs]
        learn, test, where = self._rows(job)
        cohort, place = (c if treated else without_treatments(c) for c in (self.cohort, where))
        learn = some_patients(cohort.samples, learn, job.share)
        at_test = Data([place], modalities)
        if job.model in BASELINES:
            found = self._baseline(job, cohort, modalities, learn, at_test, test)
        else:
            part = replace(cohort, samples=cohort.samples.take(learn))
            found = self._network(job, part, modalities, at_test, test)
        return {"rows": test, **found}

    def _rows(self, job: Job) -> tuple[Rows, Rows, Cohort]:
        if job.fold == EXTERNAL:
            if self.other is None:
                raise ValueError("the study has no external cohort")
            everyone = np.arange(len(self.cohort.samples))
            return everyone, np.arange(len(self.other.samples)), self.other
        fold = next(f for f in hospital_folds(self.cohort) if str(f.number) == job.fold)
        sites = np.unique(self.cohort.samples.site[fold.test])
        return fold.learn, np.flatnonzero(np.isin(self.cohort.samples.site, sites)), self.cohort

    def _baseline(
        self,
        job: Job,
        cohort: Cohort,
        modalities: Sequence[Modality],
        learn: Rows,
        at_test: Data,
        test: Rows,
    ) -> Arrays:
        make, settings = BASELINES[job.model]
        data = Data([cohort], modalities)
        vocabulary = cohort.spec.tokenizer.get_vocab_size()
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
        at_test: Data,
        test: Rows,
    ) -> Arrays:
        single = job.model == SINGLE_TASK
        net = NetConfig.model_validate(
            self.config.net.model_dump() | ({} if single else NETWORKS[job.model])
        )
        alone = single or job.share < 1
        config = self.config.model_copy(update={"net": net} | ({"members": 1} if alone else {}))
        prepared = Prepared([part], config, modalities=modalities)
        represented = Represented.of(at_test, prepared.encoders)
        if single:
            return self._single_tasks(prepared, represented, at_test, test)
        trainer = _trained(Trainer(prepared))
        with torch.no_grad():
            raw, attention = raw_outputs(trainer.net, represented, at_test, test)
            first, _ = member_outputs(trainer.net.member(0), represented, at_test, test)
            served = trainer.net.calibrate(raw)
            found = {f"output/{name}": value.numpy() for name, value in served.items()}
            found |= {f"one/{name}": v.numpy() for name, v in trainer.net.calibrate(first).items()}
        facts = trainer.checkpoint().facts
        told = facts.model_dump(mode="json", include={"intervals", "sets", "phenotypes"})
        found["attention"] = attention.mean(dim=0).numpy()
        found["facts"] = np.array(json.dumps(told))
        return found

    def _single_tasks(
        self, prepared: Prepared, represented: Represented, at_test: Data, test: Rows
    ) -> Arrays:
        binary, found = [], {}
        for task in prepared.facts.tasks:
            if task.kind == "clustering":
                continue
            trainer = _trained(Trainer(prepared, only=task.name))
            with torch.no_grad():
                raw, _ = raw_outputs(trainer.net, represented, at_test, test)
                served = trainer.net.calibrate(raw)
            if task.kind == "binary":
                binary.append(served["binary"][:, 0].numpy())
            else:
                found[f"output/{task.name}"] = served[task.name].numpy()
        return {"output/binary": np.stack(binary, axis=1), **found}


def _trained(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer


def without_treatments(cohort: Cohort) -> Cohort:
    """The same patients, of whose treatments nothing is known."""
    samples = cohort.samples
    arrays = {f.name: getattr(samples, f.name) for f in fields(Samples)}
    arrays["treatments"] = np.zeros_like(samples.treatments)
    return replace(cohort, samples=Samples(**arrays))


def some_patients(samples: Samples, rows: Rows, share: float) -> Rows:
    """The rows of a random share of the patients."""
    if share == 1:
        return rows
    patients = np.unique(samples.patient[rows])
    chosen = np.random.default_rng(0).permutation(patients)[: round(share * len(patients))]
    return rows[np.isin(samples.patient[rows], chosen)]


def run_all(
    jobs: Sequence[Job],
    cohort: Path,
    other: Path | None,
    config: TrainConfig,
    folder: Path,
) -> Iterator[tuple[Job, bool]]:
    """Runs the jobs that are not done yet, one on each core; yields each, and whether it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not (folder / job.file).is_file()]
    yield from ((job, False) for job in jobs if job not in todo)
    workers = len(os.sched_getaffinity(0))
    start = (cohort, other, config.model_dump_json(), folder)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, start) as pool:
        running = {pool.submit(_do, job): job for job in todo}
        for done in as_completed(running):
            done.result()
            yield running[done], True


_HERE: dict[str, Any] = {}


def _start(cohort: Path, other: Path | None, config: str, folder: Path) -> None:
    torch.set_num_threads(1)
    external = None if other is None else Cohort.load(other)
    settings = TrainConfig.model_validate_json(config)
    _HERE["study"] = Study(Cohort.load(cohort), external, settings)
    _HERE["folder"] = folder


def _do(job: Job) -> None:
    found = _HERE["study"].run(job)
    partial = _HERE["folder"] / f"{job.file}.partial.npz"
    np.savez(partial, **found)
    partial.replace(_HERE["folder"] / job.file)
