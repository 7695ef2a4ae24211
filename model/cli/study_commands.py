"""What the commands of `m3h-model` that train many models do: evaluate, tune, tim."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.cohorts.store import Cohort
from model.evaluation import report as reporting
from model.evaluation import study
from model.network.checkpoint import Checkpoint
from model.tim import coalition_training, synthetic_study, task_groups
from model.tim.matrix import Worth, check_enough, matrix
from model.training.config import read_choices, read_config
from model.training.device import Device, DeviceName
from model.training.distributed import join
from model.training.jobs import claim, run_all
from model.training.prepare import TrainConfig
from model.training.progress import progress_of_jobs


def evaluate(
    cohort: Path,
    work: Path,
    report: Path,
    external: Path | None,
    masked: Path | None,
    config: Path | None,
    tuned: Path | None,
) -> None:
    """Trains every model of the report on folds by hospital, tests each, and writes the report."""
    settings = read_config(config)
    chosen = {} if tuned is None else read_choices(tuned)
    with progress_of_jobs() as progress:
        jobs = study.every_job(external=external is not None, masked=masked is not None)
        bar = progress.add_task("study", total=len(jobs))
        home, other, nameless = _cohorts(cohort, external, masked)
        claim(work, _of((home, other, nameless), settings, chosen))
        opened = study.Opened(cohort, external, settings, chosen, masked)
        for job, ran in run_all(jobs, work, opened):
            progress.advance(bar)
            if ran:
                progress.console.print(job.file.removesuffix(".npz"))
        one = settings.model_copy(update={"members": 1})
        for seed in synthetic_study.run(work, config=one):
            progress.update(bar, description=f"study: made patients, seed {seed}")
        reporting.write(work, home, other, report, nameless)
        print(f"report in {report / 'results.md'}")


def tune(cohort: Path, work: Path, out: Path, external: Path | None, config: Path | None) -> None:
    """Chooses how each model of the study is trained; writes the choices to `out`."""
    settings = read_config(config)
    with progress_of_jobs() as progress:
        trials = study.every_trial(external=external is not None)
        bar = progress.add_task("trials", total=len(trials))
        home, other, _ = _cohorts(cohort, external, None)
        claim(work, _of((home, other), settings, {}))
        opened = study.Opened(cohort, external, settings, {})
        for _ in run_all(trials, work, opened):
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
    """Trains networks of coalitions of tasks; writes the matrix beside the checkpoint."""
    with join() as processes, progress_of_jobs() as progress:
        trained, loaded = Checkpoint.load(checkpoint), Cohort.load(cohort)
        facts = trained.facts
        coalition_training.check(facts, loaded)
        config = TrainConfig.model_validate({**facts.training, "net": facts.net.model_dump()})
        config = coalition_training.settings(config)
        claim(work, _of((loaded,), config, {}))
        drawn = coalition_training.coalitions(len(loaded.tasks), coalitions)
        check_enough(drawn, len(loaded.tasks))
        jobs = coalition_training.every_job(len(loaded.tasks), coalitions)[
            processes.rank :: processes.size
        ]
        where = Device.choose(device, processes)
        bar = progress.add_task("networks", total=len(jobs))
        if where.where.type == "cuda":
            running = coalition_training.Games(loaded, config, where).run_at_once(jobs, work)
        else:
            running = run_all(jobs, work, coalition_training.Opened(cohort, config))
        for _ in running:
            progress.advance(bar)
        processes.meet("has trained its networks")
        if not processes.first:
            return
        progress.update(bar, description="the matrix")
        command = shlex.join(["m3h-model", *sys.argv[1:]])
        found = matrix(Worth(work, loaded), drawn, command)
        replace(trained, tim=found).save(checkpoint)
        sure = sum(map(sum, found.certain))
        print(f"{sure} of {len(loaded.tasks) * (len(loaded.tasks) - 1)} cells are certain")
        if suggest_groups is not None:
            suggested = task_groups.suggest(found)
            suggest_groups.write_text(task_groups.as_toml(suggested), encoding="utf-8")
            print(f"{len(suggested)} groups in {suggest_groups}")


def _cohorts(
    home: Path, external: Path | None, masked: Path | None
) -> tuple[Cohort, Cohort | None, Cohort | None]:
    other, nameless = (None if f is None else Cohort.load(f) for f in (external, masked))
    return Cohort.load(home), other, nameless


def _of(
    cohorts: Sequence[Cohort | None], config: TrainConfig, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """What the jobs of a folder have in common."""
    digests = [cohort.digest for cohort in cohorts if cohort is not None]
    return {"cohorts": digests, "training": config.model_dump(mode="json"), "chosen": chosen}
