"""The command line of `m3h-model`: make cohorts; train, score and evaluate models; compute TIM.

The other modules of `model.cli` implement the commands. They import torch, so each command imports
them when it runs; this keeps `--help` fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from model.errors import user_message

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make cohorts, train and evaluate models, compute the task interaction matrix (TIM).",
)


class Source(StrEnum):
    records = "records"
    meds = "meds"
    omop = "omop"
    fhir = "fhir"
    eicu = "eicu"
    mimic_iv = "mimic_iv"
    nih_cxr = "nih_cxr"
    cinc2012 = "cinc2012"
    support2 = "support2"
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
    DeviceName, typer.Option(help="Device; auto uses a CUDA GPU if there is one.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with settings of TrainConfig.")]
Only = Annotated[
    list[ModalityName] | None, typer.Option(help="Use only this modality; repeatable.")
]
Tuned = Annotated[Path | None, typer.Option(help="File written by 'm3h-model tune'.")]
External = Annotated[
    Path | None, typer.Option(help="Cohort of another database, for external validation.")
]
CohortFolders = Annotated[
    list[Path], typer.Option("--cohort", help="Folder made by 'm3h-model cohort'; repeatable.")
]


def _print_version(requested: bool) -> None:
    if requested:
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
    source: Annotated[
        Source,
        typer.Argument(help="Your own data (records: JSON Lines; meds), or an open database."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the cohort to.")],
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="M3H_DATA",
            help="Folder with the databases or your files; records: the file; synthetic: none.",
        ),
    ] = None,
    masked: Annotated[
        bool, typer.Option("--masked", help="Mask the names of diseases in the notes.")
    ] = False,
    codes: Annotated[
        str | None,
        typer.Option(
            help="meds: what the codes mean, as a TOML file or mimic_iv. LOINC needs none."
        ),
    ] = None,
    patients: Annotated[
        int | None, typer.Option(min=1, help="synthetic: how many patients; 1600 by default.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Hugging Face folder of the BERT that encodes the notes.")
    ] = None,
    image_side: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the images, in pixels; a DenseNet needs 224."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="A bundle: make the cohort with its variables, units and tokens, for "
            "'m3h-export --recalibrate' and '--precision'."
        ),
    ] = None,
) -> None:
    """Convert patients' data to a cohort, the input of training."""
    if like is not None and (tokenizer is not None or image_side is not None):
        raise typer.BadParameter("--like excludes --tokenizer and --image-side")
    if codes is not None and source is not Source.meds:
        raise typer.BadParameter("--codes is an option of meds")
    if patients is not None and source is not Source.synthetic:
        raise typer.BadParameter("--patients is an option of synthetic")
    if data is None and source is not Source.synthetic:
        raise typer.BadParameter("needs --data, or the variable M3H_DATA")
    options = tuple(option for option in (codes, patients) if option is not None)
    with _user_errors():
        from model.cli import training_commands

        spec = training_commands.cohort_spec(tokenizer, image_side, like)
        training_commands.make_cohort(source.value, data or Path(), out, masked, spec, options)


@app.command()
def train(
    cohorts: CohortFolders,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and the state of the run.")],
    config: ConfigFile = None,
    tuned: Tuned = None,
    modality: Only = None,
    device: DeviceOption = DeviceName.auto,
) -> None:
    """Train a model on one or more cohorts; it serves the prevalences of the first.

    To resume a killed run, run the same command again. Each epoch is logged to epochs.csv in the
    folder, and to TensorBoard if that is installed. With several processes or GPUs: torchrun
    --no-python --nproc-per-node 5 m3h-model train …
    """
    with _user_errors():
        from model.cli import training_commands

        modalities = [m.value for m in modality or ()]
        training_commands.train(cohorts, out, config, tuned, modalities, device.value)


@app.command()
def score(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort to test on.")],
    hours: Annotated[float, typer.Option(help="Landmark, in hours since admission.")] = 24.0,
    out: Annotated[Path | None, typer.Option(help="Also write the scores as JSON.")] = None,
) -> None:
    """Score a trained model on a cohort, task by task."""
    with _user_errors():
        from model.cli import training_commands

        training_commands.score(checkpoint, cohort_folder, hours, out)


