"""`m3h-model`: cohort, train, score; tune, evaluate, tim.

`model.cli.training_commands` and `model.cli.study_commands` do the work. They import
torch, so they are imported only when a command runs: `--help` is fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from model.errors import line_of

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make cohorts, train and evaluate models, find out which task teaches which.",
)


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


def _print_version(asked: bool) -> None:
    if asked:
        print(f"m3h-model {version('m3h')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


@app.callback()
def main(*, version: Version = False) -> None:
    pass


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
    with _failures():
        from model.cli import training_commands

        training_commands.make_cohort(source.value, data, out, masked, tokenizer, image_side)


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

    A run that was killed goes on where it was when the same command is given again. Each epoch is
    a line of epochs.csv in the folder, and goes to TensorBoard if that is installed. On several
    processes and GPUs: torchrun --no-python --nproc-per-node 5 m3h-model train …
    """
    with _failures():
        from model.cli import training_commands

        modalities = [m.value for m in modality or ()]
        training_commands.train(cohorts, out, config, tuned, modalities, device.value)


@app.command()
def score(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort to test on.")],
    hours: Annotated[float, typer.Option(help="Landmark, hours since admission.")] = 24.0,
    out: Annotated[Path | None, typer.Option(help="Also write the scores as JSON.")] = None,
) -> None:
    """Print how good one trained model is on a cohort, task by task."""
    with _failures():
        from model.cli import training_commands

        training_commands.score(checkpoint, cohort_folder, hours, out)


@app.command()
def evaluate(
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
    with _failures():
        from model.cli import study_commands

        study_commands.evaluate(cohort_folder, work, report, external, masked, config, tuned)


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
    with _failures():
        from model.cli import study_commands

        study_commands.tune(cohort_folder, work, out, external, config)


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
    with _failures():
        from model.cli import study_commands

        study_commands.tim(
            checkpoint, cohort_folder, work, coalitions, suggest_groups, device.value
        )


@contextmanager
def _failures() -> Iterator[None]:
    """What a user can mend ends in one line on stderr, not in a traceback."""
    try:
        yield
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        typer.echo(f"m3h-model: {line}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
