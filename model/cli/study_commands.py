"""The commands of `m3h-model` that train many models: evaluate, tune, tim."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.cli.progress import progress_of_jobs
from model.cohorts.store import Cohort
from model.evaluation import report as reporting
from model.evaluation import study
from model.evaluation.study import image_study
from model.network.checkpoint import Checkpoint
from model.tim import coalition_training, synthetic_study, task_groups
from model.tim.coalition_training import CoalitionTraining, CoalitionTrainingFactory
from model.tim.matrix import CoalitionValues, check_enough, compute_tim
from model.training.config import TrainConfig, read_choices, read_config
from model.training.processes.device import Device, DeviceName
from model.training.processes.distributed import join_process_group
from model.training.processes.jobs import claim_folder, run_jobs


def evaluate(
    cohort: Path,
    work: Path,
    report: Path,
    external: Path | None,
    masked: Path | None,
    images: Path | None,
    config: Path | None,
    tuned: Path | None,
    report_only: bool,
) -> None:
    """Trains and tests all models of the report on folds by hospital, and writes the report."""
    settings = read_config(config)
    chosen = {} if tuned is None else read_choices(tuned)
    home, other, masked_cohort = _load_cohorts(cohort, external, masked)
    films = None if images is None else Cohort.load(images)
    identity = _identity((home, other, masked_cohort, films), settings, chosen)
    claim_folder(work, {**identity, "study": study.VERSION})
    if not report_only:
        opened = study.OpenStudy(cohort, external, settings, chosen, masked)
        _run_study(opened, work, images)
    reporting.write_report(work, home, other, report, masked_cohort)
    print(f"report in {report / 'results.md'}")


def _run_study(opened: study.OpenStudy, work: Path, images: Path | None) -> None:
    """Runs the jobs of a study that have not run yet. `images`: cohort of chest X-rays."""
    external, masked = opened.external is not None, opened.masked is not None
    jobs = study.every_job(external=external, masked=masked)
    headline = len(study.headline_jobs(external=external))
    with progress_of_jobs() as progress:
        bar = progress.add_task("study", total=len(jobs))
        # A worker stays with the samples of its last job, so the headline's jobs are run first.
        for part in (jobs[:headline], jobs[headline:]):
            for job, ran in run_jobs(part, work, opened, group=lambda job: job.samples):
                progress.advance(bar)
                if ran:
                    progress.console.print(job.file.removesuffix(".npz"))
        if images is not None:
            progress.update(bar, description="study: chest X-rays")
            opened_images = image_study.OpenImageStudy(images, opened.config)
            for _ in run_jobs(image_study.JOBS, work, opened_images):
                pass
        single = opened.config.model_copy(update={"members": 1})
        for seed in synthetic_study.run(work, config=single):
            progress.update(bar, description=f"study: synthetic patients, seed {seed}")


def tune(cohort: Path, work: Path, out: Path, external: Path | None, config: Path | None) -> None:
    """Chooses the settings of each model of the study; writes the choices to `out`."""
    settings = read_config(config)
    with progress_of_jobs() as progress:
        trials = study.every_trial(external=external is not None)
        bar = progress.add_task("trials", total=len(trials))
        home, other, _ = _load_cohorts(cohort, external, None)
        claim_folder(work, _identity((home, other), settings, {}))
        opened = study.OpenStudy(cohort, external, settings, {})
        for _ in run_jobs(trials, work, opened):
            progress.advance(bar)
        chosen = study.choose(work, home)
        out.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
        print(f"choices in {out}")


def tim(
    checkpoint: Path,
    cohort: Path,
    work: Path,
    coalitions: int,
    suggest_groups: Path | None,
    device: DeviceName,
) -> None:
    """Trains networks of coalitions of tasks; writes TIM beside the checkpoint."""
    with join_process_group() as processes, progress_of_jobs() as progress:
        trained, loaded = Checkpoint.load(checkpoint), Cohort.load(cohort)
        facts = trained.facts
        coalition_training.check_cohort(facts, loaded)
        config = TrainConfig.model_validate({**facts.training, "net": facts.net.model_dump()})
        config = coalition_training.coalition_config(config)
        claim_folder(work, _identity((loaded,), config, {}))
        drawn = coalition_training.first_coalitions(len(loaded.tasks), coalitions)
        check_enough(drawn, len(loaded.tasks))
        jobs = coalition_training.all_jobs(len(loaded.tasks), coalitions)[
            processes.rank :: processes.size
        ]
        chosen = Device.choose(device, processes)
        bar = progress.add_task("networks", total=len(jobs))
        if chosen.torch_device.type == "cuda":
            results = CoalitionTraining(loaded, config, chosen).run_batched(jobs, work)
        else:
            results = run_jobs(jobs, work, CoalitionTrainingFactory(cohort, config))
        for _ in results:
            progress.advance(bar)
        processes.barrier("has trained its networks")
        if not processes.is_first:
            return
        progress.update(bar, description="matrix")
        command = shlex.join(["m3h-model", *sys.argv[1:]])
        computed = compute_tim(CoalitionValues(work, loaded), drawn, command)
        replace(trained, tim=computed).save(checkpoint)
        certain = sum(map(sum, computed.certain))
        print(f"{certain} of {len(loaded.tasks) * (len(loaded.tasks) - 1)} cells are certain")
        if suggest_groups is not None:
            groups = task_groups.suggest(computed)
            suggest_groups.write_text(task_groups.as_toml(groups), encoding="utf-8")
            print(f"{len(groups)} groups in {suggest_groups}")


def _load_cohorts(
    home: Path, external: Path | None, masked: Path | None
) -> tuple[Cohort, Cohort | None, Cohort | None]:
    other, masked_cohort = (None if f is None else Cohort.load(f) for f in (external, masked))
    return Cohort.load(home), other, masked_cohort


def _identity(
    cohorts: Sequence[Cohort | None], config: TrainConfig, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """The identity of a folder of jobs (`model.training.processes.jobs.claim_folder`)."""
    digests = [cohort.digest for cohort in cohorts if cohort is not None]
    return {"cohorts": digests, "training": config.model_dump(mode="json"), "chosen": chosen}