@app.command()
def behaviour(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with MIMIC-IV or eICU, for real patients beside the made ones."),
    ] = None,
    patients: Annotated[int, typer.Option(min=1, help="Number of real patients.")] = 40,
    expectations: Annotated[
        list[Path] | None,
        typer.Option(help="TOML file of expectations, instead of those of m3h; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Number of worst expectations to print.")] = 25,
    at_least: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Exit with 1 if a smaller share of expectations holds in nine of ten patients.",
        ),
    ] = 0.0,
) -> None:
    """Judge what moves a trained model's predictions by what a clinician expects."""
    with _user_errors():
        from model.cli import behaviour_command

        share = behaviour_command.behaviour(checkpoint, data, patients, expectations, out, show)
    if share < at_least:
        raise typer.Exit(1)


@app.command()
def evaluate(
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the predictions and for resuming.")],
    report: Annotated[Path, typer.Option(help="Folder for results.md, results.json and plots.")],
    external: External = None,
    masked: Annotated[
        Path | None, typer.Option(help="The same cohort, made with --masked.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Cohort of chest X-rays, to test the images alone.")
    ] = None,
    config: ConfigFile = None,
    tuned: Tuned = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing; report the finished tests.")
    ] = False,
) -> None:
    """Evaluate all models by cross-validation over hospitals, and write the report.

    To resume a killed evaluation, run the same command again.
    """
    with _user_errors():
        from model.cli import study_commands

        study_commands.evaluate(
            cohort_folder, work, report, external, masked, images, config, tuned, report_only
        )


@app.command("cross-validate")
def cross_validate(
    cohort_folder: Annotated[
        Path, typer.Option("--cohort", help="Cohort of one hospital, or of few.")
    ],
    work: Annotated[Path, typer.Option(help="Folder for the predictions and for resuming.")],
    hours: Annotated[float, typer.Option(help="Landmark, in hours since admission.")] = 24.0,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Test the network, LightGBM and logistic regression on five folds by patient.

    The figures of each binary task: AUROC, calibration slope and intercept, with 95 % intervals.
    To resume a killed run, run the same command again.
    """
    with _user_errors():
        from model.cli import cross_validation_command

        cross_validation_command.cross_validate(cohort_folder, work, hours, config, out)


@app.command()
def tune(
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the trials and for resuming.")],
    out: Annotated[Path, typer.Option(help="JSON file for the chosen settings.")],
    external: External = None,
    config: ConfigFile = None,
) -> None:
    """Choose the settings of each evaluated model on hospitals that it is not tested on.

    To resume a killed search, run the same command again.
    """
    with _user_errors():
        from model.cli import study_commands

        study_commands.tune(cohort_folder, work, out, external, config)


@app.command()
def tim(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model; its configuration is used.")],
    cohort_folder: Annotated[Path, typer.Option("--cohort", help="Cohort of many hospitals.")],
    work: Annotated[Path, typer.Option(help="Folder for the networks' outputs and for resuming.")],
    coalitions: Annotated[int, typer.Option(min=1, help="Number of coalitions to draw.")] = 512,
    suggest_groups: Annotated[
        Path | None,
        typer.Option(help="Also write suggested groups of tasks, a file for train --config."),
    ] = None,
    device: DeviceOption = DeviceName.auto,
) -> None:
    """Compute the task interaction matrix (TIM); write it beside the checkpoint.

    To resume a killed run, run the same command again; with more coalitions it adds to them. On a
    CPU, each core trains one network at a time; a GPU trains many at once. With torchrun, the
    processes share the networks.
    """
    with _user_errors():
        from model.cli import study_commands

        study_commands.tim(
            checkpoint, cohort_folder, work, coalitions, suggest_groups, device.value
        )


@contextmanager
def _user_errors() -> Iterator[None]:
    """Prints an error that the user can fix as one line on stderr, and exits with 2."""
    try:
        yield
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise
        typer.echo(f"m3h-model: {line}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
