"""`m3h-model`: cohort, train, score; tune, evaluate."""

import importlib
import json
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from model import cohort as cohort_store
from model import labels, masking
from model.checkpoint import Checkpoint
from model.coalitions import TooFewError
from model.cohort import Cohort, CohortError
from model.device import Device, DeviceError
from model.evaluate import (
    HEADLINE_HOURS,
    Score,
    evaluate,
    mean_auroc,
)
from model.jobs import claim, run_all
from model.prepare import Prepared, RunError, TrainConfig
from model.pretrained import EncoderError, tokenizer_of
from model.processes import ProcessesError, join
from model.signatures import signed, warnings
from model.train import STATE, Trainer
from schemas.features import FeatureSpec
from schemas.response import MODALITIES, Modality

# What a user can mend.
FAILURES = (
    FileNotFoundError,
    CohortError,
    DeviceError,
    EncoderError,
    ProcessesError,
    RunError,
    TooFewError,
    ValidationError,
)
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)


class Source(StrEnum):
    eicu = "eicu"
    mimic_iv = "mimic_iv"
    nih_cxr = "nih_cxr"
    synthetic = "synthetic"


class ModalityName(StrEnum):
    tabular = "tabular"
    series = "series"
    notes = "notes"
    image = "image"


class DeviceName(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[
    DeviceName, typer.Option(help="Where to train; auto: on a CUDA GPU if there is one.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with names of TrainConfig.")]
Only = Annotated[list[ModalityName] | None, typer.Option(help="Only this modality; repeatable.")]
Tuned = Annotated[Path | None, typer.Option(help="Outcome of 'm3h-model tune'.")]
External = Annotated[Path | None, typer.Option(help="Cohort of another database.")]
CohortFolders = Annotated[
    list[Path], typer.Option("--cohort", help="Folder made by 'm3h-model cohort'; repeatable.")
]


@app.command()
def cohort(
    source: Annotated[Source, typer.Argument(help="Which reader.")],
    data: Annotated[Path, typer.Option(envvar="M3H_DATA", help="Folder with the databases.")],
    out: Annotated[Path, typer.Option(help="Folder to write the cohort to.")],
    masked: Annotated[
        bool, typer.Option("--masked", help="Without what names a disease in the notes.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Hugging Face folder of the BERT that will read the notes.")
    ] = None,
    image_side: Annotated[
        int | None, typer.Option(min=16, help="Pixels of an image's side; a DenseNet needs 224.")
    ] = None,
) -> None:
    """Read a patient database; write the arrays that training reads."""
    reader = importlib.import_module(f"model.cohorts.{source}")
    with _failures(), _progress() as progress:
        bar = progress.add_task(f"{source}: reading")
        written = 0
        records = reader.read(data)
        for written in cohort_store.write(
            masking.masked(records) if masked else records,
            out,
            name=f"{source}, masked" if masked else str(source),
            source=reader.SOURCE,
            made_by=(reader, labels, masking) if masked else (reader, labels),
            spec=_spec(tokenizer, image_side),
        ):
            progress.update(bar, description=f"{source}: {written} records")
        print(f"{written} records of {source} in {out}")


@app.command()
def train(
    cohorts: CohortFolders,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, and for resuming.")],
    config: ConfigFile = None,
    tuned: Tuned = None,
    modality: Only = None,
    device: DeviceOption = DeviceName.auto,
) -> None:
    """Train on one or more cohorts; the first one's prevalences are the ones that are served.

    A run that was killed goes on where it was when the same command is given again. On several
    processes and GPUs: torchrun --no-python --nproc-per-node 5 m3h-model train …
    """
    with _failures(), join() as processes:
        settings = _config(config)
        if tuned is not None:
            from model import study as studying  # noqa: PLC0415 - slow to import

            settings = studying.tuned(settings, _chosen(tuned))
        where = Device.choose(device.value, processes)
        loaded = [Cohort.load(folder) for folder in cohorts]
        command = shlex.join(["m3h-model", *sys.argv[1:]])
        prepared = Prepared(
            loaded,
            settings,
            command=command,
            modalities=_modalities(modality),
            device=where,
            processes=processes,
        )
        trainer = Trainer(prepared)
        _watch(trainer, out, settings)
        if processes.first:
            checkpoint = signed(trainer)
            checkpoint.save(out)
            for sign in warnings(checkpoint.facts):
                console.print(f"warning: {sign}", style="yellow", markup=False, soft_wrap=True)
            for k in range(settings.members):
                (out / STATE.format(k)).unlink(missing_ok=True)
            print(f"checkpoint of {settings.members} members in {out}")


def _watch(trainer: Trainer, out: Path, settings: TrainConfig) -> None:
    """Prints each epoch; of several processes each its own, without a bar."""
    processes = trainer.processes
    mine = [str(k + 1) for k in processes.mine(settings.members)]
    with _progress(disable=processes.size > 1) as progress:
        who = f"{processes}: " if processes.size > 1 else ""
        what = f"{who}member {', '.join(mine)} of {settings.members} on {trainer.device}"
        progress.console.print(what, soft_wrap=True)
        bar = progress.add_task("training")
        for epoch in trainer.run(out):
            losses = "  ".join(
                f"{kind} {epoch.training[kind]:.4f}/{value:.4f}"
                for kind, value in epoch.validation.items()
            )
            mark = " *" if epoch.best else ""
            where = f"member {epoch.member + 1}/{settings.members}, epoch {epoch.number:2d}"
            line = f"{where}  (train/held out) {losses}{mark}"
            progress.console.print(line, soft_wrap=True)
            progress.update(bar, description=f"training: {where}")


@app.command()
def score(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort to test on.")],
    hours: Annotated[float, typer.Option(help="Landmark, hours since admission.")] = HEADLINE_HOURS,
    out: Annotated[Path | None, typer.Option(help="Also write the scores as JSON.")] = None,
) -> None:
    """Print how good one trained model is on a cohort, task by task."""
    with _failures():
        loaded = Cohort.load(cohort_folder)
        at = None if np.isnan(loaded.samples.landmark).all() else hours
        tables = {"M3H": evaluate(Checkpoint.load(checkpoint), loaded, at)}
        _print_tables(tables)
        if out is not None:
            scores = {name: [vars(s) for s in table] for name, table in tables.items()}
            out.write_text(json.dumps(scores, indent=1), encoding="utf-8")


@app.command("evaluate")
def evaluate_command(
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the predictions; to go on from, too.")],
    report: Annotated[Path, typer.Option(help="Folder for results.md, results.json and plots.")],
    external: External = None,
    masked: Annotated[
        Path | None, typer.Option(help="The first cohort, made with --masked.")
    ] = None,
    config: ConfigFile = None,
    tuned: Tuned = None,
) -> None:
    """Train every model on folds by hospital, test each where it never learned, and report.

    A study that was killed goes on where it was when the same command is given again.
    """
    from model import report as reporting  # noqa: PLC0415 - plots are slow to import
    from model import study as studying  # noqa: PLC0415 - slow to import, too
    from model import synthetic_study  # noqa: PLC0415 - the same

    with _failures(), _progress_of_jobs() as progress:
        jobs = studying.every_job(external=external is not None, masked=masked is not None)
        bar = progress.add_task("study", total=len(jobs))
        settings = _config(config)
        chosen = {} if tuned is None else _chosen(tuned)
        home, other, nameless = _cohorts(cohort_folder, external, masked)
        claim(work, _of((home, other, nameless), settings, chosen))
        opened = studying.Opened(cohort_folder, external, settings, chosen, masked)
        for job, ran in run_all(jobs, work, opened):
            progress.advance(bar)
            if ran:
                progress.console.print(job.file.removesuffix(".npz"))
        one = settings.model_copy(update={"members": 1})
        for seed in synthetic_study.run(work, config=one):
            progress.update(bar, description=f"study: made patients, seed {seed}")
        reporting.write(work, home, other, report, nameless)
        print(f"report in {report / 'results.md'}")


@app.command()
def tune(
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the trials; to go on from, too.")],
    out: Annotated[Path, typer.Option(help="JSON file for what was chosen.")],
    external: External = None,
    config: ConfigFile = None,
) -> None:
    """Choose how each model of the study is trained, by hospitals that it is never tested on.

    A search that was killed goes on where it was when the same command is given again.
    """
    from model import study as studying  # noqa: PLC0415 - slow to import

    with _failures(), _progress_of_jobs() as progress:
        trials = studying.every_trial(external=external is not None)
        bar = progress.add_task("trials", total=len(trials))
        settings = _config(config)
        home, other, _ = _cohorts(cohort_folder, external, None)
        claim(work, _of((home, other), settings, {}))
        opened = studying.Opened(cohort_folder, external, settings, {})
        for _ in run_all(trials, work, opened):
            progress.advance(bar)
        chosen = studying.choose(work, home)
        out.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
        print(f"choices in {out}")


@app.command()
def tim(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model, whose networks these are.")],
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the networks' answers; to go on from.")],
    coalitions: Annotated[int, typer.Option(min=1, help="How many to draw.")] = 512,
    suggest_groups: Annotated[
        Path | None,
        typer.Option(help="Also write which tasks to learn apart, a file for train --config."),
    ] = None,
    device: DeviceOption = DeviceName.auto,
) -> None:
    """Find out which task teaches which; the matrix goes beside the checkpoint.

    A run that was killed goes on where it was when the same command is given again, and one with
    more coalitions adds to those that are there. On a CPU each core trains one network after the
    other, on a GPU many at once; with torchrun each process has its share.
    """
    from model import games, groups  # noqa: PLC0415 - slow to import
    from model.tim import Worth, check_enough, matrix  # noqa: PLC0415 - the same

    with _failures(), join() as processes, _progress_of_jobs() as progress:
        trained, loaded = Checkpoint.load(checkpoint), Cohort.load(cohort_folder)
        facts = trained.facts
        games.check(facts, loaded)
        config = TrainConfig.model_validate({**facts.training, "net": facts.net.model_dump()})
        config = games.settings(config)
        claim(work, _of((loaded,), config, {}))
        drawn = games.coalitions(len(loaded.tasks), coalitions)
        check_enough(drawn, len(loaded.tasks))
        jobs = games.every_job(len(loaded.tasks), coalitions)[processes.rank :: processes.size]
        where = Device.choose(device.value, processes)
        bar = progress.add_task("networks", total=len(jobs))
        if where.where.type == "cuda":
            running = games.Games(loaded, config, where).run_at_once(jobs, work)
        else:
            running = run_all(jobs, work, games.Opened(cohort_folder, config))
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
            suggested = groups.suggest(found)
            suggest_groups.write_text(groups.as_toml(suggested), encoding="utf-8")
            print(f"{len(suggested)} groups in {suggest_groups}")


def _print_tables(tables: dict[str, list[Score]]) -> None:
    table = Table("task", "labelled", "positives", *tables)
    for lines in zip(*tables.values(), strict=True):
        first = lines[0]
        positives = "" if first.positives is None else str(first.positives)
        cells = ["  ".join(f"{k} {v:.3f}" for k, v in line.metrics.items()) for line in lines]
        table.add_row(first.task, str(first.labelled), positives, *cells)
    # A width that holds every column, so that nothing is folded when it goes to a file.
    Console(width=max(console.width, 100 + 60 * len(tables))).print(table)
    for name, lines_of in tables.items():
        print(f"{name}: mean AUROC {mean_auroc(lines_of):.4f}")


def _modalities(names: list[ModalityName] | None) -> tuple[Modality, ...]:
    return tuple(m for m in MODALITIES if not names or m in names)


def _spec(bert: Path | None, image_side: int | None) -> FeatureSpec:
    changed: dict[str, Any] = {}
    if bert is not None:
        changed |= {"tokenizer_json": tokenizer_of(bert), "phrases": 0}
    if image_side is not None:
        changed["image_side"] = image_side
    return FeatureSpec.default().model_copy(update=changed)


def _config(path: Path | None) -> TrainConfig:
    fields = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    return TrainConfig.model_validate(fields)


def _chosen(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    chosen: dict[str, dict[str, dict[str, int]]] = json.loads(path.read_text("utf-8"))
    return chosen


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


def _progress(*, disable: bool = False) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=disable)


def _progress_of_jobs() -> Progress:
    """With how many are done, and the time that is left."""
    columns = (MofNCompleteColumn(), TextColumn("left:"), TimeRemainingColumn())
    return Progress(*Progress.get_default_columns()[:2], *columns, console=console)


@contextmanager
def _failures() -> Iterator[None]:
    """What a user can mend ends in one line on stderr, not in a traceback."""
    try:
        yield
    except FAILURES as error:
        console.print(f"m3h-model: {error}", style="red", markup=False)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
